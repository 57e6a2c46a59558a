"""One answer in the terminal: its words, its sound to a player, and its file."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np
import typer

from audio_projection.files import audio
from audio_projection.files.playback.live_player import PlaybackClock, open_player

if TYPE_CHECKING:
    from audio_projection.inference import Answer


@dataclass(frozen=True)
class Outlet:
    """Where an answer goes to."""

    rate: int
    play: bool
    program: Sequence[str] | None
    """The player, as `find_program` gives it."""
    file: Path | None

    def speak(self, answer: Answer) -> float | None:
        """Shows the words of an answer, plays it and writes its file.

        Ctrl-C stops it: then this gives how many seconds were heard, all that was delivered but for what the player had
        still to play; else None.
        """
        player = open_player(self.program, self.rate) if self.play else _Silent()
        clock, words, chunks = PlaybackClock(), Words(), []
        with _stopped_by_keyboard(answer.cancel, player.stop) as stopped:
            try:
                for samples in answer:
                    words.show(answer.text)
                    chunks.append(samples)
                    clock.wrote(len(samples) / self.rate)
                    player.write(samples)
                player.finish()
            except BaseException:
                answer.cancel()
                player.stop()
                if not stopped.is_set():
                    raise
            finally:
                words.end()
        heard = clock.played if self.play else answer.seconds
        if self.file is not None and chunks:
            audio.write(self.file, np.concatenate(chunks), self.rate)
            typer.echo(f"{self.file}: {answer.seconds:.2f} s")
        return heard if stopped.is_set() else None


class _Silent:
    """Plays nothing."""

    def write(self, samples: np.ndarray) -> None:
        pass

    def finish(self) -> None:
        pass

    def stop(self) -> None:
        pass


@contextlib.contextmanager
def _stopped_by_keyboard(*stop: Callable[[], object]) -> Iterator[threading.Event]:
    """An event that Ctrl-C sets; it calls what stops the work, too."""
    stopped = threading.Event()

    def stop_all() -> None:
        for each in stop:
            each()

    def handle(number: int, frame: FrameType | None) -> None:
        stopped.set()
        # in a thread of its own: this one may hold the locks that stopping takes
        threading.Thread(target=stop_all, daemon=True).start()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


class Words:
    """Words on stdout as they come."""

    def __init__(self) -> None:
        self._shown = ""

    def show(self, text: str) -> None:
        """The text so far."""
        if text.startswith(self._shown):
            typer.echo(text[len(self._shown) :], nl=False)
            self._shown = text

    def end(self) -> None:
        """The line ends."""
        if self._shown:
            typer.echo()
