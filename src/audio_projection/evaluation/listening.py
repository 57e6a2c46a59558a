"""Listening to recordings in several processes, each judgement kept: what was heard once is not heard again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

Judge = Callable[[np.ndarray, int], Any]
"""Judges mono float samples (S,) at a rate in Hz; what it finds can be written as JSON."""


class Listeners:
    """Judges by name, in `jobs` processes of their own, for use in a `with` block: most hold Python's global lock.

    With a file `kept` (JSON lines) judgements outlive the run: one stands for the same judge and the same samples, so
    that a run which was stopped goes on. Like every use of `multiprocessing`, it needs a main module that does nothing
    when imported.
    """

    def __init__(self, judges: Mapping[str, Judge], jobs: int, kept: Path | None = None) -> None:
        self.judges = list(judges)
        """Their names."""
        self._judgements = Judgements(kept)
        self._pool = ProcessPoolExecutor(
            max(1, jobs), get_context("spawn"), initializer=_start_worker, initargs=(dict(judges),)
        )

    def submit(self, judge: str, samples: np.ndarray, rate: int) -> Future[Any]:
        """The future judgement."""
        sound = np.asarray(samples, dtype=np.float32)
        key = f"{judge} {hashlib.sha256(np.int64(rate).tobytes() + sound.tobytes()).hexdigest()}"
        known: Future[Any] = Future()
        if key in self._judgements.found:
            known.set_result(self._judgements.found[key])
            return known
        made = self._pool.submit(_judge, judge, sound, rate)
        made.add_done_callback(lambda done: self._judgements.add(key, done))
        return made

    def __enter__(self) -> Listeners:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


class Judgements:
    """What was found, by judge and recording; with a file, each is a line of it as soon as it is known."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.found: dict[str, Any] = {}
        if path is None or not path.is_file():
            return
        whole = path.read_bytes().rpartition(b"\n")[0]  # a stop may have cut off the last line
        for line in whole.decode("utf-8").splitlines():
            entry = json.loads(line)
            self.found[entry["of"]] = entry["found"]
        path.write_bytes(whole + b"\n" if whole else b"")

    def add(self, key: str, done: Future[Any]) -> None:
        """Keep a judgement, unless it failed or was cancelled."""
        if done.cancelled() or done.exception() is not None:
            return
        self.found[key] = done.result()
        if self._path is not None:
            line = json.dumps({"of": key, "found": done.result()}, ensure_ascii=False)
            with self._path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(line + "\n")


_judges: dict[str, Judge] = {}


def _start_worker(judges: dict[str, Judge]) -> None:
    _judges.update(judges)


def _judge(judge: str, samples: np.ndarray, rate: int) -> Any:
    return _judges[judge](samples, rate)
