"""How well the speech is understood: word error rates of the projected states beside their controls.

    audio-projection evaluate --config configs/nano.yaml --output runs/evaluation

Every row speaks the same sentences, one recogniser hears all of them, and the intervals come from one paired
bootstrap, so that differences between rows are compared on the same sentences. Where the teacher is among the rows,
each row's sound is compared with the teacher's too.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.asr import RecognizerPool, word_errors
from audio_projection.evaluation.report import EvaluationReport, SystemResult
from audio_projection.evaluation.sentence_sets import read_sentences
from audio_projection.evaluation.spectral_distance import Frames, distances
from audio_projection.evaluation.spectrograms import draw
from audio_projection.evaluation.systems import ROWS, TEACHER, Speakers, System, keep, name_systems
from audio_projection.files.atomic import make_folder, write_json

log = logging.getLogger(__name__)

DRAWN = 3
"""How many sentences have their spectrograms drawn."""


def run(
    config: Config,
    sentences: str | Path | None = None,
    rows: Sequence[str] = ROWS,
    output: str | Path | None = None,
    jobs: int = 2,
    limit: int | None = None,
) -> EvaluationReport:
    """Speak, hear and compare; prints the tables on stdout.

    `sentences`: a file, one a line; none: the held-out ones. `rows`: of `ROWS`, or folders of trained projectors.
    With `output` the sound is kept in a folder a row, beside results.json and the first sentences' spectrograms.
    `jobs`: processes that recognise. `limit`: only so many sentences.
    Raises AudioProjectionError for unknown rows, an unusable file, or when no row can be measured.
    """
    from rich.console import Console

    texts, named = read_sentences(sentences, limit), name_systems(rows)
    folder = None if output is None else make_folder(Path(output))
    with RecognizerPool(jobs) as pool:
        evaluation = _Evaluation(Speakers(config, texts), pool, folder)
        if any(row.name == TEACHER for row in named):
            evaluation.compare_with_teacher()
        report = EvaluationReport(texts, [evaluation.measure(row) for row in named], config.seed)
    if not any(row.errors for row in report.rows):
        raise AudioProjectionError(f"no row could be measured: {'; '.join(row.missing for row in report.rows)}")
    console = Console(markup=False, highlight=False)
    for table in report.tables():
        console.print(table)
    if folder is not None:
        write_json(folder / "results.json", report.to_json())
        evaluation.draw(folder)
    return report


class _Evaluation:
    """Speaks and hears row after row, and keeps of the sound what is to be drawn."""

    def __init__(self, stage: Speakers, pool: RecognizerPool, folder: Path | None) -> None:
        self._stage, self._pool, self._folder = stage, pool, folder
        self._teacher: list[Frames] = []
        self._drawn: list[list[tuple[str, Frames]]] = [[] for _ in stage.texts[:DRAWN]]

    def compare_with_teacher(self) -> None:
        """From now on the sound is compared with the teacher's, if it can be had."""
        with contextlib.suppress(AudioProjectionError):
            self._teacher = [Frames(each.samples, each.rate) for each in self._stage.teacher()]

    def measure(self, named: System) -> SystemResult:
        """What cannot be had becomes a row that says why."""
        row, hearing = SystemResult(named.name, named.meaning), list[Future[str]]()
        drawn: list[tuple[str, Frames]] = []
        try:
            for index, utterance in enumerate(named.utterances(self._stage)):
                hearing.append(self._pool.submit(utterance.samples, utterance.rate))
                row.seconds.append(utterance.seconds)
                row.ended.append(utterance.ended)
                frames = Frames(utterance.samples, utterance.rate)
                if self._teacher and row.name != TEACHER:
                    row.distances.append(distances(frames, self._teacher[index]))
                if index < DRAWN:
                    drawn.append((row.name, frames))
                if self._folder is not None:
                    keep(utterance, self._folder, row.name, index)
            row.notes = named.notes(self._stage)
        except AudioProjectionError as error:
            return SystemResult(row.name, row.meaning, missing=str(error))
        for panels, panel in zip(self._drawn, drawn, strict=True):
            panels.append(panel)
        row.heard = [each.result() for each in hearing]
        row.errors = [word_errors(text, heard) for text, heard in zip(self._stage.texts, row.heard, strict=True)]
        log.info("%s: word error rate %.1f %%", row.name, 100 * row.word_error_rate)
        return row

    def draw(self, folder: Path) -> None:
        """Spectrograms of the first sentences, a panel a row."""
        for number, (text, panels) in enumerate(zip(self._stage.texts, self._drawn, strict=False), 1):
            draw(panels, text, folder / f"spectrogram-{number:04d}.png")
