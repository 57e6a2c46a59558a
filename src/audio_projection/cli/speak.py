"""`audio-projection speak`: speaks a text, the lines of a file, or an answer of the LLM into sound files."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from audio_projection.cli import options
from audio_projection.cli.speaking import Speaker, SpeakOptions, check_recording, voice_settings
from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio
from audio_projection.files.atomic import make_folder
from audio_projection.files.playback.player import find_players, play_file
from audio_projection.files.playback.sound_stream import SoundStream
from audio_projection.text.input_text import check_text, decode_text

if TYPE_CHECKING:
    from audio_projection.inference import SpeechStream

log = logging.getLogger(__name__)

BROKEN_PIPE = 141
"""Exit code where nobody reads the sound any more, as a shell gives it for a program that SIGPIPE ended."""


def speak(
    overrides: options.Overrides = None,
    text: options.Text = None,
    text_file: options.TextFile = None,
    chat: options.Chat = None,
    system: options.System = None,
    play: options.Play = False,
    output: options.Output = options.DEFAULT_OUTPUT,
    format: options.StreamFormat = None,
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
      speak --config nano --text "Hello world" --output - | aplay
      speak --gguf exported --text "Hello world"
    """
    _check_sources(text, text_file, chat, output, output_dir)
    _check_chat_options(chat, control, system)
    _check_stdout(output, format, play)
    check_recording(voice, ref_audio, ref_text)
    if play and text_file is not None:
        raise typer.BadParameter("--play goes with one text, not with --text-file")
    players = find_players() if play else []
    given = {"device": device, "seed": seed, "threads": threads, "llm.system": system}
    settings = voice_settings(config, gguf, overrides, given, dtype)
    chosen = SpeakOptions(projector, voice, language, ref_audio, ref_text, control)
    if text_file is not None and output_dir is not None:
        _speak_file(settings, chosen, text_file, output_dir)
        return
    words = decode(_given(text, chat))
    if output == options.STDOUT:
        speaker = Speaker(settings, chosen)
        _write_out(speaker.stream(words) if chat is None else speaker.answer(words), speaker.sample_rate, format)
        return
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


def _check_stdout(output: Path, format: str | None, play: bool) -> None:
    if output != options.STDOUT and format is not None:
        raise typer.BadParameter("--format goes with --output -; a file has the format of its name")
    if output == options.STDOUT and play:
        raise typer.BadParameter("--play goes with a file; pipe --output - into a player instead")
    if output == options.STDOUT and sys.stdout.isatty():
        raise typer.BadParameter("--output - writes sound, not for a terminal: pipe it into a player or a file")


def _write_out(stream: SpeechStream, rate: int, kind: str | None) -> None:
    """Writes sound to stdout while it is made; what is said of it goes to stderr."""
    sound = SoundStream(sys.stdout.buffer, rate, kind or "wav")
    try:
        for samples in stream:
            sound.write(samples)
    except BrokenPipeError:
        stream.close()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
        raise typer.Exit(BROKEN_PIPE) from None
    if not stream.seconds:
        raise AudioProjectionError("the language model's answer has nothing to speak in it; ask differently")
    typer.echo(f"{stream.text}\n{stream.seconds:.2f} s", err=True)


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
