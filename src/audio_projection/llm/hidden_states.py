"""Hidden states of chosen decoder layers of any transformers causal LM, and decoders truncated above the deepest one.

State k is the RMS-normalised residual stream after layer k; k = 0 is the input embeddings. The state of the last layer
is the output of the model's final norm, its weight included. Every back end can compute the same numbers.
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

Layers = Literal["last"] | int | Sequence[int | Literal["last"]]


def resolve_layers(layers: Layers, count: int) -> list[int]:
    """Layer numbers 0..count (0 = embeddings) from "last", one number or several; negative ones count from the last.

    Raises AudioProjectionError for a layer that a model of ``count`` layers does not have.
    """
    asked = [layers] if isinstance(layers, int) or layers == "last" else layers
    if isinstance(asked, str) or not asked:
        raise AudioProjectionError(f"llm.layers is {layers!r}; give last, a layer number or a list of numbers")
    named: list[int] = [count if layer == "last" else layer for layer in asked]
    numbers = [count + 1 + layer if layer < 0 else layer for layer in named]
    for layer, number in zip(asked, numbers, strict=True):
        if not 0 <= number <= count:
            raise AudioProjectionError(f"llm.layers: no layer {layer}, the model has 0 (embeddings) to {count} (last)")
    return numbers


def layers_to_probe(asked: Sequence[int], count: int) -> list[int]:
    """Those of the layers ``asked`` that a model of ``count`` layers has, as numbers 0..count, shallow to deep.

    Raises AudioProjectionError where it has none of them.
    """
    there = [layer for layer in asked if -count - 1 <= layer <= count]
    if not there:
        listed = ", ".join(map(str, asked))
        raise AudioProjectionError(f"fit.probe_layers: the model has layers 1 to {count} and none of {listed}")
    return sorted(set(resolve_layers(there, count)))


def find_decoder_layers(decoder: nn.Module, count: int) -> tuple[nn.Module, str]:
    """The module that owns the list of ``count`` decoder layers, and the list's attribute name in it.

    Raises AudioProjectionError where there is no such list.
    """
    for module in decoder.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return module, name
    raise AudioProjectionError(f"no list of {count} layers found in a {type(decoder).__name__}; choose another LLM")


def truncate_decoder(decoder: nn.Module, deepest: int) -> nn.Module:
    """A decoder that shares the weights and computes layers 1..deepest only, to read states with less computation.

    The decoder itself where all layers are needed, or where it doesn't hold the list of its layers directly.
    """
    deepest = max(deepest, 1)  # the embeddings are captured at the input of the first layer
    config: Any = decoder.config
    count: int = config.num_hidden_layers
    owner, name = find_decoder_layers(decoder, count)
    if deepest >= count or owner is not decoder:
        return decoder
    truncated = copy.copy(decoder)
    truncated._modules = dict(decoder._modules)
    truncated.config = copy.copy(config)
    truncated.config.num_hidden_layers = deepest  # type: ignore[union-attr]
    setattr(truncated, name, nn.ModuleList(getattr(decoder, name)[:deepest]))
    return truncated


class LayerTap:
    """Captures the hidden states of chosen layers during a decoder's forward passes, by forward hooks.

    ``with tap.capture() as captured: decoder(...)``, then ``captured.states()``. Each thread captures its own passes
    only. ``last`` is the number of the whole model's last layer, also for a truncated decoder.
    """

    def __init__(self, decoder: nn.Module, layers: Sequence[int], last: int) -> None:
        config: Any = decoder.config
        self.layers = list(layers)
        self._last = last
        self._decoder = decoder
        owner, name = find_decoder_layers(decoder, config.num_hidden_layers)
        self._blocks: nn.ModuleList = getattr(owner, name)
        self._epsilon = float(getattr(config, "rms_norm_eps", None) or 1e-6)

    @contextmanager
    def capture(self) -> Iterator[CapturedStates]:
        """Hooks the layers: forward passes inside the block store their outputs in the CapturedStates yielded."""
        captured = CapturedStates(self.layers, self._last, self._epsilon)
        with ExitStack() as hooks:
            for layer in set(self.layers):
                hooks.callback(self._attach(layer, captured).remove)
            yield captured

    def _attach(self, layer: int, captured: CapturedStates) -> Any:
        if layer == self._last:
            return self._decoder.register_forward_hook(captured.keep_output(layer))
        if layer == 0:
            return self._blocks[0].register_forward_pre_hook(captured.keep_input, with_kwargs=True)
        return self._blocks[layer - 1].register_forward_hook(captured.keep_output(layer))


class CapturedStates:
    """Layer outputs of the latest forward pass, of the thread that made this object.

    Hooks belong to the modules, so the passes of other threads call them too; those are ignored.
    """

    def __init__(self, layers: Sequence[int], last: int, epsilon: float) -> None:
        self._layers, self._last, self._epsilon = layers, last, epsilon
        self._thread = threading.get_ident()
        self._outputs: dict[int, Tensor] = {}

    def states(self) -> Tensor:
        """States (B, S, L, D), float32, of the last forward pass, in the order of the layers."""
        return torch.stack([self._normalised(layer) for layer in self._layers], dim=2)

    def keep_output(self, layer: int) -> Any:
        """A forward hook that stores the module's output as that of ``layer``."""

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self._keep(layer, output if isinstance(output, Tensor) else output[0])

        return keep

    def keep_input(self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        """A forward pre-hook that stores the first layer's input: the embeddings, layer 0."""
        self._keep(0, inputs[0] if inputs else options["hidden_states"])

    def _keep(self, layer: int, values: Tensor) -> None:
        if threading.get_ident() == self._thread:
            self._outputs[layer] = values

    def _normalised(self, layer: int) -> Tensor:
        x = self._outputs[layer].float()
        if layer == self._last:
            return x
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self._epsilon)
