"""Intelligibility: word error rates of the projectors' speech, and its spectral distances to the teacher.

    audio-projection evaluate --config nano --output runs/evaluation

Every system speaks the same sentences, one recogniser transcribes all of them, and the intervals come from one paired
bootstrap, so that systems are compared on the same sentences. Where the teacher is among the systems, each system's
sound is compared with the teacher's too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.asr import RecognizerPool, word_errors
from audio_projection.evaluation.comparison import ComparisonReport, Measurement, compare_systems
from audio_projection.evaluation.report import EvaluationReport, EvaluationResult
from audio_projection.evaluation.sentence_sets import read_sentences
from audio_projection.evaluation.spectral_distance import Frames, distances
from audio_projection.evaluation.spectrograms import draw
from audio_projection.evaluation.systems import SYSTEMS, TEACHER, SpeechSources, SpokenSentence, System, name_systems

log = logging.getLogger(__name__)

PLOTTED = 3
"""How many sentences get a spectrogram."""


def evaluate(
    config: Config,
    sentences: str | Path | None = None,
    systems: Sequence[str] = SYSTEMS,
    output: str | Path | None = None,
    jobs: int = 2,
    limit: int | None = None,
) -> ComparisonReport[EvaluationResult]:
    """Speak, transcribe and compare; prints the tables on stdout.

    `sentences`: a file, one a line; none: the held-out ones. `systems`: of `SYSTEMS`, a shipped projector
    (`shipped/linear`) or a trained projector's folder. With `output` the sound is kept in a folder for each system,
    beside results.json and the first sentences' spectrograms. `jobs`: processes that recognise speech. `limit`: only
    the first so many sentences.
    Raises AudioProjectionError for unknown systems, an unusable file, or when no system can be measured.
    """
    texts, named = read_sentences(sentences, limit), name_systems(systems)
    with RecognizerPool(jobs) as pool:
        sources = SpeechSources(config, texts)
        measurement = _Intelligibility(sources.texts, pool, _teacher(sources, named))
        return compare_systems(sources, named, measurement, output)


def _teacher(sources: SpeechSources, systems: Sequence[System]) -> list[SpokenSentence]:
    """The teacher's sentences to compare with; none where it is no system, or cannot speak: its own line says why."""
    if all(system.name != TEACHER for system in systems):
        return []
    try:
        return sources.teacher()
    except AudioProjectionError:
        return []


class _Intelligibility(Measurement[EvaluationResult]):
    """Word errors by a recogniser, durations, and where there is a teacher the spectral distances to it."""

    result_type, report_type = EvaluationResult, EvaluationReport

    def __init__(self, texts: Sequence[str], pool: RecognizerPool, teacher: Sequence[SpokenSentence]) -> None:
        self._texts, self._pool = texts, pool
        self._teacher = [Frames(each.samples, each.rate) for each in teacher]
        self._plotted: dict[str, list[Frames]] = {}

    def measure(self, system: System, spoken: Iterator[SpokenSentence]) -> EvaluationResult:
        result, pending = EvaluationResult(system.name, system.meaning), list[Future[str]]()
        plotted = self._plotted[system.name] = list[Frames]()
        for index, sentence in enumerate(spoken):
            pending.append(self._pool.submit(sentence.samples, sentence.rate))
            result.seconds.append(sentence.seconds)
            result.ended.append(sentence.ended)
            frames = Frames(sentence.samples, sentence.rate)
            if self._teacher and system.name != TEACHER:
                result.distances.append(distances(frames, self._teacher[index]))
            if index < PLOTTED:
                plotted.append(frames)
        result.transcripts = [each.result() for each in pending]
        result.errors = [word_errors(text, each) for text, each in zip(self._texts, result.transcripts, strict=True)]
        log.info("%s: word error rate %.1f %%", system.name, 100 * result.word_error_rate)
        return result

    def plot(self, systems: Sequence[EvaluationResult], folder: Path) -> None:
        """Spectrograms of the first sentences, a panel for each system."""
        for index, text in enumerate(self._texts[:PLOTTED]):
            panels = [(system.name, self._plotted[system.name][index]) for system in systems]
            draw(panels, text, folder / f"spectrogram-{index + 1:04d}.png")
