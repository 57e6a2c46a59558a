"""`audio-projection speak`: speaks a text, the lines of a file, or an answer of the LLM into sound files."""

from __future__ import annotations

import logging
import os
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
from audio_projection.files.atomic import make_folder
from audio_projection.files.locations import check_for_speaking, check_gguf_folder
from audio_projection.files.player import find_players, play_file
from audio_projection.text.input_text import check_text, decode_text

if TYPE_CHECKING:
    from torch import Tensor

    from audio_projection.inference import Speech, Voice
    from audio_projection.tts.prompt import Reference

log = logging.getLogger(__name__)


def speak(
    overrides: options.Overrides = None,
    text: options.Text = None,
    text_file: options.TextFile = None,
    chat: options.Chat = None,
    system: options.System = None,
    play: options.Play = False,
    output: options.Output = options.DEFAULT_OUTPUT,
    output_dir: options.OutputDir = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    gguf: options.GGUFFolder = None,
    projector: options.Projector = None,
    voice: options.VoiceName = None,
    language: options.Language = None,
    ref_audio: options.RefAudio = None,
    ref_text: options.RefText = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    seed: options.Seed = None,
    control: options.Control = None,
    threads: options.Threads = None,
) -> None:
    """Speak a text, the lines of a file, or the language model's answer to a question.

    \b
    Examples:
      speak --text "Hello world" --output output.wav
      speak --config nano --text-file lines.txt --output-dir spoken
      speak --config nano --chat "What is the sea?" -o answer.flac --play
      echo "Good morning" | speak --config nano
      speak --gguf exported --text "Hello world"
    """
    if gguf is not None and config != options.DEFAULT_CONFIG:
        raise typer.BadParameter("give --gguf or --config: the folder has a configuration of its own")
    _check_sources(text, text_file, chat, output, output_dir)
    _check_chat_options(chat, control, system)
    if ref_text is not None and ref_audio is None:
        raise typer.BadParameter("--ref-text goes with --ref-audio")
    if play and text_file is not None:
        raise typer.BadParameter("--play goes with one text, not with --text-file")
    players = find_players() if play else []
    if voice is not None and ref_audio is not None:
        log.warning("--ref-audio wins: the voice is that of %s, --voice %s is not used", ref_audio, voice)
    if gguf is not None:
        check_gguf_folder(gguf)
    settings = load_settings(
        config if gguf is None else gguf / "config.yaml",
        overrides,
        {"device": device, "llm.dtype": dtype, "tts.dtype": dtype, "seed": seed, "threads": threads}
        | {"llm.system": system},
    )
    chosen = SpeakOptions(projector, voice, language, ref_audio, ref_text, control)
    if text_file is not None and output_dir is not None:
        _speak_file(settings, chosen, text_file, output_dir)
        return
    words = decode(_given(text, chat))
    audio.check_writable(output)
    speaker = Speaker(settings, chosen)
    if chat is not None:
        answer, seconds = speaker.chat(words, output)
        typer.echo(answer)
    else:
        seconds = speaker.speak(words, output)
    typer.echo(f"{output}: {seconds:.2f} s")
    if play:
        play_file(players, output)


def _check_sources(
    text: str | None, text_file: Path | None, chat: str | None, output: Path, output_dir: Path | None
) -> None:
    if sum(source is not None for source in (text, text_file, chat)) > 1:
        raise typer.BadParameter("give one of --text, --text-file and --chat")
    if text_file is not None and output != options.DEFAULT_OUTPUT:
        raise typer.BadParameter("--output goes with one text; the files of --text-file lie in --output-dir")
    if (text_file is None) != (output_dir is None):
        raise typer.BadParameter("--text-file and --output-dir go together")
    if text is None and text_file is None and chat is None and sys.stdin.isatty():
        raise typer.BadParameter("nothing to say: give --text, --text-file or --chat, or pipe a text in")


def _check_chat_options(chat: str | None, control: str | None, system: str | None) -> None:
    if chat is not None and control is not None:
        raise typer.BadParameter("--control goes with reading aloud, not with --chat")
    if system is not None and chat is None:
        raise typer.BadParameter("--system goes with --chat")


def _given(text: str | None, chat: str | None) -> bytes:
    words = text if text is not None else chat
    return os.fsencode(words) if words is not None else sys.stdin.buffer.read()


def _speak_file(settings: Config, chosen: SpeakOptions, text_file: Path, output_dir: Path) -> None:
    lines = read_lines(text_file)
    audio.check_folder(output_dir)
    speaker = Speaker(settings, chosen)
    make_folder(output_dir)
    failed = []
    for number, path, seconds in speak_lines(speaker, lines, output_dir):
        if seconds is None:
            failed.append(number)
        else:
            typer.echo(f"{path}: {seconds:.2f} s")
    if failed:
        numbers = ", ".join(map(str, failed))
        spoken = sum(map(bool, map(bytes.strip, lines)))
        raise AudioProjectionError(f"{len(failed)} of {spoken} lines could not be spoken: {numbers}")


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
        # where scipy is installed, transformers loads it for losses of image models: a tenth of the time until speech
        with _hidden("scipy"):
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
def _hidden(package: str) -> Iterator[None]:
    """Hides an installed package from imports, unless it is loaded already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # how Python itself marks what cannot be imported
    try:
        yield
    finally:
        del sys.modules[package]


def read_lines(path: Path) -> list[bytes]:
    """The lines of a file as bytes, so that one that is not UTF-8 spoils no other.

    Raises `AudioProjectionError` for a file that cannot be read or has blank lines only.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise AudioProjectionError(f"cannot read {path}: {error.strerror or error}") from None
    if not any(map(bytes.strip, lines)):
        raise AudioProjectionError(f"{path} has no text in it")
    return lines


def decode(line: bytes) -> str:
    """UTF-8 text that can be spoken; raises `AudioProjectionError` for anything else."""
    text = decode_text(line)
    check_text(text)
    return text


def speak_lines(speaker: Speaker, lines: list[bytes], folder: Path) -> Iterator[tuple[int, Path, float | None]]:
    """(line number, file, seconds) for each line that is not blank; one that fails is logged and has no seconds."""
    decoded: dict[int, str | AudioProjectionError] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                decoded[number] = decode(line)
            except AudioProjectionError as error:
                decoded[number] = error
    outputs = {number: folder / f"{number:04d}.wav" for number in decoded}
    texts = [(text, outputs[number]) for number, text in decoded.items() if isinstance(text, str)]
    spoken = speaker.speak_all(texts)
    for number, text in decoded.items():
        seconds = next(spoken) if isinstance(text, str) else text
        if isinstance(seconds, AudioProjectionError):
            log.error("line %d: %s", number, seconds)
            yield number, outputs[number], None
        else:
            yield number, outputs[number], seconds
