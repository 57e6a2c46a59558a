"""What a thread makes piece by piece, awaited in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import Executor
from typing import Generic, TypeVar

T = TypeVar("T")


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
        self._running = True
        self._first: list[T] = []
        self._over = False
        executor.submit(self._run)

    async def begin(self) -> None:
        """Waits for the first piece; raises what the generator raises before it."""
        with contextlib.suppress(StopAsyncIteration):
            self._first.append(await self.__anext__())

    async def __anext__(self) -> T:
        if self._first:
            return self._first.pop()
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
        except BaseException as error:
            end = error
        self._running = False
        self._tell(self._ended)
        self._tell(self._pieces.put_nowait, end)

    def _tell(self, what: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to hear it
            self._loop.call_soon_threadsafe(what, *arguments)
