"""Robustness: missed ends, speech that is far too long, parts of a sentence that are skipped or repeated.

    audio-projection robustness --config nano --output runs/robustness

Sentences of 3 to 25 words are spoken, and each is compared with the teacher's, flite's `rms`; `skips_and_repeats.py`
says what counts as skipped or repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_projection.config import Config
from audio_projection.evaluation.comparison import ComparisonReport, Measurement, SystemResult, compare_systems
from audio_projection.evaluation.sentence_sets import ROBUSTNESS, read_sentences
from audio_projection.evaluation.skips_and_repeats import CLAUSE, WORD, SkipsAndRepeats, find_skips_and_repeats
from audio_projection.evaluation.spectral_distance import Frames
from audio_projection.evaluation.systems import PLAIN, SpeechSources, SpokenSentence, System, name_systems

if TYPE_CHECKING:
    from rich.table import Table

SYSTEMS = (PLAIN, "linear")
TOO_LONG = 2.0
"""Duration relative to the teacher's from which on speech is too long."""
_COUNTED = f"clauses, words: sentences in which {CLAUSE:g} s, {WORD:g} s of speech or more are skipped or repeated"


def measure_robustness(
    config: Config,
    sentences: str | Path | None = None,
    systems: Sequence[str] = SYSTEMS,
    output: str | Path | None = None,
    limit: int | None = None,
) -> ComparisonReport[RobustnessResult]:
    """Speak the sentences and compare them with the teacher's; prints the table on stdout.

    `sentences`: a file, one a line; none: those of benchmarks/robustness.txt. `systems`: as those of `evaluate`. With
    `output` the sound is kept in a folder for each system, beside results.json. `limit`: only the first so many
    sentences.
    Raises AudioProjectionError for unknown systems, an unusable file, without flite, or when no system can be measured.
    """
    texts, named = read_sentences(sentences, limit, ROBUSTNESS), name_systems(systems)
    sources = SpeechSources(config, texts)
    return compare_systems(sources, named, _Robustness(sources.teacher()), output)


@dataclass(frozen=True)
class SentenceRobustness:
    """One sentence of a system beside the teacher's."""

    seconds: float
    ratio: float
    """Its duration relative to the teacher's."""
    ended: bool
    words: SkipsAndRepeats
    """Skips and repeats as long as a word or longer."""
    clauses: SkipsAndRepeats
    """Skips and repeats as long as a clause or longer."""


@dataclass
class RobustnessResult(SystemResult):
    """Robustness of one system, sentence by sentence."""

    spoken: list[SentenceRobustness] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Shares of the sentences, but for the durations and the count of those that are too long."""
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


def _shares(length: str, found: Sequence[SkipsAndRepeats]) -> dict[str, float]:
    """Shares of the sentences in which something of that length is skipped, repeated, or either."""
    skipped = np.array([each.skipped is not None for each in found])
    repeated = np.array([each.repeated is not None for each in found])
    shares = {"skipped": skipped, "repeated": repeated, "skipped_or_repeated": skipped | repeated}
    return {f"{length}_{name}": float(each.mean()) for name, each in shares.items()}


@dataclass
class RobustnessReport(ComparisonReport[RobustnessResult]):
    """Robustness of all systems on the same sentences."""

    def measured(self, system: RobustnessResult) -> dict[str, Any]:
        return {**system.summary(), "spoken": [asdict(each) for each in system.spoken]}

    def tables(self) -> list[Table]:
        from rich.table import Column, Table

        table = Table(
            Column("system", overflow="fold"),
            title=f"{len(self.sentences)} sentences beside the teacher's; length is duration to the teacher's",
            caption="\n".join([*self.captions(), _COUNTED]),
            caption_justify="left",
        )
        headings = ("ended %", "length: 99 %", "largest", f"above {TOO_LONG:g}", "clauses %", "words %")
        for heading in headings:
            table.add_column(heading, justify="right")
        for system in self.systems:
            table.add_row(system.name, *(["-"] * len(headings) if system.missing else _cells(system.summary())))
        return [table]


def _cells(summary: dict[str, float]) -> list[str]:
    shares = ("clauses_skipped_or_repeated", "words_skipped_or_repeated")
    ended, *found = (f"{100 * summary[key]:.1f}" for key in ("ended", *shares))
    lengths = [f"{summary[key]:.2f}" for key in ("percentile_99_length", "largest_length")]
    return [ended, *lengths, f"{summary['too_long']:d}", *found]


class _Robustness(Measurement[RobustnessResult]):
    """Ends, durations, skips and repeats of each sentence beside the teacher's."""

    result_type, report_type = RobustnessResult, RobustnessReport

    def __init__(self, teacher: Sequence[SpokenSentence]) -> None:
        self._teacher = teacher

    def measure(self, system: System, spoken: Iterator[SpokenSentence]) -> RobustnessResult:
        compared = [_compared(sentence, teacher) for sentence, teacher in zip(spoken, self._teacher, strict=True)]
        return RobustnessResult(system.name, system.meaning, compared)


def _compared(sentence: SpokenSentence, teacher: SpokenSentence) -> SentenceRobustness:
    pair = Frames(sentence.samples, sentence.rate), Frames(teacher.samples, teacher.rate)
    words, clauses = find_skips_and_repeats(*pair, WORD, CLAUSE)
    ratio = sentence.seconds / teacher.seconds
    return SentenceRobustness(sentence.seconds, ratio, sentence.ended, words, clauses)
