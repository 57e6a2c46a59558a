"""`audio-projection chat`: a conversation in the terminal, text in, words and sound out."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from audio_projection.cli import options
from audio_projection.cli.speaking import Speaker, SpeakOptions, check_recording, voice_settings
from audio_projection.cli.spoken_turn import Outlet
from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio
from audio_projection.files.atomic import make_folder
from audio_projection.files.playback.live_player import find_program
from audio_projection.text.input_text import decode_text

if TYPE_CHECKING:
    from audio_projection.inference import Session

log = logging.getLogger(__name__)

_FILE = re.compile(r"(\d{4,})\.wav")


def chat(
    overrides: options.Overrides = None,
    play: options.PlayLive = False,
    player: options.Player = None,
    output_dir: options.AnswerDir = None,
    system: options.SystemPrompt = None,
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
    threads: options.Threads = None,
) -> None:
    """Talk with the language model over several turns: a line in, its answer in words and sound out.

    Ctrl-C stops an answer, and the conversation keeps only what was spoken of it. Ctrl-D or the end of
    the input leaves.

    \b
    Examples:
      chat --config nano --play
      chat --config nano --player "aplay -q -"
      chat --config nano --output-dir answers < questions.txt
    """
    play = play or player is not None
    if not play and output_dir is None:
        raise typer.BadParameter("where to is the sound to go? give --play, --output-dir or both")
    check_recording(voice, ref_audio, ref_text)
    program = find_program(player) if play else None
    if output_dir is not None:
        audio.check_folder(output_dir)
    given = {"device": device, "seed": seed, "threads": threads, "llm.system": system}
    settings = voice_settings(config, gguf, overrides, given, dtype)
    speaker = Speaker(settings, SpeakOptions(projector, voice, language, ref_audio, ref_text))
    if output_dir is not None:
        make_folder(output_dir)
    failed = 0
    with speaker.session() as session:
        for line in _lines():
            outlet = Outlet(speaker.sample_rate, play, program, _next_file(output_dir))
            failed += not _turn(session, line, outlet)
    if failed and not sys.stdin.isatty():
        raise AudioProjectionError(f"{failed} answers could not be spoken")


def _lines() -> Iterator[bytes]:
    """The lines of the input that are not blank; asks for them in a terminal."""
    asks = sys.stdin.isatty()
    while True:
        try:
            line = input("> ").encode() if asks else sys.stdin.buffer.readline()
        except EOFError:
            typer.echo()
            return
        except KeyboardInterrupt:
            if not asks:
                raise
            typer.echo("\n(Ctrl-D leaves)", err=True)
            continue
        if not line and not asks:
            return
        if line.strip():
            yield line


def _turn(session: Session, line: bytes, outlet: Outlet) -> bool:
    """One question and its answer; whether it was spoken."""
    try:
        answer = session.say(decode_text(line).strip())
        heard = outlet.speak(answer)
        if heard is not None:
            session.truncate(heard)
            log.warning("(stopped)")
        elif not answer.seconds:
            raise AudioProjectionError("the language model's answer has nothing to speak in it; ask differently")
    except AudioProjectionError as error:
        log.error("error: %s", error)
        return False
    return True


def _next_file(folder: Path | None) -> Path | None:
    """The file of the next answer: numbered after those that are there."""
    if folder is None:
        return None
    numbers = [int(match[1]) for match in map(_FILE.fullmatch, (path.name for path in folder.iterdir())) if match]
    return folder / f"{max(numbers, default=0) + 1:04d}.wav"
