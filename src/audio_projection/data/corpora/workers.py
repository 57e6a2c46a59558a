"""Process pool for shards: each worker loads its models once, and ends when the parent process dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from audio_projection.errors import AudioProjectionError
from audio_projection.files.interruption import Interrupted, StopRequest, stop_requested

INTERRUPTED = "interrupted; what is finished is kept: run the same command again, it goes on where it stopped"
Task = TypeVar("Task")
Result = TypeVar("Result")
Make = Callable[[int], Callable[[Task], Result]]
"""Takes the number of a worker process, loads what its tasks need and returns the function that does one task."""


def run_shards(make: Make[Task, Result], tasks: Sequence[Task], processes: int) -> Iterator[Result]:
    """Yields `make(number)(task)` for every task as they finish; with one process everything runs in this one.

    Raises what a task raises; the workers then end at once, as they do when this process is killed. Ctrl-C lets the
    tasks that are begun end, and raises Interrupted if others are left.
    """
    processes = min(processes, len(tasks))
    if processes <= 1:
        with stop_requested("this shard") as stop:
            work = make(0) if tasks else None
            for task in tasks:
                if stop.is_set():
                    raise Interrupted(INTERRUPTED)
                assert work is not None
                yield work(task)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that torch's threads hold
    numbers = context.Queue()
    for number in range(processes):
        numbers.put(number)
    lifeline, held = context.Pipe(duplex=False)
    with ProcessPoolExecutor(processes, context, _begin, (make, numbers, lifeline)) as pool:
        try:
            with stop_requested("the shards that are begun") as stop:
                yield from _results([pool.submit(_work, task) for task in tasks], stop)
        except BrokenProcessPool:
            held.close()
            raise AudioProjectionError(
                "a worker process died, perhaps for lack of memory; run the command again with fewer --processes: it "
                "goes on where it stopped"
            ) from None
        except BaseException:
            held.close()
            raise


def _results(futures: Sequence[Future[Any]], stop: StopRequest) -> Iterator[Any]:
    """Results as they come; after a request to stop only those of tasks that had begun, then raises Interrupted."""
    left_out = False
    for future in as_completed(futures):
        if stop.is_set():
            cancelled = [each.cancel() for each in futures if not each.done()]
            left_out = left_out or any(cancelled)
        if not future.cancelled():
            yield future.result()
    if left_out:
        raise Interrupted(INTERRUPTED)


_worker: dict[str, Any] = {}
"""State of a worker process: its number, `make`, and the function that `make` returned, once it was called."""


def _begin(make: Make[Any, Any], numbers: Any, lifeline: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent process reports and ends the workers
    _worker.update(make=make, number=numbers.get())
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()


def _work(task: Any) -> Any:
    if "work" not in _worker:
        _worker["work"] = _worker["make"](_worker["number"])
    return _worker["work"](task)


def _end_with_parent(lifeline: Connection) -> None:
    """Exits when the parent closes its end of the pipe, which the system does for a killed one."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)
