"""One position at a time through a `Transformer`: the decode loop's inner step, lean because it runs 16 times a frame.

Reads the very parameters of the modules (nothing but the small query and key norms is copied, so weights may change
between decodings) but calls no modules: at one position the work is tiny, and every call that is spared counts.
Queries of one key's group go through attention as its query places, so no key is repeated.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_projection.tts.config import TransformerConfig
from audio_projection.tts.layers import Block, KVCache, RMSNorm, Rotary, rotate

_SMALL = 64
"""Views of a cache of so few positions are kept: the predictor goes through the same ones in every frame."""


class Steps(Protocol):
    """A decoder stack that reads a batch of utterances, position after position."""

    def prefill(self, embeds: Tensor, starts: Tensor | None) -> object:
        """Reads embeds (B, S, hidden) first; rows are padded on the left up to `starts` (B,), None where none is."""

    def step(self, x: Tensor) -> Tensor:
        """x (B, hidden) at the next position, to the hidden state (B, hidden) after the final norm."""

    def restart(self) -> None:
        """Forgets everything read."""


class DecoderStack(Protocol):
    """What a `Stepper` reads of a `Transformer`."""

    config: TransformerConfig
    layers: nn.ModuleList
    norm: RMSNorm
    rotary: Rotary

    def prefill(self, embeds: Tensor, cache: KVCache) -> Tensor:
        """Fills the empty cache; hidden states (B, S, hidden)."""


class Stepper:
    """Continues `cache` by one position a call. Not differentiable; run it under `torch.inference_mode`."""

    def __init__(self, transformer: DecoderStack, cache: KVCache) -> None:
        self.cache, self._transformer = cache, transformer
        config = transformer.config
        self.kv_heads, self.head_dim = config.num_kv_heads, config.head_dim
        self.windows = config.windows
        self.rotary = transformer.rotary
        self.blocks = [_BlockWeights(block) for block in transformer.layers]  # type: ignore[arg-type]
        self.norm = _norm(transformer.norm)
        self._known: dict[int, _Place] = {}

    def prefill(self, embeds: Tensor, starts: Tensor | None) -> Tensor:
        """Fills the empty cache; see `Steps`."""
        self.cache.pad_left(starts)
        return self._transformer.prefill(embeds, self.cache)

    def restart(self) -> None:
        self.cache.length = 0

    def step(self, x: Tensor) -> Tensor:
        """x (B, hidden) at position `cache.length`, to the hidden state (B, hidden) after the final norm."""
        place = self._place(self.cache.length)
        for block, slots in zip(self.blocks, place.layers, strict=True):
            x = self._attend(x, block, slots, place)
            gate, up = torch.mm(block.mlp_norm(x), block.gate_up).chunk(2, -1)
            x = torch.addmm(x, block.act(gate).mul_(up), block.down)
        self.cache.length += 1
        return self.norm(x)

    def _attend(self, x: Tensor, block: _BlockWeights, slots: _Slots, place: _Place) -> Tensor:
        normed, batch = block.attention_norm(x), x.shape[0]
        fused = (
            torch.mm(normed, block.qkv) if block.qkv_bias is None else torch.addmm(block.qkv_bias, normed, block.qkv)
        )
        query_key, value = fused.view(batch, -1, self.head_dim).split_with_sizes(block.split, 1)
        query, key = rotate(block.qk_norm(query_key), place.cos, place.sin).split_with_sizes(block.turned, 1)
        slots.key.copy_(key)
        slots.value.copy_(value)
        query = query.view(batch, self.kv_heads, -1, self.head_dim)
        mixed = functional.scaled_dot_product_attention(query, slots.keys, slots.values, attn_mask=slots.mask)
        if block.output_bias is not None:
            x = x + block.output_bias
        return torch.addmm(x, mixed.reshape(batch, -1), block.output)

    def _place(self, place: int) -> _Place:
        """Where the position's keys and values go and which ones it sees."""
        if place in self._known:
            return self._known[place]
        if self.cache.reserve(place + 1):
            self._known.clear()
        cos, sin = self.rotary.table(self.cache.capacity, self.cache.store.device)
        if self.cache.starts is None:
            found = _Place(cos[place], sin[place], [self._slots(layer, place) for layer in range(len(self.blocks))])
        else:
            own = place - self.cache.starts
            slots = [self._slots(layer, place) for layer in range(len(self.blocks))]
            found = _Place(cos[own][:, None], sin[own][:, None], slots)
        if self.cache.capacity <= _SMALL:
            self._known[place] = found
        return found

    def _slots(self, layer: int, place: int) -> _Slots:
        keys, values = self.cache.store[layer].unbind()
        first = max(0, place + 1 - (self.windows[layer] or place + 1))
        size, mask = place + 1 - first, self.cache.mask
        return _Slots(
            keys.select(2, place),
            values.select(2, place),
            keys.narrow(2, first, size),
            values.narrow(2, first, size),
            None if mask is None else mask.narrow(3, first, size),
        )


class _Slots(NamedTuple):
    """One layer's views of the cache at a position: where to write (B, kv heads, head_dim), what is seen."""

    key: Tensor
    value: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor | None


class _Place(NamedTuple):
    cos: Tensor
    sin: Tensor
    layers: list[_Slots]


class _BlockWeights:
    """The parameters of one block as plain attributes: reading them through modules costs a look-up each."""

    def __init__(self, block: Block) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.attention_norm, self.mlp_norm = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        self.qk_norm = _stacked_norm(attention.q_norm, attention.heads, attention.k_norm, attention.kv_heads)
        self.turned = (attention.heads, attention.kv_heads)
        self.split = (attention.heads + attention.kv_heads, attention.kv_heads)
        self.qkv, self.qkv_bias = attention.qkv_proj.weight.t(), attention.qkv_proj.bias
        self.output, self.output_bias = attention.o_proj.weight.t(), attention.o_proj.bias
        self.gate_up, self.down = mlp.gate_up_proj.weight.t(), mlp.down_proj.weight.t()
        self.act = mlp.act


class _FusedNorm:
    """RMS norm by the library's function: one kernel on a GPU, and exact in half precision."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight, self.eps = weight, eps

    def __call__(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], None, self.eps) * self.weight


class _PlainNorm:
    """The same in float32 on a CPU, where the library's function is made of twice as many operations.

    x / sqrt(|x|^2 / n + eps) = sqrt(n) x / hypot(|x|, sqrt(n eps)).
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        size = weight.shape[-1]
        self.weight = weight * math.sqrt(size)
        self.least = torch.tensor(math.sqrt(size * eps))

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * self.weight).div_(torch.hypot(length, self.least))


def _norm(norm: RMSNorm) -> _FusedNorm | _PlainNorm:
    return _norm_of(norm.weight.detach(), norm.eps)


def _stacked_norm(queries: RMSNorm, heads: int, keys: RMSNorm, kv_heads: int) -> _FusedNorm | _PlainNorm:
    """One norm over queries and keys (B, heads + kv heads, head_dim), each head with its own weights."""
    rows = (queries.weight.detach().expand(heads, -1), keys.weight.detach().expand(kv_heads, -1))
    return _norm_of(torch.cat(rows), queries.eps)


def _norm_of(weight: Tensor, eps: float) -> _FusedNorm | _PlainNorm:
    plain = weight.dtype == torch.float32 and weight.device.type == "cpu"
    return _PlainNorm(weight, eps) if plain else _FusedNorm(weight, eps)
