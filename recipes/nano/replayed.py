"""A training's step as a CUDA graph: all its kernels are launched at once, not one after another from Python."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

Found = dict[str, Tensor]


class Replayed:
    """Calls `update(kind, *inputs)` the first times, then replays what it did for inputs of the same kind and shapes.

    What it returns is overwritten by the next call of the same kind.
    """

    WARM_UP = 3
    """Steps with the first inputs of a kind before it is captured: in them libraries choose their ways."""

    def __init__(self, update: Callable[..., Found], forget_gradients: Callable[[], None]) -> None:
        self.update, self.forget_gradients = update, forget_gradients
        self.graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[Tensor], Found]] = {}

    def __call__(self, kind: Hashable, *inputs: Tensor) -> Found:
        if kind not in self.graphs:
            self.graphs[kind] = self.capture(kind, [each.to("cuda") for each in inputs])
        graph, places, found = self.graphs[kind]
        for place, value in zip(places, inputs, strict=True):
            place.copy_(value)
        graph.replay()
        return found

    def capture(
        self, kind: Hashable, places: list[Tensor]
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], dict[str, Tensor]]:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(self.WARM_UP):
                self.forget_gradients()
                self.update(kind, *places)
        torch.cuda.current_stream().wait_stream(aside)
        self.forget_gradients()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = self.update(kind, *places)
        return graph, places, found
