"""Hidden states of chosen layers of any transformers decoder, and decoders cut off above the deepest of them.

State k is the RMS-normalised residual stream after layer k, k = 0 being the embeddings; of the last layer it is what
the model's final norm gives, weight included. So every back end can give the same numbers.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from audio_projection.errors import AudioProjectionError

Layers = Literal["last"] | int | Sequence[int]


def resolve_layers(layers: Layers, count: int) -> list[int]:
    """Layer numbers 0..count (0 = embeddings) from "last", one number or several; negative ones count from the last.

    Raises AudioProjectionError for a layer that a model of ``count`` layers does not have.
    """
    if layers == "last":
        return [count]
    asked = [layers] if isinstance(layers, int) else layers
    if isinstance(asked, str) or not asked:
        raise AudioProjectionError(f"llm.layers is {layers!r}; give last, a layer number or a list of numbers")
    numbers = [count + 1 + layer if layer < 0 else layer for layer in asked]
    for layer, number in zip(asked, numbers, strict=True):
        if not 0 <= number <= count:
            raise AudioProjectionError(f"llm.layers: no layer {layer}, the model has 0 (embeddings) to {count} (last)")
    return numbers


def find_blocks(decoder: nn.Module, count: int) -> tuple[nn.Module, str]:
    """The module that owns the list of ``count`` decoder layers, and the list's name in it."""
    for module in decoder.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return module, name
    raise AudioProjectionError(f"no list of {count} layers found in a {type(decoder).__name__}; choose another LLM")


def cut_off(decoder: nn.Module, deepest: int) -> nn.Module:
    """A decoder that shares the weights and computes only layers 1..deepest; the whole one where it cannot be cut."""
    deepest = max(deepest, 1)  # the embeddings are seen at the door of the first layer
    config: Any = decoder.config
    count: int = config.num_hidden_layers
    owner, name = find_blocks(decoder, count)
    if deepest >= count or owner is not decoder:
        return decoder
    cut = copy.copy(decoder)
    cut._modules = dict(decoder._modules)
    cut.config = copy.copy(config)
    cut.config.num_hidden_layers = deepest  # type: ignore[union-attr]
    setattr(cut, name, nn.ModuleList(getattr(decoder, name)[:deepest]))
    return cut


class LayerTap:
    """Collects the states of chosen layers while a decoder runs, for each thread those of its own passes.

    ``with tap.listening() as heard: decoder(...)``, then ``heard.states()``. ``last`` is the number of the whole
    model's last layer, also when the decoder is cut off below it.
    """

    def __init__(self, decoder: nn.Module, layers: Sequence[int], last: int) -> None:
        config: Any = decoder.config
        self.layers = list(layers)
        self._last = last
        self._decoder = decoder
        owner, name = find_blocks(decoder, config.num_hidden_layers)
        self._blocks: nn.ModuleList = getattr(owner, name)
        self._epsilon = float(getattr(config, "rms_norm_eps", None) or 1e-6)

    @contextmanager
    def listening(self) -> Iterator[CapturedStates]:
        """Forward passes of the decoder inside leave their layers' outputs in what is given."""
        heard = CapturedStates(self.layers, self._last, self._epsilon)
        with ExitStack() as hooks:
            for layer in set(self.layers):
                hooks.callback(self._attach(layer, heard).remove)
            yield heard

    def _attach(self, layer: int, heard: CapturedStates) -> Any:
        if layer == self._last:
            return self._decoder.register_forward_hook(heard.keep_output(layer))
        if layer == 0:
            return self._blocks[0].register_forward_pre_hook(heard.keep_input, with_kwargs=True)
        return self._blocks[layer - 1].register_forward_hook(heard.keep_output(layer))


class CapturedStates:
    """What layers gave in the passes of the thread that made this; the newest replaces the older.

    Hooks belong to the modules, so another thread's pass calls them too.
    """

    def __init__(self, layers: Sequence[int], last: int, epsilon: float) -> None:
        self._layers, self._last, self._epsilon = layers, last, epsilon
        self._thread = threading.get_ident()
        self._seen: dict[int, Tensor] = {}

    def states(self) -> Tensor:
        """States (B, S, L, D), float32, of the last forward pass, in the order of the layers."""
        return torch.stack([self._normalised(layer) for layer in self._layers], dim=2)

    def keep_output(self, layer: int) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self._keep(layer, output if isinstance(output, Tensor) else output[0])

        return keep

    def keep_input(self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._keep(0, inputs[0] if inputs else options["hidden_states"])

    def _keep(self, layer: int, values: Tensor) -> None:
        if threading.get_ident() == self._thread:
            self._seen[layer] = values

    def _normalised(self, layer: int) -> Tensor:
        x = self._seen[layer].float()
        if layer == self._last:
            return x
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self._epsilon)
