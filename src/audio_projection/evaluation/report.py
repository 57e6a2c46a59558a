"""What an evaluation found: one row for each who spoke, as tables for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_projection.evaluation.asr import WordErrors, reference_words
from audio_projection.evaluation.bootstrap import PairedBootstrap
from audio_projection.evaluation.spectral_distance import Distances
from audio_projection.evaluation.systems import PLAIN, TEACHER, notes_in_words

if TYPE_CHECKING:
    from rich.table import Table

Estimate = tuple[float, float, float]
"""A number and its 95 % interval."""


@dataclass
class SystemResult:
    """One line of the table: what was heard, sentence by sentence."""

    name: str
    meaning: str
    heard: list[str] = field(default_factory=list)
    errors: list[WordErrors] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    distances: list[Distances] = field(default_factory=list)
    """To the teacher; empty without it."""
    notes: dict[str, Any] = field(default_factory=dict)
    missing: str = ""
    """Why nothing was measured."""

    @property
    def wrong(self) -> list[int]:
        return [each.errors for each in self.errors]

    @property
    def word_error_rate(self) -> float:
        return sum(self.wrong) / sum(each.words for each in self.errors)

    @property
    def remark(self) -> str:
        """What the row is, for the caption of the table."""
        words = "" if self.name == PLAIN else notes_in_words(self.notes)
        return self.missing or "; ".join(filter(None, (self.meaning, words)))


@dataclass
class EvaluationReport:
    """All rows on the same sentences; intervals are 95 % ones, by one paired bootstrap over the sentences."""

    sentences: list[str]
    rows: list[SystemResult]
    seed: int

    @cached_property
    def _words(self) -> list[int]:
        return [len(reference_words(text)) for text in self.sentences]

    @cached_property
    def _bootstrap(self) -> PairedBootstrap:
        return PairedBootstrap(self._words, seed=self.seed)

    def row(self, name: str) -> SystemResult | None:
        """The measured row of that name."""
        return next((row for row in self.rows if row.name == name and row.errors), None)

    def interval(self, row: SystemResult) -> tuple[float, float]:
        return self._bootstrap.interval(row.wrong)

    def difference(self, row: SystemResult, other: str) -> Estimate | None:
        """Word error rate minus that of another row; None for that row itself or without it."""
        baseline = self.row(other)
        if baseline is None or row is baseline:
            return None
        return row.word_error_rate - baseline.word_error_rate, *self._bootstrap.difference(row.wrong, baseline.wrong)

    def distance(self, row: SystemResult, kind: str) -> Estimate | None:
        """Median over the sentences of a distance to the teacher, "mel_cepstral" or "log_spectral", in dB."""
        if not row.distances:
            return None
        values = [getattr(each, kind) for each in row.distances]
        return float(np.median(values)), *self._bootstrap.median_interval(values)

    def duration_ratio(self, row: SystemResult) -> float | None:
        """Median over the sentences of this row's length to the teacher's."""
        teacher = self.row(TEACHER)
        if teacher is None:
            return None
        return float(np.median(np.divide(row.seconds, teacher.seconds)))

    def to_json(self) -> dict[str, Any]:
        return {"seed": self.seed, "sentences": self.sentences, "rows": [self._row_json(row) for row in self.rows]}

    def _row_json(self, row: SystemResult) -> dict[str, Any]:
        if row.missing:
            return {"name": row.name, "meaning": row.meaning, "missing": row.missing}
        return {
            "name": row.name,
            "meaning": row.meaning,
            "word_error_rate": row.word_error_rate,
            "interval": self.interval(row),
            "minus_teacher": self.difference(row, TEACHER),
            "minus_plain": self.difference(row, PLAIN),
            "mel_cepstral_distance": self.distance(row, "mel_cepstral"),
            "log_spectral_distance": self.distance(row, "log_spectral"),
            "ended": sum(row.ended) / len(row.ended),
            "duration_ratio": self.duration_ratio(row),
            **asdict(sum(row.errors[1:], row.errors[0])),
            "heard": row.heard,
            "errors": row.wrong,
            "seconds": row.seconds,
            "distances": [asdict(each) for each in row.distances],
            **row.notes,
        }

    def tables(self) -> list[Table]:
        """For people, by rich: the words, and the sound. Two, so that each fits 80 columns."""
        count = f"{len(self.sentences)} sentences of {sum(self._words)} words"
        words = _table(f"word error rate, {count} (95 % interval)", "WER %", "minus teacher", "minus plain")
        sound = _table(
            f"beside the teacher: medians of {len(self.sentences)} sentences (95 % interval)",
            "mel-cepstral dB",
            "log-spectral dB",
            "length",
            "ended %",
        )
        sound.caption = "\n".join(f"{row.name}: {row.remark}" for row in self.rows)
        for row in self.rows:
            words.add_row(row.name, *(["-"] * 3 if row.missing else self._words_cells(row)))
            sound.add_row(row.name, *(["-"] * 4 if row.missing else self._sound_cells(row)))
        return [words, sound]

    def _words_cells(self, row: SystemResult) -> list[str]:
        differences = [self.difference(row, other) for other in (TEACHER, PLAIN)]
        return [
            f"{100 * row.word_error_rate:.1f} {_points(self.interval(row))}",
            *("" if each is None else f"{100 * each[0]:+.1f} {_points(each[1:])}" for each in differences),
        ]

    def _sound_cells(self, row: SystemResult) -> list[str]:
        distances = [self.distance(row, kind) for kind in ("mel_cepstral", "log_spectral")]
        ratio = self.duration_ratio(row)
        return [
            *("" if each is None else f"{each[0]:.2f} [{each[1]:.2f}, {each[2]:.2f}]" for each in distances),
            "" if ratio is None else f"{ratio:.2f}",
            f"{100 * sum(row.ended) / len(row.ended):.0f}",
        ]


def _table(title: str, *headings: str) -> Table:
    from rich.table import Column, Table

    table = Table(Column("row", overflow="fold"), title=title, caption_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _points(interval: Sequence[float]) -> str:
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
