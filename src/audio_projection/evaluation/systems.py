"""Who speaks in an evaluation: the teacher, its voice through the codec, and the voices of the projectors."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio
from audio_projection.files.atomic import make_folder
from audio_projection.files.locations import PROJECTOR_KINDS, find_projector
from audio_projection.text.input_text import as_spoken, is_speakable, split_sentences

if TYPE_CHECKING:
    from audio_projection.inference import Voice

CONTROLS = ("plain", "shuffled", "other")
TEACHER, PLAIN = "teacher", "plain"
ROWS = (TEACHER, "codec", PLAIN, *PROJECTOR_KINDS, "shuffled", "other")
"""The rows of a whole evaluation, in the order of the table."""
MEANINGS = {
    TEACHER: "flite's voice rms, the teacher of the nano voice",
    "codec": "the teacher through the codec: encoded and decoded",
    PLAIN: "the TTS fed with its own text rows",
    "linear": "linear projector: the states alone",
    "residual": "residual projector: own text rows and states",
    "shuffled": "states permuted over the tokens of the sentence",
    "other": "states of another sentence",
}


@dataclass(frozen=True)
class SpokenSentence:
    """One sentence as a row speaks it."""

    samples: np.ndarray
    rate: int
    ended: bool = True
    """Whether the speech ended by itself, not by the guard against a missed end."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


class Speakers:
    """All who can speak; each is loaded when it is asked for, and once."""

    def __init__(self, config: Config, texts: Sequence[str]) -> None:
        self.config = config
        self.texts = [as_spoken(text, config.tts.normalise) for text in texts]
        self._voices: dict[str, Voice] = {}
        self._teacher: list[SpokenSentence] = []

    def teacher(self) -> list[SpokenSentence]:
        """All sentences by flite, spoken once; AudioProjectionError when flite is not installed."""
        if shutil.which("flite") is None:
            raise AudioProjectionError("flite is not installed (Debian: apt-get install flite)")
        self._teacher = self._teacher or [_flite(text) for text in self.texts]
        return self._teacher

    def through_codec(self) -> Iterator[SpokenSentence]:
        """The teacher's sentences encoded and decoded by the codec of the TTS."""
        from audio_projection.models import load_tts

        teacher, codec = self.teacher(), load_tts(self.config).codec
        for utterance in teacher:
            samples = codec.decode(codec.encode(utterance.samples, utterance.rate))
            yield SpokenSentence(samples.cpu().numpy(), codec.sample_rate)

    def voice(self, projector: str) -> Voice:
        """The voice of a projector, loaded once: a kind as `speak` finds it, or a folder."""
        from audio_projection.inference import Voice

        if projector not in self._voices:
            if projector in PROJECTOR_KINDS:
                kind = self.config.projector.model_copy(update={"kind": projector})
                settings, choice = self.config.model_copy(update={"projector": kind}), None
            else:
                settings, choice = self.config, projector
            self._voices[projector] = Voice.from_config(settings, projector=str(find_projector(settings, choice)))
        return self._voices[projector]

    def spoken(self, projector: str, control: str | None) -> Iterator[SpokenSentence]:
        """All sentences by a projector's voice."""
        voice = self.voice(projector)
        for number, text in enumerate(self.texts):
            yield speak_line(voice, text, self.config.seed + number, control)


@dataclass(frozen=True)
class System:
    """One who speaks: a row of `ROWS`, or a projector's folder under a short name that is none of them."""

    name: str
    projector: str | None = None  # a kind or a folder; none: the configuration's kind

    @property
    def meaning(self) -> str:
        return MEANINGS.get(self.name, f"projector {self.projector}")

    def utterances(self, stage: Speakers) -> Iterator[SpokenSentence]:
        """All sentences, with a bar on stderr while they are spoken."""
        from rich.console import Console
        from rich.progress import track

        console, total = Console(stderr=True), len(stage.texts)
        hidden = not console.is_terminal
        yield from track(self._utterances(stage), self.name, total, console=console, transient=True, disable=hidden)

    def notes(self, stage: Speakers) -> dict[str, Any]:
        """What else is to be said about the row in results.json."""
        if self.name in (TEACHER, "codec"):
            return {}
        voice = stage.voice(self._projector(stage))
        notes: dict[str, Any] = {"projector": asdict(voice.projector.info)}
        if self.name not in CONTROLS and voice.projector.info.kind == "residual":
            notes["share_from_states"] = share_from_states(voice, stage.texts)
        return notes

    def _utterances(self, stage: Speakers) -> Iterator[SpokenSentence]:
        if self.name == TEACHER:
            return iter(stage.teacher())
        if self.name == "codec":
            return stage.through_codec()
        return stage.spoken(self._projector(stage), self.name if self.name in CONTROLS else None)

    def _projector(self, stage: Speakers) -> str:
        return self.projector or stage.config.projector.kind


def name_systems(rows: Sequence[str]) -> list[System]:
    """Rows by name or by a projector's folder; folders are named by the ends of their paths, so that they differ.

    Raises AudioProjectionError for what is neither, and for a row that is given twice.
    """
    for row in rows:
        if row not in ROWS and not (Path(row) / "projector.json").is_file():
            raise AudioProjectionError(
                f"unknown row {row!r}: choose of {', '.join(ROWS)}, or give a projector's folder"
            )
    paths = {row: Path(row).resolve() for row in rows if row not in ROWS}
    if len(set(rows)) < len(rows) or len(set(paths.values())) < len(paths):
        raise AudioProjectionError(f"a row is given twice: {', '.join(rows)}; give each once")
    short = dict(zip(paths, _short_names(list(paths.values())), strict=True))
    return [System(short.get(row, row), row if row in PROJECTOR_KINDS or row in paths else None) for row in rows]


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The ends of the paths, as many parts of all as tell them apart from each other and from `ROWS`."""
    for depth in range(1, max((len(folder.parts) for folder in folders), default=0)):
        names = ["-".join(folder.parts[1:][-depth:]) for folder in folders]
        if len(set(names) - set(ROWS)) == len(folders):
            return names
    return [f"projector-{number}" for number in range(1, len(folders) + 1)]


def notes_in_words(notes: dict[str, Any]) -> str:
    """Layer and training of a row's projector, and what a residual one takes from the states; may be empty."""
    if "projector" not in notes:
        return ""
    layers, steps, made = (notes["projector"][key] for key in ("layers", "steps", "measurements"))
    trained = f"{steps} steps" if steps else "fit only" if "fit" in made else "untrained"
    words = [f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}", trained]
    if "share_from_states" in notes:
        words.append(f"{100 * notes['share_from_states']:.1f} % of the row from the states")
    return "; ".join(words)


def share_from_states(voice: Voice, texts: Sequence[str]) -> float:
    """Mean over all tokens of |g*U(V norm(h))| / |row| of a residual projector."""
    import torch

    from audio_projection.alignment.token_states import stream_token_states
    from audio_projection.projector import ResidualProjector

    projector = voice.projector
    assert isinstance(projector, ResidualProjector)
    with torch.no_grad():
        shares = [
            projector.share_from_states(features.states, features.text_embeddings)
            for _, features in stream_token_states(voice.llm, voice.tts, texts, batch=16)
        ]
    return float(torch.cat(shares).mean())


def keep(utterance: SpokenSentence, folder: Path, row: str, index: int) -> None:
    """Write the sound of a row's sentence into the row's folder."""
    audio.write(make_folder(folder / row) / f"{index + 1:04d}.wav", utterance.samples, utterance.rate)


def speak_line(voice: Voice, text: str, seed: int, control: str | None = None) -> SpokenSentence:
    """One line, sentence by sentence as `speak` does it, so that each sentence's end can be judged."""
    from audio_projection.tts.generate import LengthGuard

    guard, parts, ended = LengthGuard(voice.tts, None), [], True
    for piece in split_sentences(text, voice.defaults.longest):
        if not is_speakable(piece):
            continue
        parts.append(voice.speak(piece, seed=seed, control=control).samples)
        limit = guard.limit(len(voice.tts.tokenize(piece)[0])) * voice.tts.samples_per_frame
        ended = ended and len(parts[-1]) < limit
    return SpokenSentence(np.concatenate(parts), voice.sample_rate, ended)


def _flite(text: str) -> SpokenSentence:
    """flite's voice `rms`; the silence at the end cut to 120 ms, as in the training corpus."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flite.wav"
        subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", str(path)], check=True, capture_output=True)
        samples = audio.read(path, 16_000)
    loud = np.flatnonzero(np.abs(samples) > 200 / 32768)
    return SpokenSentence(samples[: loud[-1] + 1_920] if len(loud) else samples, 16_000)
