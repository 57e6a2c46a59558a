"""Playing a sound file through a player that is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from audio_projection.errors import AudioProjectionError

PLAYERS: tuple[tuple[str, ...], ...] = (
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"),
    ("afplay",),
    ("aplay", "-q"),
)
_WAV_ONLY = "aplay"


def find_players() -> list[Sequence[str]]:
    """The commands of the players that are installed; AudioProjectionError where there is none."""
    found: list[Sequence[str]] = [command for command in PLAYERS if shutil.which(command[0])]
    if not found:
        names = ", ".join(command[0] for command in PLAYERS)
        raise AudioProjectionError(f"--play needs one of {names}: install one, or play the file that is written")
    return found


def play_file(players: Sequence[Sequence[str]], path: Path) -> None:
    """Plays the file to its end; AudioProjectionError where no player can."""
    usable = [command for command in players if command[0] != _WAV_ONLY or path.suffix.lower() == ".wav"]
    if not usable:
        raise AudioProjectionError(f"{path} is written, but {_WAV_ONLY} plays .wav files only: install ffplay")
    ended = subprocess.run([*usable[0], str(path)], check=False)
    if ended.returncode:
        raise AudioProjectionError(f"{path} is written, but {usable[0][0]} could not play it")
