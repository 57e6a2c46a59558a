"""The `speak` command's work: where texts come from, where sound goes, and one voice for all of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_projection import audio
from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.locations import check_for_speaking
from audio_projection.text import check_text

if TYPE_CHECKING:
    from torch import Tensor

    from audio_projection.inference import Speech, Voice
    from audio_projection.tts.prompt import Reference

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manner:
    """How to speak: everything of the command line that is passed on to the voice."""

    projector: str | None = None
    voice: str | None = None
    language: str | None = None
    ref_audio: Path | None = None
    ref_text: str | None = None
    control: str | None = None


class Speaker:
    """A loaded voice that writes files."""

    def __init__(self, config: Config, manner: Manner) -> None:
        """Loads the models; raises `AudioProjectionError` naming whichever of them is not there."""
        check_for_speaking(config, manner.projector)
        if manner.ref_audio is not None:
            audio.check_readable(manner.ref_audio)
        # where scipy is installed, transformers loads it for losses of image models: a tenth of the time until speech
        with _hidden("scipy"):
            from audio_projection.inference import Voice

            self._voice: Voice = Voice.from_config(config, projector=manner.projector)
        self._options: dict[str, Any] = {"voice": manner.voice, "language": manner.language, "seed": config.seed}
        self._control = manner.control
        if manner.ref_audio is not None:
            self._options["voice"] = self._reference(manner.ref_audio, manner.ref_text)
        self._voice.check(self._options["voice"], manner.language)

    def speak(self, text: str, output: Path) -> float:
        """Writes the text spoken; returns seconds of sound."""
        return self._write(self._voice.speak(text, control=self._control, **self._options), output)

    def chat(self, question: str, output: Path) -> tuple[str, float]:
        """Lets the language model answer and writes the answer spoken; returns it and its seconds of sound."""
        speech = self._voice.chat([{"role": "user", "content": question}], **self._options)
        return speech.text, self._write(speech, output)

    def _reference(self, recording: Path, text: str | None) -> Tensor | Reference:
        """The recording's voice, and with its text its manner too."""
        return self._voice.embed_reference(recording) if text is None else self._voice.reference(recording, text)

    @staticmethod
    def _write(speech: Speech, output: Path) -> float:
        audio.write(output, speech.samples, speech.sample_rate)
        return len(speech.samples) / speech.sample_rate


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """As if the package were not installed, unless it is loaded already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # how Python itself marks what cannot be imported
    try:
        yield
    finally:
        del sys.modules[package]


def read_lines(path: Path) -> list[bytes]:
    """The lines of a file as they are, so that one that is no UTF-8 spoils no other; refused where all are blank."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise AudioProjectionError(f"cannot read {path}: {error.strerror or error}") from None
    if not any(map(bytes.strip, lines)):
        raise AudioProjectionError(f"{path} has no text in it")
    return lines


def decode(line: bytes) -> str:
    """UTF-8 text that can be spoken; raises `AudioProjectionError` for anything else."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AudioProjectionError(f"the text is not UTF-8 (byte {error.start + 1}): save it as UTF-8") from None
    check_text(text)
    return text


def speak_lines(speaker: Speaker, lines: list[bytes], folder: Path) -> Iterator[tuple[int, Path, float | None]]:
    """(line number, file, seconds) for each line that is not blank; one that fails is logged and has no seconds."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        output = folder / f"{number:04d}.wav"
        try:
            yield number, output, speaker.speak(decode(line), output)
        except AudioProjectionError as error:
            log.error("line %d: %s", number, error)
            yield number, output, None
