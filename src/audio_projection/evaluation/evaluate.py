"""Intelligibility: word error rates of the projectors' speech, its naturalness and its distances to the teacher.

    audio-projection evaluate --config nano --output runs/evaluation
    audio-projection evaluate --config nano --recogniser whisper --recogniser pocketsphinx

Every system speaks the same sentences, the same recognisers transcribe all of them, and the intervals of each come from
one paired bootstrap, so that systems are compared on the same sentences. Where the teacher is among the systems, each
system's sound is compared with the teacher's too; where DNSMOS is installed, it judges the sound.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.comparison import ComparisonReport, Measurement, compare_systems
from audio_projection.evaluation.dnsmos import DNSMOS
from audio_projection.evaluation.extras import library
from audio_projection.evaluation.listening import Judge, Listeners
from audio_projection.evaluation.recognisers import PocketSphinx, Recogniser
from audio_projection.evaluation.report import EvaluationReport, EvaluationResult, Recognition
from audio_projection.evaluation.sentence_sets import read_sentences
from audio_projection.evaluation.spectral_distance import Frames, distances
from audio_projection.evaluation.spectrograms import draw
from audio_projection.evaluation.systems import SYSTEMS, TEACHER, SpeechSources, SpokenSentence, System, name_systems
from audio_projection.evaluation.word_errors import word_errors
from audio_projection.files.atomic import make_folder
from audio_projection.files.progress import shown

log = logging.getLogger(__name__)

PLOTTED = 3
"""How many sentences get a spectrogram."""


def evaluate(
    config: Config,
    sentences: str | Path | None = None,
    systems: Sequence[str | System] = SYSTEMS,
    output: str | Path | None = None,
    jobs: int = 2,
    limit: int | None = None,
    recognisers: Sequence[Recogniser] = (PocketSphinx(),),
) -> ComparisonReport[EvaluationResult]:
    """Speak, transcribe and compare; prints the tables on stdout.

    `sentences`: a file, one a line; none: the held-out ones. `systems`: of `SYSTEMS`, a shipped projector
    (`shipped/linear`), a trained projector's folder, or a `System`. With `output` the sound is kept in a folder for
    each system, beside results.json, the first sentences' spectrograms and what was heard, so that a run that was
    stopped does not listen again. `jobs`: processes that listen. `limit`: only the first so many sentences.
    `recognisers`: the first one's word error rates are the systems' own.
    Raises AudioProjectionError for unknown systems, an unusable file, a missing recogniser, or when no system can be
    measured.
    """
    texts, named = read_sentences(sentences, limit), name_systems(systems)
    library("jiwer", "eval")
    for recogniser in recognisers:
        recogniser.check()
    judges: dict[str, Judge] = {each.model_name: each.transcribe for each in recognisers}
    if DNSMOS.installed():
        judges[DNSMOS.model_name] = DNSMOS().scores
    kept = None if output is None else make_folder(Path(output)) / "judgements.jsonl"
    with Listeners(judges, jobs, kept) as listeners:
        sources = SpeechSources(config, texts)
        measurement = _Intelligibility(sources.texts, recognisers, listeners, _teacher(sources, named))
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
    """Word errors by recognisers, durations, naturalness, and where there is a teacher the distances to it."""

    result_type, report_type = EvaluationResult, EvaluationReport

    def __init__(
        self,
        texts: Sequence[str],
        recognisers: Sequence[Recogniser],
        listeners: Listeners,
        teacher: Sequence[SpokenSentence],
    ) -> None:
        self._texts, self._recognisers, self._listeners = texts, recognisers, listeners
        self._teacher = [Frames(each.samples, each.rate) for each in teacher]
        self._plotted: dict[str, list[Frames]] = {}

    def measure(self, system: System, spoken: Iterator[SpokenSentence]) -> EvaluationResult:
        result = EvaluationResult(system.name, system.meaning)
        pending: dict[str, list[Future[Any]]] = {judge: [] for judge in self._listeners.judges}
        plotted = self._plotted[system.name] = list[Frames]()
        for index, sentence in enumerate(spoken):
            for judge, asked in pending.items():
                asked.append(self._listeners.submit(judge, sentence.samples, sentence.rate))
            result.seconds.append(sentence.seconds)
            result.ended.append(sentence.ended)
            frames = Frames(sentence.samples, sentence.rate)
            if self._teacher and system.name != TEACHER:
                result.distances.append(distances(frames, self._teacher[index]))
            if index < PLOTTED:
                plotted.append(frames)
        found = {judge: _awaited(asked, f"{judge} hears {system.name}") for judge, asked in pending.items()}
        result.naturalness = found.pop(DNSMOS.model_name, [])
        result.recognitions = {each.name: self._recognition(each, found[each.model_name]) for each in self._recognisers}
        log.info("%s: word error rate %.1f %%", system.name, 100 * result.word_error_rate)
        return result

    def _recognition(self, recogniser: Recogniser, transcripts: list[str]) -> Recognition:
        pairs = zip(self._texts, transcripts, strict=True)
        return Recognition(transcripts, [word_errors(text, heard, recogniser.normalise) for text, heard in pairs])

    def plot(self, systems: Sequence[EvaluationResult], folder: Path) -> None:
        """Spectrograms of the first sentences, a panel for each system."""
        for index, text in enumerate(self._texts[:PLOTTED]):
            panels = [(system.name, self._plotted[system.name][index]) for system in systems]
            draw(panels, text, folder / f"spectrogram-{index + 1:04d}.png")


def _awaited(pending: Sequence[Future[Any]], what: str) -> list[Any]:
    """The judgements, with a bar on stderr where they are not all there yet."""
    waiting = not all(each.done() for each in pending) and sys.stderr.isatty()
    return [each.result() for each in (shown(pending, what, len(pending)) if waiting else pending)]
