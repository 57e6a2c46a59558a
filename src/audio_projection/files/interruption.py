"""Ctrl-C and SIGTERM as requests to stop at the next good moment."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from audio_projection.errors import AudioProjectionError

log = logging.getLogger(__name__)


class Interrupted(AudioProjectionError):
    """Raised when work was interrupted; the message says how it goes on. The command exits with 130."""


class StopRequest(threading.Event):
    """Set by the first signal; `by_keyboard` says whether that was Ctrl-C."""

    by_keyboard = False


@contextlib.contextmanager
def stop_requested(what: str, *signals: signal.Signals) -> Iterator[StopRequest]:
    """An event that the first Ctrl-C (and the first of `signals`) sets; a second Ctrl-C ends at once.

    `what` is finished first, for the message: "this step". Only the main thread can handle signals: in another one the
    event is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and request.is_set():
            raise KeyboardInterrupt
        request.by_keyboard = number == signal.SIGINT
        request.set()
        log.warning("stopping after %s; Ctrl-C again ends at once", what)

    chosen = dict.fromkeys((signal.SIGINT, *signals))
    previous = {number: signal.signal(number, handle) for number in chosen}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
