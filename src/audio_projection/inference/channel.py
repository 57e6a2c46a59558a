"""A bounded queue between the thread in which the LLM reads or writes, and whoever listens to what is spoken of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from audio_projection.inference.speech import Sentence
from audio_projection.inference.timing import LLMClock
from audio_projection.tts.engine.utterance import Request

_LONGEST_STEP = 60.0  # seconds; the end of the program waits no longer for an LLM that is within a token


class Cancelled(Exception):
    """Raised in the producing thread when nobody listens any more."""


@dataclass(frozen=True)
class Item:
    """A sentence for the engine."""

    request: Request
    sentence: Sentence


class Channel:
    """Sentences in their order, at most `room` at once; `allow` makes more room.

    One thread produces: `start` runs a function in it. What that raises is raised by `get`, once.
    """

    def __init__(self, room: int) -> None:
        self.clock = LLMClock()
        """What the producing thread spends its time with."""
        self._room = room
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._sounds = self._ended = self._cancelled = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self, produce: Callable[[Channel], None]) -> None:
        """Runs `produce` in a thread of its own, which ends soon after `cancel`."""
        _RUNNING.add(self)
        self._thread = threading.Thread(target=self._run, args=(produce,), name="audio-projection-llm", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises Cancelled when nobody listens any more; for the producing thread, between two tokens."""
        if self._cancelled:
            raise Cancelled

    def put(self, item: Item) -> None:
        """Adds a sentence, waiting for room; raises Cancelled."""
        self.wait_for_room()
        with self._changed:
            self.check()
            self._room -= 1
            self._items.append(item)
            self._changed.notify_all()

    def wait_for_room(self) -> None:
        """Waits until a sentence can be added; raises Cancelled."""
        with self.clock.during("waiting"), self._changed:
            self._changed.wait_for(lambda: self._room > 0 or self._cancelled)
            self.check()

    def wait_for_sound(self) -> None:
        """Waits until the first sound was made: on a small machine an LLM that runs ahead would delay it."""
        with self.clock.during("waiting"), self._changed:
            self._changed.wait_for(lambda: self._sounds or self._cancelled)
            self.check()

    def sounds(self) -> None:
        """The first sound was made, or none will be of the first sentence."""
        if not self._sounds:
            with self._changed:
                self._sounds = True
                self._changed.notify_all()

    def allow(self) -> None:
        """Makes room for one sentence more."""
        with self._changed:
            self._room += 1
            self._changed.notify_all()

    def get(self, wait: bool) -> Item | None:
        """The next sentence; None when there is none, with `wait` only after the last. Raises what the producing thread
        raised."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._items or self._ended or self._cancelled)
            if self._items:
                return self._items.popleft()
            error, self._error = self._error, None
        if error is not None and not self._cancelled:
            raise error
        return None

    @property
    def ended(self) -> bool:
        """Whether no more sentences come."""
        return self._cancelled or (self._ended and not self._items and self._error is None)

    def cancel(self) -> None:
        """Nobody listens any more: the producing thread ends at its next token."""
        with self._changed:
            self._cancelled = True
            waiting = list(self._items)
            self._items.clear()
            self._changed.notify_all()
        for item in waiting:
            item.request.text.close()

    def join(self) -> None:
        """Waits until the producing thread has ended."""
        if self._thread is not None:
            self._thread.join(_LONGEST_STEP)

    def _run(self, produce: Callable[[Channel], None]) -> None:
        error: BaseException | None = None
        try:
            produce(self)
        except Cancelled:
            pass
        except BaseException as raised:  # the listener's thread raises it
            error = raised
        self.clock.stop()
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()
        _RUNNING.discard(self)


_RUNNING: set[Channel] = set()  # whose threads run


def stop_threads() -> None:
    """Stops the threads that run, and waits for them."""
    running = list(_RUNNING)
    for channel in running:
        channel.cancel()
    for channel in running:
        channel.join()
