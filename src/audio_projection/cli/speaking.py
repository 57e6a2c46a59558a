"""A loaded voice as the commands use it: into sound files, as streams, in conversations."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from audio_projection.cli import options
from audio_projection.cli.settings import load_settings
from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio
from audio_projection.files.locations import check_for_speaking, check_gguf_folder

if TYPE_CHECKING:
    from torch import Tensor

    from audio_projection.inference import Answer, Session, Speech, SpeechStream, Voice
    from audio_projection.tts.prompt import Reference

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpeakOptions:
    """Options of `speak` that are passed on to the voice."""

    projector: str | None = None
    voice: str | None = None
    language: str | None = None
    ref_audio: Path | None = None
    ref_text: str | None = None
    control: str | None = None


class Speaker:
    """A loaded voice that writes sound files."""

    def __init__(self, config: Config, chosen: SpeakOptions) -> None:
        """Loads the models; raises `AudioProjectionError` naming whichever of them is not there."""
        check_for_speaking(config, chosen.projector)
        if chosen.ref_audio is not None:
            audio.check_readable(chosen.ref_audio)
        # where scipy is installed, transformers loads it for losses of image models: a tenth of the time until speech;
        # scikit-learn, which transformers 5.20 loads for what generates from two models, is nothing without scipy
        with _hidden("scipy", "sklearn"):
            from audio_projection.inference import Voice

            self._voice: Voice = Voice.from_config(config, projector=chosen.projector)
        self._arguments: dict[str, Any] = {"voice": chosen.voice, "language": chosen.language, "seed": config.seed}
        self._control = chosen.control
        if chosen.ref_audio is not None:
            self._arguments["voice"] = self._reference(chosen.ref_audio, chosen.ref_text)
        self._voice.check(self._arguments["voice"], chosen.language)

    def speak(self, text: str, output: Path) -> float:
        """Writes the text spoken; returns seconds of sound."""
        return self._write(self._voice.speak(text, control=self._control, **self._arguments), output)

    def speak_all(self, texts: Sequence[tuple[str, Path]]) -> Iterator[float | AudioProjectionError]:
        """Writes each text spoken into its file, several sentences being decoded at once; yields its seconds of sound,
        or why it could not be spoken."""
        arguments = {key: value for key, value in self._arguments.items() if key != "seed"}
        seeds = repeat(self._arguments["seed"])
        spoken = self._voice.speak_each([text for text, _ in texts], seeds=seeds, control=self._control, **arguments)
        for speech, (_, output) in zip(spoken, texts, strict=True):
            try:
                yield speech if isinstance(speech, AudioProjectionError) else self._write(speech, output)
            except AudioProjectionError as error:
                yield error

    def chat(self, question: str, output: Path) -> tuple[str, float]:
        """Lets the language model answer and writes the answer spoken; returns it and its seconds of sound."""
        speech = self._voice.chat([{"role": "user", "content": question}], **self._arguments)
        return speech.text, self._write(speech, output)

    @property
    def sample_rate(self) -> int:
        """Samples per second of all sound."""
        return self._voice.sample_rate

    def stream(self, text: str) -> SpeechStream:
        """The text spoken, as a stream of samples."""
        return self._voice.stream(text, control=self._control, **self._arguments)

    def answer(self, question: str) -> Answer:
        """The language model's answer spoken, as a stream of samples."""
        return self._voice.chat_stream([{"role": "user", "content": question}], **self._arguments)

    def session(self) -> Session:
        """A conversation."""
        return self._voice.session(**self._arguments)

    def _reference(self, recording: Path, text: str | None) -> Tensor | Reference:
        """The recording's x-vector; with its transcript the whole recording, as a prompt."""
        from audio_projection.data.reference_audio import SILENCE

        if text is None:
            return self._voice.embed_reference(recording)
        return self._voice.reference(recording, text, SILENCE)

    @staticmethod
    def _write(speech: Speech, output: Path) -> float:
        audio.write(output, speech.samples, speech.sample_rate)
        return len(speech.samples) / speech.sample_rate


@contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Hides installed packages from imports, except those that are loaded already."""
    hidden = [package for package in packages if package not in sys.modules]
    for package in hidden:
        sys.modules[package] = None  # type: ignore[assignment]  # how Python itself marks what cannot be imported
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]


def voice_settings(
    config: str, gguf: Path | None, overrides: list[str] | None, chosen: dict[str, Any], dtype: str | None
) -> Config:
    """The settings of a command that speaks; `gguf` is a folder that has its configuration in it.

    Raises `AudioProjectionError`, and BadParameter where both are given.
    """
    if gguf is not None and config != options.DEFAULT_CONFIG:
        raise typer.BadParameter("give --gguf or --config: the folder has a configuration of its own")
    if gguf is not None:
        check_gguf_folder(gguf)
    place = config if gguf is None else gguf / "config.yaml"
    return load_settings(place, overrides, {"llm.dtype": dtype, "tts.dtype": dtype} | chosen)


def check_recording(voice: str | None, ref_audio: Path | None, ref_text: str | None) -> None:
    """BadParameter for a transcript without its recording; says which voice wins."""
    if ref_text is not None and ref_audio is None:
        raise typer.BadParameter("--ref-text goes with --ref-audio")
    if voice is not None and ref_audio is not None:
        log.warning("--ref-audio wins: the voice is that of %s, --voice %s is not used", ref_audio, voice)
