"""How well the speech is understood: word error rates of the projected states beside their controls.

    audio-projection evaluate --config configs/nano.yaml --output runs/evaluation

Every row speaks the same sentences, one recogniser hears all of them, and the intervals come from one paired
bootstrap, so that differences between rows are compared on the same sentences.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_projection import audio
from audio_projection.checkpoint import write_json
from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.locations import PACKAGE, find_projector
from audio_projection.recognition import PairedBootstrap, RecognizerPool, WordErrors, word_errors
from audio_projection.text import check_text, is_speakable, split_sentences

if TYPE_CHECKING:
    from rich.table import Table

    from audio_projection.inference import Voice

log = logging.getLogger(__name__)

KINDS = ("linear", "residual")
CONTROLS = ("plain", "shuffled", "other")
ROWS = ("teacher", "codec", "plain", *KINDS, "shuffled", "other")
"""The rows of a whole evaluation, in the order of the table."""
MEANINGS = {
    "teacher": "flite's voice rms, the teacher of the nano voice",
    "codec": "the teacher through the codec: encoded and decoded",
    "plain": "the TTS fed with its own text rows",
    "linear": "linear projector: the states alone",
    "residual": "residual projector: own text rows and states",
    "shuffled": "states permuted over the tokens of the sentence",
    "other": "states of another sentence",
}
BASELINE = "plain"

_HELD_OUT = (PACKAGE / "data" / "heldout.txt", PACKAGE.parents[1] / "benchmarks" / "heldout.txt")


@dataclass(frozen=True)
class Utterance:
    """One sentence as a row speaks it."""

    samples: np.ndarray
    rate: int
    ended: bool = True
    """Whether the speech ended by itself, not by the guard against a missed end."""


@dataclass
class Row:
    """One line of the table: what was heard, sentence by sentence."""

    name: str
    meaning: str
    heard: list[str] = field(default_factory=list)
    errors: list[WordErrors] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    missing: str = ""
    """Why nothing was measured."""

    @property
    def wrong(self) -> list[int]:
        return [each.errors for each in self.errors]

    @property
    def word_error_rate(self) -> float:
        return sum(self.wrong) / sum(each.words for each in self.errors)


@dataclass
class Report:
    """All rows on the same sentences; `intervals` and `differences` are 95 % ones of the word error rate."""

    sentences: list[str]
    rows: list[Row]
    seed: int

    @cached_property
    def _bootstrap(self) -> PairedBootstrap:
        return PairedBootstrap([word_errors(text, "").words for text in self.sentences], seed=self.seed)

    def row(self, name: str) -> Row | None:
        """The measured row of that name."""
        return next((row for row in self.rows if row.name == name and row.errors), None)

    def interval(self, row: Row) -> tuple[float, float]:
        return self._bootstrap.interval(row.wrong)

    def difference(self, row: Row) -> tuple[float, float, float] | None:
        """Word error rate minus that of `plain`, and its interval; None for `plain` itself or without it."""
        plain = self.row(BASELINE)
        if plain is None or row is plain:
            return None
        return row.word_error_rate - plain.word_error_rate, *self._bootstrap.difference(row.wrong, plain.wrong)

    def duration_ratio(self, row: Row) -> float | None:
        """Median over the sentences of this row's length to the teacher's."""
        teacher = self.row("teacher")
        if teacher is None:
            return None
        return float(np.median(np.divide(row.seconds, teacher.seconds)))

    def to_json(self) -> dict[str, Any]:
        return {"seed": self.seed, "sentences": self.sentences, "rows": [self._row_json(row) for row in self.rows]}

    def _row_json(self, row: Row) -> dict[str, Any]:
        if row.missing:
            return {"name": row.name, "meaning": row.meaning, "missing": row.missing}
        return {
            "name": row.name,
            "meaning": row.meaning,
            "word_error_rate": row.word_error_rate,
            "interval": self.interval(row),
            "minus_plain": self.difference(row),
            "ended": sum(row.ended) / len(row.ended),
            "duration_ratio": self.duration_ratio(row),
            **asdict(sum(row.errors[1:], row.errors[0])),
            "heard": row.heard,
            "seconds": row.seconds,
            **row.notes,
        }

    def table(self) -> Table:
        """For people, by rich."""
        from rich.table import Column, Table

        words = sum(word_errors(text, "").words for text in self.sentences)
        table = Table(
            Column("row", no_wrap=True),
            title=f"word error rate, {len(self.sentences)} sentences of {words} words (95 % interval)",
            caption="\n".join(f"{row.name}: {_remark(row)}" for row in self.rows),
            caption_justify="left",
        )
        for heading in ("WER %", "minus plain", "ended %", "length"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(row.name, *(["-"] * 4 if row.missing else self._cells(row)))
        return table

    def _cells(self, row: Row) -> list[str]:
        difference, ratio = self.difference(row), self.duration_ratio(row)
        return [
            f"{100 * row.word_error_rate:.1f} {_points(self.interval(row))}",
            "" if difference is None else f"{100 * difference[0]:+.1f} {_points(difference[1:])}",
            f"{100 * sum(row.ended) / len(row.ended):.0f}",
            "" if ratio is None else f"{ratio:.2f}",
        ]


def _points(interval: Sequence[float]) -> str:
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _remark(row: Row) -> str:
    share = row.notes.get("share_from_states")
    return row.missing or row.meaning + ("" if share is None else f"; {100 * share:.1f} % of the row from the states")


def run(
    config: Config,
    sentences: str | Path | None = None,
    rows: Sequence[str] = ROWS,
    output: str | Path | None = None,
    jobs: int = 2,
) -> Report:
    """Speak, hear and compare; prints the table on stdout.

    `sentences`: a file, one a line; none: the held-out ones. `rows`: of `ROWS`, or folders of trained projectors.
    With `output` the sound is kept in a folder a row, beside results.json. `jobs`: processes that recognise.
    Raises AudioProjectionError for unknown rows, an unusable file, or when no row can be measured.
    """
    from rich.console import Console

    texts = read_sentences(sentences)
    named_rows = [_named_row(name) for name in rows]
    report, stage = Report(texts, [], config.seed), Stage(config, texts)
    folder = None if output is None else _made(Path(output))
    with RecognizerPool(jobs) as pool:
        for named in named_rows:
            report.rows.append(_measure(named, stage, pool, folder))
    if not any(row.errors for row in report.rows):
        raise AudioProjectionError(f"no row could be measured: {'; '.join(row.missing for row in report.rows)}")
    Console(markup=False, highlight=False).print(report.table())
    if folder is not None:
        write_json(folder / "results.json", report.to_json())
    return report


def read_sentences(path: str | Path | None = None) -> list[str]:
    """The lines of a file, or the held-out sentences; each must have English words.

    Raises AudioProjectionError for a file that cannot be read or a line that cannot be compared.
    """
    source = Path(path) if path is not None else next((each for each in _HELD_OUT if each.is_file()), _HELD_OUT[0])
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise AudioProjectionError(f"cannot read the sentences of {source}: {reason}; give --sentences FILE") from None
    texts = [check_text(line) for line in lines if line.strip()]
    if not texts:
        raise AudioProjectionError(f"{source} has no sentences; give a text file with one a line")
    for text in texts:
        word_errors(text, "")
    return texts


class Stage:
    """Who can speak: the teacher, its voice through the codec, and the voices of the projectors."""

    def __init__(self, config: Config, texts: Sequence[str]) -> None:
        self.config = config
        self.texts = texts
        self._voices: dict[str, Voice] = {}
        self._teacher: list[Utterance] = []

    def teacher(self) -> list[Utterance]:
        """All sentences by flite, spoken once; AudioProjectionError when flite is not installed."""
        if shutil.which("flite") is None:
            raise AudioProjectionError("flite is not installed")
        self._teacher = self._teacher or [_flite(text) for text in self.texts]
        return self._teacher

    def through_codec(self) -> Iterator[Utterance]:
        """The teacher's sentences encoded and decoded by the codec of the TTS."""
        from audio_projection.parts import load_tts

        teacher, codec = self.teacher(), load_tts(self.config).codec
        for utterance in teacher:
            samples = codec.decode(codec.encode(utterance.samples, utterance.rate))
            yield Utterance(samples.cpu().numpy(), codec.sample_rate)

    def voice(self, projector: str) -> Voice:
        """The voice of a projector, loaded once: a kind as `speak` finds it, or a folder."""
        from audio_projection.inference import Voice

        if projector not in self._voices:
            if projector in KINDS:
                kind = self.config.projector.model_copy(update={"kind": projector})
                settings, choice = self.config.model_copy(update={"projector": kind}), None
            else:
                settings, choice = self.config, projector
            self._voices[projector] = Voice.from_config(settings, projector=str(find_projector(settings, choice)))
        return self._voices[projector]

    def spoken(self, projector: str, control: str | None) -> Iterator[Utterance]:
        """All sentences by a projector's voice."""
        voice = self.voice(projector)
        for number, text in enumerate(self.texts):
            yield _spoken(voice, text, self.config.seed + number, control)


@dataclass(frozen=True)
class _NamedRow:
    name: str
    projector: str | None = None  # none: that of the configuration

    def utterances(self, stage: Stage) -> Iterator[Utterance]:
        if self.name == "teacher":
            return iter(stage.teacher())
        if self.name == "codec":
            return stage.through_codec()
        return stage.spoken(self._projector(stage), self.name if self.name in CONTROLS else None)

    def notes(self, stage: Stage) -> dict[str, Any]:
        """What else is to be said about the row in results.json."""
        if self.name in ("teacher", "codec"):
            return {}
        voice = stage.voice(self._projector(stage))
        notes: dict[str, Any] = {"projector": asdict(voice.projector.info)}
        if self.name not in CONTROLS and voice.projector.info.kind == "residual":
            notes["share_from_states"] = share_from_states(voice, stage.texts)
        return notes

    def _projector(self, stage: Stage) -> str:
        return self.projector or stage.config.projector.kind


def _named_row(name: str) -> _NamedRow:
    if name in KINDS:
        return _NamedRow(name, name)
    if name in ROWS:
        return _NamedRow(name)
    if (Path(name) / "projector.json").is_file():
        return _NamedRow(Path(name).name, name)
    raise AudioProjectionError(f"unknown row {name!r}: choose of {', '.join(ROWS)}, or give a projector's folder")


def _measure(named: _NamedRow, stage: Stage, pool: RecognizerPool, folder: Path | None) -> Row:
    """Speak and hear one row; what cannot be had becomes a row that says why."""
    row = Row(named.name, MEANINGS.get(named.name, f"projector {named.projector}"))
    hearing: list[Future[str]] = []
    try:
        for number, utterance in enumerate(_with_progress(named.name, named.utterances(stage), len(stage.texts)), 1):
            hearing.append(pool.submit(utterance.samples, utterance.rate))
            row.seconds.append(len(utterance.samples) / utterance.rate)
            row.ended.append(utterance.ended)
            if folder is not None:
                audio.write(_made(folder / row.name) / f"{number:04d}.wav", utterance.samples, utterance.rate)
        row.notes = named.notes(stage)
    except AudioProjectionError as error:
        return Row(row.name, row.meaning, missing=str(error))
    row.heard = [each.result() for each in hearing]
    row.errors = [word_errors(text, heard) for text, heard in zip(stage.texts, row.heard, strict=True)]
    log.info("%s: word error rate %.1f %%", row.name, 100 * row.word_error_rate)
    return row


def share_from_states(voice: Voice, texts: Sequence[str]) -> float:
    """Mean over all tokens of |g*U(V norm(h))| / |row| of a residual projector."""
    import torch

    from audio_projection.features import stream_features
    from audio_projection.projector import ResidualProjector

    projector = voice.projector
    assert isinstance(projector, ResidualProjector)
    with torch.no_grad():
        shares = [
            projector.share_from_states(features.states, features.rows)
            for _, features in stream_features(voice.llm, voice.tts, texts, batch=16)
        ]
    return float(torch.cat(shares).mean())


def _spoken(voice: Voice, text: str, seed: int, control: str | None) -> Utterance:
    """One line, sentence by sentence as `speak` does it, so that each sentence's end can be judged."""
    from audio_projection.tts.generate import LengthGuard

    guard, parts, ended = LengthGuard(voice.tts, None), [], True
    for piece in split_sentences(text, voice.defaults.longest):
        if not is_speakable(piece):
            continue
        parts.append(voice.speak(piece, seed=seed, control=control).samples)
        limit = guard.limit(len(voice.tts.tokenize(piece)[0])) * voice.tts.samples_per_frame
        ended = ended and len(parts[-1]) < limit
    return Utterance(np.concatenate(parts), voice.sample_rate, ended)


def _flite(text: str) -> Utterance:
    """flite's voice `rms`; the silence at the end cut to 120 ms, as in the training corpus."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flite.wav"
        subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", str(path)], check=True, capture_output=True)
        samples = audio.read(path, 16_000)
    loud = np.flatnonzero(np.abs(samples) > 200 / 32768)
    return Utterance(samples[: loud[-1] + 1_920] if len(loud) else samples, 16_000)


def _made(folder: Path) -> Path:
    """The folder, there; AudioProjectionError when it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioProjectionError(f"cannot make the folder {folder}: {error.strerror}; choose another") from None
    return folder


def _with_progress(name: str, utterances: Iterator[Utterance], total: int) -> Iterator[Utterance]:
    """The utterances, with a bar on stderr while they are spoken."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(utterances, name, total, console=console, transient=True, disable=not console.is_terminal)
