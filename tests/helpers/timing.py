"""Seconds of work, measured so that a busy machine matters little."""

from __future__ import annotations

import time
from collections.abc import Callable


def least_seconds(work: Callable[[], object]) -> float:
    """Seconds of the process, the least of five: the machine may be busy."""
    times = []
    for _ in range(5):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)
