"""What a thread makes piece by piece, awaited in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import Executor
from typing import Generic, TypeVar

T = TypeVar("T")

_LONGEST_PAUSE = 0.05
"""Seconds that the thread waits at most until its first piece is on its way: made at once, the second one would take
the processor from the event loop, which has the first to send."""


class MadeInThread(AsyncIterator[T], Generic[T]):
    """The pieces of a generator that runs in a thread.

    `close` ends the generator after the piece that it is making, which `cancel` (called in another thread) cuts short,
    and drops those that wait. `ended` is called in the event loop when the generator has ended, whether anybody took
    its pieces or not.
    """

    def __init__(
        self,
        executor: Executor,
        make: Callable[[], Generator[T, None, None]],
        cancel: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[T | BaseException | None] = asyncio.Queue()
        self._stopped = threading.Event()
        self._make, self._cancel, self._ended = make, cancel, ended
        self._running, self._begun = True, False
        self._first: list[T] = []
        self._over = False
        self._sent = threading.Event()  # the first piece, or there is none to send
        executor.submit(self._run)

    async def begin(self) -> None:
        """Waits for the first piece; raises what the generator raises before it."""
        with contextlib.suppress(StopAsyncIteration):
            self._first.append(await self.__anext__())
        self._begun = True

    async def __anext__(self) -> T:
        if self._first:
            return self._first.pop()
        if self._begun:
            self._sent.set()
        if self._over:
            raise StopAsyncIteration
        piece = await self._pieces.get()
        if piece is None or isinstance(piece, BaseException):
            self._over = True
            raise piece or StopAsyncIteration
        return piece

    def close(self) -> None:
        """No more pieces are wanted."""
        self._over = True
        self._first.clear()
        self._sent.set()
        if not self._stopped.is_set():
            self._stopped.set()
            if self._running:
                self._loop.run_in_executor(None, self._cancel)

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            if not self._stopped.is_set():
                with contextlib.closing(self._make()) as made:
                    for piece in made:
                        if self._stopped.is_set():
                            break
                        self._tell(self._pieces.put_nowait, piece)
                        self._sent.wait(_LONGEST_PAUSE)
        except BaseException as error:
            end = error
        self._running = False
        self._tell(self._ended)
        self._tell(self._pieces.put_nowait, end)

    def _tell(self, what: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to hear it
            self._loop.call_soon_threadsafe(what, *arguments)
