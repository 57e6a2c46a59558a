"""Results of `evaluate`: word error rates, spectral distances and naturalness, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_projection.evaluation.bootstrap import PairedBootstrap
from audio_projection.evaluation.comparison import ComparisonReport, SystemResult
from audio_projection.evaluation.spectral_distance import Distances
from audio_projection.evaluation.systems import PLAIN, TEACHER
from audio_projection.evaluation.word_errors import WordErrors

if TYPE_CHECKING:
    from rich.table import Table

DNSMOS_SCALES = ("P808", "OVRL")
Estimate = tuple[float, float, float]
"""A number and its 95 % interval."""


@dataclass
class Recognition:
    """What one recogniser heard of a system's sentences."""

    transcripts: list[str]
    errors: list[WordErrors]
    """Of each sentence."""

    @property
    def wrong(self) -> list[int]:
        """Word errors of each sentence."""
        return [each.errors for each in self.errors]

    @property
    def word_error_rate(self) -> float:
        """Errors per word of all references together."""
        return sum(self.wrong) / sum(self.words)

    @property
    def words(self) -> list[int]:
        """Words of each reference, as this recogniser's normaliser counts them."""
        return [each.words for each in self.errors]


@dataclass
class EvaluationResult(SystemResult):
    """Word errors, durations, spectral distances and naturalness of one system, sentence by sentence."""

    recognitions: dict[str, Recognition] = field(default_factory=dict)
    """By each recogniser; the first one's are the system's own."""
    seconds: list[float] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    distances: list[Distances] = field(default_factory=list)
    """To the teacher; empty without it."""
    naturalness: list[dict[str, float]] = field(default_factory=list)
    """By DNSMOS; empty where it is not installed."""

    def recognition(self, recogniser: str | None = None) -> Recognition:
        """That of a recogniser; by default that of the first one."""
        return self.recognitions[recogniser or next(iter(self.recognitions))]

    @property
    def word_error_rate(self) -> float:
        """By the first recogniser."""
        return self.recognition().word_error_rate


@dataclass
class EvaluationReport(ComparisonReport[EvaluationResult]):
    """Word errors of all systems on the same sentences; 95 % intervals by paired bootstraps over the sentences."""

    @property
    def recognisers(self) -> list[str]:
        """Their names, the first one's first."""
        return next((list(system.recognitions) for system in self.systems if system.recognitions), [])

    def words(self, recogniser: str | None = None) -> list[int]:
        """Words of each sentence, as the recogniser's normaliser counts them."""
        return next(system.recognition(recogniser).words for system in self.systems if system.recognitions)

    def _bootstrap(self, recogniser: str | None = None) -> PairedBootstrap:
        return paired_bootstrap(tuple(self.words(recogniser)), self.seed)

    def system(self, name: str) -> EvaluationResult | None:
        """The measured system of that name."""
        return next((system for system in self.systems if system.name == name and system.recognitions), None)

    def interval(self, system: EvaluationResult, recogniser: str | None = None) -> tuple[float, float]:
        """The 95 % interval of a system's word error rate."""
        return self._bootstrap(recogniser).interval(system.recognition(recogniser).wrong)

    def difference(self, system: EvaluationResult, other: str, recogniser: str | None = None) -> Estimate | None:
        """Word error rate minus that of another system; None for that system itself or without it."""
        baseline = self.system(other)
        if baseline is None or system is baseline:
            return None
        own, others = system.recognition(recogniser), baseline.recognition(recogniser)
        interval = self._bootstrap(recogniser).difference(own.wrong, others.wrong)
        return own.word_error_rate - others.word_error_rate, *interval

    def distance(self, system: EvaluationResult, kind: str) -> Estimate | None:
        """Median over the sentences of a distance to the teacher, "mel_cepstral" or "log_spectral", in dB."""
        if not system.distances:
            return None
        values = [getattr(each, kind) for each in system.distances]
        return float(np.median(values)), *self._bootstrap().median_interval(values)

    def duration_ratio(self, system: EvaluationResult) -> float | None:
        """Median over the sentences of this system's length to the teacher's."""
        teacher = self.system(TEACHER)
        if teacher is None:
            return None
        return float(np.median(np.divide(system.seconds, teacher.seconds)))

    def naturalness(self, system: EvaluationResult, scale: str) -> Estimate | None:
        """Mean over the sentences of DNSMOS's "P808" or "OVRL", from 1 to 5."""
        if not system.naturalness:
            return None
        values = [each[scale] for each in system.naturalness]
        return float(np.mean(values)), *self._bootstrap().mean_interval(values)

    def to_json(self) -> dict[str, Any]:
        return {"recognisers": self.recognisers, **super().to_json()}

    def measured(self, system: EvaluationResult) -> dict[str, Any]:
        first, *others = self.recognisers
        return {
            **self._heard(system, first),
            "other_recognisers": {name: self._heard(system, name) for name in others},
            "mel_cepstral_distance": self.distance(system, "mel_cepstral"),
            "log_spectral_distance": self.distance(system, "log_spectral"),
            "dnsmos": {scale: self.naturalness(system, scale) for scale in DNSMOS_SCALES},
            "ended": sum(system.ended) / len(system.ended),
            "duration_ratio": self.duration_ratio(system),
            "seconds": system.seconds,
            "distances": [asdict(each) for each in system.distances],
            "dnsmos_scores": system.naturalness,
        }

    def _heard(self, system: EvaluationResult, recogniser: str) -> dict[str, Any]:
        heard = system.recognition(recogniser)
        return {
            "word_error_rate": heard.word_error_rate,
            "interval": self.interval(system, recogniser),
            "minus_teacher": self.difference(system, TEACHER, recogniser),
            "minus_plain": self.difference(system, PLAIN, recogniser),
            **asdict(sum(heard.errors[1:], heard.errors[0])),
            "heard": heard.transcripts,
            "errors": heard.wrong,
        }

    def tables(self) -> list[Table]:
        """The words by each recogniser, then the sound, so that each fits 80 columns."""
        return [*(self._words_table(name) for name in self.recognisers), *self._sound_tables()]

    def _words_table(self, recogniser: str) -> Table:
        count = f"{len(self.sentences)} sentences of {sum(self.words(recogniser))} words by {recogniser}"
        table = _table(f"word error rate, {count} (95 % interval)", "WER %", "minus teacher", "minus plain")
        for system in self.systems:
            table.add_row(system.name, *(["-"] * 3 if system.missing else self._words_cells(system, recogniser)))
        return table

    def _sound_tables(self) -> list[Table]:
        title = f"medians of {len(self.sentences)} sentences (95 % interval)"
        headings = ("mel-cepstral dB", "log-spectral dB", "length", "ended %")
        tables, cells = [_table(f"beside the teacher: {title}", *headings)], [self._sound_cells]
        if any(system.naturalness for system in self.systems):
            means = f"means of {len(self.sentences)} sentences (95 % interval)"
            tables.append(_table(f"DNSMOS, from 1 (bad) to 5: {means}", *DNSMOS_SCALES))
            cells.append(self._naturalness_cells)
        for table, row in zip(tables, cells, strict=True):
            for system in self.systems:
                table.add_row(system.name, *(["-"] * (len(table.columns) - 1) if system.missing else row(system)))
        tables[-1].caption = "\n".join(self.captions())
        return tables

    def _words_cells(self, system: EvaluationResult, recogniser: str) -> list[str]:
        differences = [self.difference(system, other, recogniser) for other in (TEACHER, PLAIN)]
        rate = system.recognition(recogniser).word_error_rate
        return [
            f"{100 * rate:.1f} {_points(self.interval(system, recogniser))}",
            *("" if each is None else f"{100 * each[0]:+.1f} {_points(each[1:])}" for each in differences),
        ]

    def _sound_cells(self, system: EvaluationResult) -> list[str]:
        ratio = self.duration_ratio(system)
        return [
            *(_estimate(self.distance(system, kind)) for kind in ("mel_cepstral", "log_spectral")),
            "" if ratio is None else f"{ratio:.2f}",
            f"{100 * sum(system.ended) / len(system.ended):.0f}",
        ]

    def _naturalness_cells(self, system: EvaluationResult) -> list[str]:
        return [_estimate(self.naturalness(system, scale)) for scale in DNSMOS_SCALES]


@lru_cache(maxsize=8)
def paired_bootstrap(words: tuple[int, ...], seed: int) -> PairedBootstrap:
    """The draws of sentences for these word counts, the same for every system."""
    return PairedBootstrap(words, seed=seed)


def _estimate(value: Estimate | None) -> str:
    return "" if value is None else f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"


def _table(title: str, *headings: str) -> Table:
    from rich.table import Column, Table

    table = Table(Column("system", overflow="fold"), title=title, caption_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _points(interval: Sequence[float]) -> str:
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
