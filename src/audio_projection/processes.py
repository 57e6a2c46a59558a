"""The processes of one run: each does its share of the work, and no wait outlives the process that is waited for."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from audio_projection.errors import AudioProjectionError

log = logging.getLogger(__name__)

Item = TypeVar("Item")

BEAT = 2.0
"""Seconds between two signs of life of a process."""
SILENT = 30.0
"""Seconds without one after which a process is taken to have ended."""
LONGEST = 24 * 3600.0
"""Seconds that the others are waited for at most, alive or not."""
_AGAIN = "see its own messages; the same command goes on where it stopped"


class Processes:
    """One of `count` processes that run the same program; alone, every wait is over at once."""

    def __init__(self, index: int = 0, count: int = 1, store: Any = None) -> None:
        """`store`: a torch.distributed.Store that all processes share; needed for more than one."""
        self.index, self.count, self._store = index, count, store
        self._waits = 0
        self._heard: dict[int, tuple[bytes, float]] = {}  # of each other process: its last sign of life, and when
        if count > 1:
            threading.Thread(target=self._beat, daemon=True).start()

    def share(self, items: Sequence[Item]) -> list[Item]:
        """What of the items this process does: every `count`-th."""
        return list(items[self.index :: self.count])

    def wait(self, what: str) -> None:
        """Until all processes have come here. AudioProjectionError, naming `what`, when one of them never will."""
        self._waits += 1
        place = f"wait {self._waits}"
        self._tell(f"{place} {self.index}", "here", what)
        for other in self._others():
            self._wait_for(f"{place} {other}", other, what)
        if self.index:
            self._tell(f"{place} left {self.index}", "gone on", what)
            return
        for other in self._others():  # the first keeps the store: were it to end now, the others could not look
            self._wait_for(f"{place} left {other}", other, what)

    def first(self, what: str, work: Callable[[], Any]) -> Any:
        """What the first process makes of `work`, which JSON can hold, in all of them; the others wait for it."""
        self._waits += 1
        place = f"result {self._waits}"
        if self.index == 0:
            result = work()
            self._tell(place, json.dumps(result), what)
            return result
        return json.loads(self._wait_for(place, 0, what))

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """What ends this process is told to the others at once; one whose end broke this one off is named."""
        try:
            yield
        except AudioProjectionError as error:
            self._leave(str(error))
            raise
        except RuntimeError as error:  # of a collective whose other side is gone
            ended = self._ended_one()
            self._leave(str(error))
            if ended is None:
                raise
            raise AudioProjectionError(f"{self._named(ended)} has ended during training: {_AGAIN}") from error
        except BaseException as error:
            self._leave(type(error).__name__)
            raise

    def _others(self) -> list[int]:
        return [index for index in range(self.count) if index != self.index]

    def _named(self, index: int) -> str:
        return f"process {index} of {self.count} (counted from 0)"

    def _wait_for(self, key: str, other: int, what: str) -> bytes:
        began = time.monotonic()
        while not self._has(key, what):
            self._check_alive(other, what)
            if time.monotonic() - began > LONGEST:
                raise AudioProjectionError(
                    f"{self._named(other)} has not come to {what} in {LONGEST / 3600:.0f} hours: {_AGAIN}"
                )
            time.sleep(min(BEAT, 0.1 + (time.monotonic() - began) / 20))
        return self._store.get(key)

    def _check_alive(self, other: int, what: str) -> None:
        if self._has(f"ended {other}", what):
            reason = self._store.get(f"ended {other}").decode(errors="replace")
            raise AudioProjectionError(f"{self._named(other)} has ended, before {what}: {reason}")
        if self._silent_for(other) > SILENT:
            raise AudioProjectionError(
                f"{self._named(other)} has given no sign of life for {SILENT:.0f} s, before {what}: {_AGAIN}"
            )

    def _silent_for(self, other: int) -> float:
        """Seconds since the last sign of life of a process that this one has seen."""
        now, beat = time.monotonic(), b""
        if self._store.check([f"alive {other}"]):
            beat = self._store.get(f"alive {other}")
        if other not in self._heard or self._heard[other][0] != beat:
            self._heard[other] = (beat, now)
        return now - self._heard[other][1]

    def _ended_one(self) -> int | None:
        """A process that has ended or falls silent now; none when all others go on living."""
        began = time.monotonic()
        while self.count > 1 and time.monotonic() - began < SILENT + 2 * BEAT:
            for other in self._others():
                try:
                    if self._store.check([f"ended {other}"]) or self._silent_for(other) > SILENT:
                        return other
                except RuntimeError:
                    return 0  # which keeps the store
            time.sleep(BEAT / 4)
        return None

    def _has(self, key: str, what: str) -> bool:
        try:
            return bool(self._store.check([key]))
        except RuntimeError:
            raise self._lost(what) from None

    def _tell(self, key: str, value: str, what: str) -> None:
        if self.count == 1:
            return
        try:
            self._store.set(key, value)
        except RuntimeError:
            raise self._lost(what) from None

    def _lost(self, what: str) -> AudioProjectionError:
        return AudioProjectionError(f"{self._named(0)}, over which the others meet, has ended, before {what}: {_AGAIN}")

    def _leave(self, reason: str) -> None:
        try:
            self._tell(f"ended {self.index}", reason, "the end")
        except AudioProjectionError as error:
            log.debug("processes: %s", error)

    def _beat(self) -> None:
        count = 0
        while True:
            count += 1
            try:
                self._store.set(f"alive {self.index}", str(count))
            except RuntimeError:
                return  # whoever waits finds the same
            time.sleep(BEAT)


ALONE = Processes()
_running: list[Processes] = []


def current_processes(cpu: bool) -> Processes:
    """The processes that torchrun or Accelerate began, this one among them; the same object at every call.

    `cpu`: the models compute there, and so does what the processes exchange.
    """
    from accelerate import PartialState

    state = PartialState(cpu=cpu)
    if state.num_processes == 1:
        return ALONE
    if not _running:
        from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

        store = PrefixStore("audio-projection", _get_default_store())  # the group's own, for which torch has no name
        _running.append(Processes(state.process_index, state.num_processes, store))
    return _running[0]
