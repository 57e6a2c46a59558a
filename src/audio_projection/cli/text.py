"""`audio-projection text`: what would be spoken for a text, in words, without any model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from audio_projection.cli import options
from audio_projection.config import Config, load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.text.input_text import Reading, check_characters, decode_text, is_speakable, split_sentences
from audio_projection.text.markup import ANSWER, read_plain


def text(
    overrides: options.Overrides = None,
    text: options.TextToRead = None,
    text_file: options.FileToRead = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    answer: options.AsAnswer = False,
    pieces: options.Pieces = False,
) -> None:
    """Print what would be spoken: one line for each line of the input, empty where nothing of it can be said.

    \b
    Examples:
      text --config configs/nano.yaml --text "Dr. Lee paid \\$3.50 at 10:30."
      text --config configs/nano.yaml --text-file lines.txt --pieces
      echo "Use **bold**." | text --config configs/nano.yaml --answer
      text --config configs/nano.yaml --text "nginx" tts.lexicon=words.tsv
    """
    if text is not None and text_file is not None:
        raise typer.BadParameter("give one of --text and --text-file")
    if text is None and text_file is None and sys.stdin.isatty():
        raise typer.BadParameter("nothing to read: give --text or --text-file, or pipe a text in")
    settings = load_config(config, overrides or ())
    given = decode_text(_given(text, text_file))
    check_characters(given)
    reading = Reading.from_config(settings)
    texts = [read_plain(given, ANSWER)] if answer else given.splitlines()
    for written in texts:
        spoken = reading.spoken(written) if is_speakable(written) else ""
        for line in _lines(spoken, settings, pieces):
            typer.echo(line)


def _lines(spoken: str, settings: Config, pieces: bool) -> list[str]:
    """The pieces that become utterances, or all in one line."""
    if pieces:
        return split_sentences(spoken, settings.tts.longest)
    return [" ".join(spoken.split())]


def _given(text: str | None, text_file: Path | None) -> bytes:
    if text is not None:
        return os.fsencode(text)
    if text_file is None:
        return sys.stdin.buffer.read()
    try:
        return text_file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise AudioProjectionError(f"cannot read {text_file}: {error.strerror or error}") from None
