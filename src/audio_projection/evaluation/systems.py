"""The systems of an evaluation: the teacher, its voice through the codec, plain text, the projectors, the controls."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_projection.alignment.controls import CONTROLS
from audio_projection.config import PROJECTOR_KINDS, Config
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.extras import library
from audio_projection.files import audio
from audio_projection.files.atomic import make_folder
from audio_projection.files.locations import (
    SHIPPED_KINDS,
    SHIPPED_PROJECTORS,
    given_projector,
    has_projector,
    locate_projector,
)
from audio_projection.text.input_text import Reading, as_spoken

if TYPE_CHECKING:
    from audio_projection.inference import Voice

TEACHER, PLAIN = "teacher", "plain"
SYSTEMS = (TEACHER, "codec", PLAIN, *SHIPPED_KINDS, *(control for control in CONTROLS if control != PLAIN))
"""The systems of a whole evaluation, in the order of the table."""
MEANINGS = {
    TEACHER: "the voice that taught the nano voice",
    "codec": "the teacher through the codec: encoded and decoded",
    PLAIN: "the TTS fed with its own text embeddings",
    "linear": "linear projector: the states alone",
    "residual": "residual projector: own text embeddings and states",
    "mlp": "mlp projector: the states alone, through two linear maps",
    "shuffled": "states permuted over the tokens of the sentence",
    "other": "states of another sentence",
}


@dataclass(frozen=True)
class SpokenSentence:
    """One sentence as a system speaks it: mono float samples (S,) in [-1, 1] at `rate` Hz."""

    samples: np.ndarray
    rate: int
    ended: bool = True
    """Whether the speech ended by itself, not by the guard against a missed end."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


class SpeechSources:
    """The teacher, the codec and the projectors' voices, each loaded at its first use; of the voices the latest is
    kept, since some hold an LLM of their own."""

    def __init__(self, config: Config, sentences: Sequence[str]) -> None:
        self.config = config
        self.sentences = list(sentences)
        reading = Reading.from_config(config)
        self.texts = [as_spoken(text, reading) for text in sentences]
        """The sentences, normalised as the TTS reads them."""
        self._voice: tuple[tuple[Path, str], Voice] | None = None
        self._teacher: list[SpokenSentence] = []

    def teacher(self) -> list[SpokenSentence]:
        """All sentences by the voice that taught the configured one, spoken once; AudioProjectionError when it is not
        installed."""
        speak = TEACHERS.get(self.config.tts.speaker or "", _flite)
        self._teacher = self._teacher or [speak(text) for text in self.texts]
        return self._teacher

    def through_codec(self) -> Iterator[SpokenSentence]:
        """The teacher's sentences encoded and decoded by the codec of the TTS."""
        from audio_projection.models import load_tts

        teacher, codec = self.teacher(), load_tts(self.config).codec
        for sentence in teacher:
            samples = codec.decode(codec.encode(sentence.samples, sentence.rate))
            yield SpokenSentence(samples.cpu().numpy(), codec.sample_rate)

    def voice(self, projector: str | None, llm: str | None = None) -> Voice:
        """The voice of a projector, chosen as by `files.locations.find_projector`, with the configured LLM or another
        (`llm.name`)."""
        from audio_projection.inference import Voice

        place, _ = locate_projector(self.config, projector)
        key = place, llm or self.config.llm.name
        if self._voice is None or self._voice[0] != key:
            self._voice = None  # its memory is free before the next one is loaded
            config = self.config.model_copy(update={"llm": self.config.llm.model_copy(update={"name": key[1]})})
            self._voice = key, Voice.from_config(config, projector=projector)
        return self._voice[1]

    def spoken(self, system: System) -> Iterator[SpokenSentence]:
        """All sentences by a projector's voice, several at once."""
        seeds, voice = count(self.config.seed), self.voice(system.projector, system.llm)
        for speech in voice.speak_all(self.texts, seeds=seeds, control=system.control):
            yield SpokenSentence(speech.samples, speech.sample_rate, speech.ended)


@dataclass(frozen=True)
class System:
    """One system of an evaluation: one of `SYSTEMS`, a shipped projector, or a trained projector by a short name."""

    name: str
    projector: str | None = None  # as find_projector takes it; none: the configuration's
    control: str | None = None  # what is spoken instead of the states
    llm: str | None = None  # `llm.name`, where it is not the configuration's

    @property
    def meaning(self) -> str:
        return MEANINGS.get(self.name, f"projector {self.projector}")

    def utterances(self, sources: SpeechSources) -> Iterator[SpokenSentence]:
        """All sentences, with a bar on stderr while they are spoken."""
        from rich.console import Console
        from rich.progress import track

        console, total = Console(stderr=True), len(sources.texts)
        hidden = not console.is_terminal
        yield from track(self._utterances(sources), self.name, total, console=console, transient=True, disable=hidden)

    def notes(self, sources: SpeechSources) -> dict[str, Any]:
        """The projector's record, and a residual one's share from the states, for results.json."""
        if self.name in (TEACHER, "codec"):
            return {}
        voice = sources.voice(self.projector, self.llm)
        notes: dict[str, Any] = {"projector": asdict(voice.projector.info)}
        if self.control is None and voice.projector.info.kind == "residual":
            notes["share_from_states"] = share_from_states(voice, sources.texts)
        return notes

    def _utterances(self, sources: SpeechSources) -> Iterator[SpokenSentence]:
        if self.name == TEACHER:
            return iter(sources.teacher())
        if self.name == "codec":
            return sources.through_codec()
        return sources.spoken(self)


def name_systems(systems: Sequence[str | System]) -> list[System]:
    """Systems by name, or by a projector's folder or GGUF file; these are named by the ends of their paths, so that
    all names differ. What is a System already stays as it is.

    Raises AudioProjectionError for what is neither, and for a system that is given twice.
    """
    words = [system for system in systems if isinstance(system, str)]
    named = tuple(dict.fromkeys((*SYSTEMS, *PROJECTOR_KINDS, *SHIPPED_PROJECTORS)))
    for word in words:
        if word not in named and not has_projector(Path(word)):
            choices = ", ".join(named)
            raise AudioProjectionError(
                f"unknown system {word!r}: choose of {choices}, or give a trained projector's folder"
            )
    paths = {word: given_projector(Path(word)).resolve() for word in words if word not in named}
    short = {choice: choice.replace("/", "-") for choice in SHIPPED_PROJECTORS}
    short |= zip(paths, _short_names(list(paths.values()), {*named, *short.values()}), strict=True)
    projectors = {*PROJECTOR_KINDS, *SHIPPED_PROJECTORS, *paths}

    def system_of(word: str) -> System:
        name, projector = short.get(word, word), word if word in projectors else None
        return System(name, projector, word if word in CONTROLS else None)

    found = [system_of(system) if isinstance(system, str) else system for system in systems]
    names = [system.name for system in found]
    if len(set(names)) < len(names) or len(set(paths.values())) < len(paths):
        raise AudioProjectionError(f"a system is given twice: {', '.join(names)}; give each once")
    return found


def _short_names(folders: Sequence[Path], taken: Set[str]) -> list[str]:
    """The ends of the paths, as many parts of all as tell them apart from each other and from the names taken."""
    for depth in range(1, max((len(folder.parts) for folder in folders), default=0)):
        names = ["-".join(folder.parts[1:][-depth:]) for folder in folders]
        if len(set(names) - taken) == len(folders):
            return names
    return [f"projector-{number}" for number in range(1, len(folders) + 1)]


def notes_in_words(notes: dict[str, Any]) -> str:
    """Layer and training of a projector, and what a residual one takes from the states; may be empty."""
    if "projector" not in notes:
        return ""
    layers, steps, made = (notes["projector"][key] for key in ("layers", "steps", "measurements"))
    trained = f"{steps} steps" if steps else "fit only" if "fit" in made else "untrained"
    words = [f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}", trained]
    if "share_from_states" in notes:
        words.append(f"{100 * notes['share_from_states']:.1f} % of the embedding from the states")
    return "; ".join(words)


def share_from_states(voice: Voice, texts: Sequence[str]) -> float:
    """Mean over all tokens of |g*U(V norm(h))| / |projected embedding| of a residual projector."""
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


def save_sentence(sentence: SpokenSentence, folder: Path, system: str, index: int) -> None:
    """Write one sentence's sound into the system's folder, as NNNN.wav counted from 1."""
    audio.write(make_folder(folder / system) / f"{index + 1:04d}.wav", sentence.samples, sentence.rate)


def speak_line(voice: Voice, text: str, seed: int, control: str | None = None) -> SpokenSentence:
    """One line, spoken sentence by sentence."""
    speech = voice.speak(text, seed=seed, control=control)
    return SpokenSentence(speech.samples, speech.sample_rate, speech.ended)


def _flite(text: str) -> SpokenSentence:
    """flite's voice `rms`; the silence at the end cut to 120 ms, as in the training corpus."""
    if shutil.which("flite") is None:
        raise AudioProjectionError("flite is not installed (Debian: apt-get install flite)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flite.wav"
        subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", str(path)], check=True, capture_output=True)
        samples = audio.read(path, 16_000)
    return SpokenSentence(samples[: _loud(samples)[1] + 1_920], 16_000)


def _hibari(text: str) -> SpokenSentence:
    """hibari's voice `heart`; of the silence around each sentence 100 ms are left, as in the training corpus."""
    parts = []
    for samples in _hibari_voice().stream(text, seed=0):
        first, last = _loud(samples)
        parts.append(samples[max(0, first - 2_400) : last + 2_400])
    return SpokenSentence(np.concatenate(parts), 24_000)


@cache
def _hibari_voice() -> Any:
    return library("hibari", "recipe").Hibari()


def _loud(samples: np.ndarray) -> tuple[int, int]:
    """The first and the last sample that is heard; of silence its ends."""
    loud = np.flatnonzero(np.abs(samples) > 200 / 32768)
    return (int(loud[0]), int(loud[-1])) if len(loud) else (0, len(samples))


TEACHERS = {"heart": _hibari}
"""Who taught a voice, by the voice's name; all others were taught by flite."""
