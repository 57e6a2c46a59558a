"""Whether speech goes astray: ends that are missed, speech that is far too long, parts left out or said twice.

    audio-projection robustness --config configs/nano.yaml --output runs/robustness

Sentences of 3 to 25 words are spoken, and each is compared with the teacher's, flite's `rms`; what counts as left out
or repeated is told in `lapses.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.sentence_sets import ROBUSTNESS, read_sentences
from audio_projection.evaluation.skips_and_repeats import CLAUSE, WORD, SkipsAndRepeats, find_skips_and_repeats
from audio_projection.evaluation.spectral_distance import Frames
from audio_projection.evaluation.systems import (
    PLAIN,
    Speakers,
    SpokenSentence,
    System,
    keep,
    name_systems,
    notes_in_words,
)
from audio_projection.files.atomic import make_folder, write_json

if TYPE_CHECKING:
    from rich.table import Table

ROWS = (PLAIN, "linear")
TOO_LONG = 2.0
"""Length to the teacher's."""
_COUNTED = f"clauses, words: sentences in which {CLAUSE:g} s, {WORD:g} s of speech or more are skipped or repeated"


@dataclass(frozen=True)
class Spoken:
    """One sentence as a row speaks it."""

    seconds: float
    ratio: float
    """Of its length to the teacher's."""
    ended: bool
    words: SkipsAndRepeats
    """From the length of a word on."""
    clauses: SkipsAndRepeats
    """From that of a clause on."""


@dataclass
class RobustnessResult:
    """One line of the table."""

    name: str
    meaning: str
    spoken: list[Spoken] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    missing: str = ""
    """Why nothing was measured."""

    def summary(self) -> dict[str, float]:
        """Shares of the sentences, but for the lengths and the count of those that are too long."""
        ratios = np.array([each.ratio for each in self.spoken])
        return {
            "ended": float(np.mean([each.ended for each in self.spoken])),
            "median_length": float(np.median(ratios)),
            "percentile_99_length": float(np.quantile(ratios, 0.99)),
            "largest_length": float(ratios.max()),
            "too_long": int((ratios > TOO_LONG).sum()),
            **_shares("words", [each.words for each in self.spoken]),
            **_shares("clauses", [each.clauses for each in self.spoken]),
        }

    def to_json(self) -> dict[str, Any]:
        if self.missing:
            return {"name": self.name, "meaning": self.meaning, "missing": self.missing}
        each = [asdict(spoken) for spoken in self.spoken]
        return {"name": self.name, "meaning": self.meaning, **self.summary(), "spoken": each, **self.notes}


def _shares(length: str, found: Sequence[SkipsAndRepeats]) -> dict[str, float]:
    """Shares of the sentences in which something of that length is skipped, repeated, or either."""
    skipped = np.array([lapses.skipped is not None for lapses in found])
    repeated = np.array([lapses.repeated is not None for lapses in found])
    shares = {"skipped": skipped, "repeated": repeated, "skipped_or_repeated": skipped | repeated}
    return {f"{length}_{name}": float(each.mean()) for name, each in shares.items()}


@dataclass
class RobustnessReport:
    """All rows on the same sentences."""

    sentences: list[str]
    rows: list[RobustnessResult]
    seed: int

    def to_json(self) -> dict[str, Any]:
        return {"seed": self.seed, "sentences": self.sentences, "rows": [row.to_json() for row in self.rows]}

    def table(self) -> Table:
        """For people, by rich."""
        from rich.table import Column, Table

        table = Table(
            Column("row", overflow="fold"),
            title=f"{len(self.sentences)} sentences beside the teacher's; length is duration to the teacher's",
            caption="\n".join([*map(_caption, self.rows), _COUNTED]),
            caption_justify="left",
        )
        headings = ("ended %", "length: 99 %", "largest", f"above {TOO_LONG:g}", "clauses %", "words %")
        for heading in headings:
            table.add_column(heading, justify="right")
        for row in self.rows:
            table.add_row(row.name, *(["-"] * len(headings) if row.missing else _cells(row.summary())))
        return table


def _cells(summary: dict[str, float]) -> list[str]:
    shares = ("clauses_skipped_or_repeated", "words_skipped_or_repeated")
    ended, *lapses = (f"{100 * summary[key]:.1f}" for key in ("ended", *shares))
    lengths = [f"{summary[key]:.2f}" for key in ("percentile_99_length", "largest_length")]
    return [ended, *lengths, f"{summary['too_long']:d}", *lapses]


def _caption(row: RobustnessResult) -> str:
    notes = "" if row.name == PLAIN else notes_in_words(row.notes)
    return f"{row.name}: " + (row.missing or "; ".join(filter(None, (row.meaning, notes))))


def run(
    config: Config,
    sentences: str | Path | None = None,
    rows: Sequence[str] = ROWS,
    output: str | Path | None = None,
    limit: int | None = None,
) -> RobustnessReport:
    """Speak the sentences and compare them with the teacher's; prints the table on stdout.

    `sentences`: a file, one a line; none: those of benchmarks/robustness.txt. `rows`: as those of `evaluate`. With
    `output` the sound is kept in a folder a row, beside results.json. `limit`: only so many sentences.
    Raises AudioProjectionError for unknown rows, an unusable file, without flite, or when no row can be measured.
    """
    from rich.console import Console

    texts, named = read_sentences(sentences, limit, ROBUSTNESS), name_systems(rows)
    folder = None if output is None else make_folder(Path(output))
    stage = Speakers(config, texts)
    stage.teacher()
    report = RobustnessReport(texts, [_measure(row, stage, folder) for row in named], config.seed)
    if not any(row.spoken for row in report.rows):
        raise AudioProjectionError(f"no row could be measured: {'; '.join(row.missing for row in report.rows)}")
    Console(markup=False, highlight=False).print(report.table())
    if folder is not None:
        write_json(folder / "results.json", report.to_json())
    return report


def _measure(named: System, stage: Speakers, folder: Path | None) -> RobustnessResult:
    """Speak and compare one row; what cannot be had becomes a row that says why."""
    row = RobustnessResult(named.name, named.meaning)
    try:
        for index, (utterance, teacher) in enumerate(zip(named.utterances(stage), stage.teacher(), strict=True)):
            row.spoken.append(_compared(utterance, teacher))
            if folder is not None:
                keep(utterance, folder, row.name, index)
        row.notes = named.notes(stage)
    except AudioProjectionError as error:
        return RobustnessResult(row.name, row.meaning, missing=str(error))
    return row


def _compared(utterance: SpokenSentence, teacher: SpokenSentence) -> Spoken:
    pair = Frames(utterance.samples, utterance.rate), Frames(teacher.samples, teacher.rate)
    words, clauses = find_skips_and_repeats(*pair, WORD, CLAUSE)
    return Spoken(utterance.seconds, utterance.seconds / teacher.seconds, utterance.ended, words, clauses)
