"""Running the halves of a decoding step: directly, or captured once for each shape and replayed as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]


class DirectCalls:
    """Calls each function as it is."""

    def size(self, count: int, slots: int) -> int:
        """How many of `slots` slots are computed when `count` are wanted."""
        return count

    def call(self, key: Hashable, function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function's results."""
        return function(*inputs)

    def clear(self) -> None:
        """Memory that the functions use has moved."""


class GraphReplays:
    """Captures each function as a CUDA graph at its first call with a key, and replays it at all others.

    A replay launches all kernels of a function at once. The function must use the same memory in every call, but for
    its inputs, which are copied; it must not wait for the device. Its results are valid until the next call with the
    key. Counts are rounded up to powers of two, so that there are few graphs.
    """

    WARM_UP = 2  # calls before the capture: libraries allocate their workspaces in them

    def __init__(self) -> None:
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], tuple[Tensor, ...]]] = {}
        self._pool: Any = None  # a handle whose type torch keeps to itself

    def size(self, count: int, slots: int) -> int:
        return min(slots, 1 << (count - 1).bit_length())

    def call(self, key: Hashable, function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
        if key not in self._graphs:
            self._graphs[key] = self._capture(function, inputs)
        graph, copies, results = self._graphs[key]
        for copy, given in zip(copies, inputs, strict=True):
            copy.copy_(given)
        graph.replay()
        return results

    def clear(self) -> None:
        self._graphs.clear()
        self._pool = None

    def _capture(
        self, function: Function, inputs: tuple[Tensor, ...]
    ) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], tuple[Tensor, ...]]:
        copies = tuple(each.clone() for each in inputs)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(self.WARM_UP):
                function(*copies)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # only this thread's calls must be such as can be captured: the LLM's thread goes on meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            results = function(*copies)
        return graph, copies, results
