"""Playing sound while it is made: by the package sounddevice, or by a program that reads WAV from its input."""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from audio_projection.errors import AudioProjectionError
from audio_projection.files.playback.sound_stream import SoundStream

PROGRAMS = (
    ("aplay", "-q", "-"),
    ("pw-play", "-"),
    ("paplay",),
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error", "-"),
    ("play", "-q", "-t", "wav", "-"),
)
"""Programs that play WAV from their standard input, the first choice first."""
_LIBRARY = "sounddevice"


class LivePlayer(Protocol):
    """Plays one stream of sound."""

    def write(self, samples: np.ndarray) -> None:
        """Plays samples (s,) after those before; waits while much of them is still to be played."""

    def finish(self) -> None:
        """Waits until all is played."""

    def stop(self) -> None:
        """Falls silent at once."""


class PlaybackClock:
    """How much of a stream was heard, by the clock: playback begins with the first chunk and has no gaps but those of
    the stream."""

    def __init__(self) -> None:
        self._until = self._written = 0.0

    def wrote(self, seconds: float) -> None:
        """So many seconds more are given to the player."""
        self._until = max(self._until, time.monotonic()) + seconds
        self._written += seconds

    @property
    def played(self) -> float:
        """Seconds that were heard; those before a gap are counted without it."""
        return self._written - min(self._written, max(0.0, self._until - time.monotonic()))


class PlayerProgram:
    """A program that plays what is written into its standard input."""

    def __init__(self, command: Sequence[str], rate: int) -> None:
        """Raises AudioProjectionError where the program cannot be started."""
        self._name = command[0]
        options: dict[str, Any] = {} if os.name == "nt" else {"start_new_session": True}  # Ctrl-C is not for it
        try:
            self._process = subprocess.Popen(list(command), stdin=subprocess.PIPE, **options)
        except OSError as error:
            raise AudioProjectionError(f"cannot start the player {self._name}: {error.strerror or error}") from None
        assert self._process.stdin is not None, "a pipe was asked for"
        self._stream = SoundStream(self._process.stdin, rate)

    def write(self, samples: np.ndarray) -> None:
        try:
            self._stream.write(samples)
        except OSError:
            self.stop()
            raise AudioProjectionError(
                f"the player {self._name} ended before the sound did; name another one by --player, or write files "
                "by --output-dir"
            ) from None

    def finish(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait():
            raise AudioProjectionError(f"the player {self._name} could not play the sound; name another by --player")

    def stop(self) -> None:
        self._process.kill()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # what was not taken yet
            self._process.stdin.close()
        self._process.wait()


class SoundDevice:
    """The sound card, by the package sounddevice."""

    def __init__(self, rate: int) -> None:
        sounddevice = _library()
        assert sounddevice is not None, "find_program found it"
        try:
            self._stream = sounddevice.OutputStream(samplerate=rate, channels=1, dtype="float32")
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise AudioProjectionError(
                f"no sound device ({error}): name a player by --player, or write files by --output-dir"
            ) from None

    def write(self, samples: np.ndarray) -> None:
        self._stream.write(np.ascontiguousarray(samples[:, None]))

    def finish(self) -> None:
        self._stream.stop()  # after what is written
        self._stream.close()

    def stop(self) -> None:
        self._stream.abort()
        self._stream.close()


def _library() -> Any:
    """The package sounddevice; None where it, or its library PortAudio, is not installed."""
    try:
        return importlib.import_module(_LIBRARY)
    except (ImportError, OSError):
        return None


def find_program(named: str | None) -> list[str] | None:
    """The command of the player to use: the one that is named; None: the package sounddevice; else the first program
    that is installed.

    Raises AudioProjectionError where a program is named that is not installed, and where there is nothing at all.
    """
    if named is not None:
        command = shlex.split(named, posix=os.name != "nt")
        if not command or shutil.which(command[0]) is None:
            raise AudioProjectionError(f"--player {named}: no such program; name one that plays WAV from its input")
        return command
    if _library() is not None:
        return None
    for program in PROGRAMS:
        if shutil.which(program[0]) is not None:
            return list(program)
    names = ", ".join(program[0] for program in PROGRAMS)
    raise AudioProjectionError(
        f"--play needs the package {_LIBRARY} (pip install {_LIBRARY}) or one of {names}; "
        "or write files by --output-dir"
    )


def open_player(program: Sequence[str] | None, rate: int) -> LivePlayer:
    """A player for one stream at `rate` Hz; `program` as `find_program` gives it."""
    return SoundDevice(rate) if program is None else PlayerProgram(program, rate)
