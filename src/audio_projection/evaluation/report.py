"""Results of `evaluate`: word error rates with intervals and spectral distances, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_projection.evaluation.asr import WordErrors, reference_words
from audio_projection.evaluation.bootstrap import PairedBootstrap
from audio_projection.evaluation.comparison import ComparisonReport, SystemResult
from audio_projection.evaluation.spectral_distance import Distances
from audio_projection.evaluation.systems import PLAIN, TEACHER

if TYPE_CHECKING:
    from rich.table import Table

Estimate = tuple[float, float, float]
"""A number and its 95 % interval."""


@dataclass
class EvaluationResult(SystemResult):
    """Word errors, durations and spectral distances of one system, sentence by sentence."""

    transcripts: list[str] = field(default_factory=list)
    errors: list[WordErrors] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    distances: list[Distances] = field(default_factory=list)
    """To the teacher; empty without it."""

    @property
    def wrong(self) -> list[int]:
        """Word errors of each sentence."""
        return [each.errors for each in self.errors]

    @property
    def word_error_rate(self) -> float:
        """Errors per word of all references together."""
        return sum(self.wrong) / sum(each.words for each in self.errors)


@dataclass
class EvaluationReport(ComparisonReport[EvaluationResult]):
    """Word errors of all systems on the same sentences; 95 % intervals by one paired bootstrap over the sentences."""

    @cached_property
    def _words(self) -> list[int]:
        return [len(reference_words(text)) for text in self.sentences]

    @cached_property
    def _bootstrap(self) -> PairedBootstrap:
        return PairedBootstrap(self._words, seed=self.seed)

    def system(self, name: str) -> EvaluationResult | None:
        """The measured system of that name."""
        return next((system for system in self.systems if system.name == name and system.errors), None)

    def interval(self, system: EvaluationResult) -> tuple[float, float]:
        """The 95 % interval of a system's word error rate."""
        return self._bootstrap.interval(system.wrong)

    def difference(self, system: EvaluationResult, other: str) -> Estimate | None:
        """Word error rate minus that of another system; None for that system itself or without it."""
        baseline = self.system(other)
        if baseline is None or system is baseline:
            return None
        interval = self._bootstrap.difference(system.wrong, baseline.wrong)
        return system.word_error_rate - baseline.word_error_rate, *interval

    def distance(self, system: EvaluationResult, kind: str) -> Estimate | None:
        """Median over the sentences of a distance to the teacher, "mel_cepstral" or "log_spectral", in dB."""
        if not system.distances:
            return None
        values = [getattr(each, kind) for each in system.distances]
        return float(np.median(values)), *self._bootstrap.median_interval(values)

    def duration_ratio(self, system: EvaluationResult) -> float | None:
        """Median over the sentences of this system's length to the teacher's."""
        teacher = self.system(TEACHER)
        if teacher is None:
            return None
        return float(np.median(np.divide(system.seconds, teacher.seconds)))

    def measured(self, system: EvaluationResult) -> dict[str, Any]:
        return {
            "word_error_rate": system.word_error_rate,
            "interval": self.interval(system),
            "minus_teacher": self.difference(system, TEACHER),
            "minus_plain": self.difference(system, PLAIN),
            "mel_cepstral_distance": self.distance(system, "mel_cepstral"),
            "log_spectral_distance": self.distance(system, "log_spectral"),
            "ended": sum(system.ended) / len(system.ended),
            "duration_ratio": self.duration_ratio(system),
            **asdict(sum(system.errors[1:], system.errors[0])),
            "heard": system.transcripts,
            "errors": system.wrong,
            "seconds": system.seconds,
            "distances": [asdict(each) for each in system.distances],
        }

    def tables(self) -> list[Table]:
        """One of the words and one of the sound, so that each fits 80 columns."""
        count = f"{len(self.sentences)} sentences of {sum(self._words)} words"
        words = _table(f"word error rate, {count} (95 % interval)", "WER %", "minus teacher", "minus plain")
        sound = _table(
            f"beside the teacher: medians of {len(self.sentences)} sentences (95 % interval)",
            "mel-cepstral dB",
            "log-spectral dB",
            "length",
            "ended %",
        )
        sound.caption = "\n".join(self.captions())
        for system in self.systems:
            words.add_row(system.name, *(["-"] * 3 if system.missing else self._words_cells(system)))
            sound.add_row(system.name, *(["-"] * 4 if system.missing else self._sound_cells(system)))
        return [words, sound]

    def _words_cells(self, system: EvaluationResult) -> list[str]:
        differences = [self.difference(system, other) for other in (TEACHER, PLAIN)]
        return [
            f"{100 * system.word_error_rate:.1f} {_points(self.interval(system))}",
            *("" if each is None else f"{100 * each[0]:+.1f} {_points(each[1:])}" for each in differences),
        ]

    def _sound_cells(self, system: EvaluationResult) -> list[str]:
        distances = [self.distance(system, kind) for kind in ("mel_cepstral", "log_spectral")]
        ratio = self.duration_ratio(system)
        return [
            *("" if each is None else f"{each[0]:.2f} [{each[1]:.2f}, {each[2]:.2f}]" for each in distances),
            "" if ratio is None else f"{ratio:.2f}",
            f"{100 * sum(system.ended) / len(system.ended):.0f}",
        ]


def _table(title: str, *headings: str) -> Table:
    from rich.table import Column, Table

    table = Table(Column("system", overflow="fold"), title=title, caption_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _points(interval: Sequence[float]) -> str:
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
