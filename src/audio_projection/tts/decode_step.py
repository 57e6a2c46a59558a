"""Incremental decoding with a key-value cache: one position at a time through a `Transformer`.

This inner step runs 16 times a frame, so it is written for low overhead: it reads the parameters of the modules (only
the small query and key norms are copied, so weights may change between decodings) but calls no modules, because at one
position the arithmetic is tiny and every call counts. In grouped-query attention the queries that share a key are laid
out as query positions of that key's head, so that no key is repeated.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_projection.tts.config import TransformerConfig
from audio_projection.tts.layers import Block, KVCache, RMSNorm, Rotary, rotate

_REUSED_CAPACITY = 64
"""The views of a cache of at most so many positions are kept: the code predictor needs the same ones every frame."""


class IncrementalDecoder(Protocol):
    """A decoder stack with a key-value cache that reads a batch of sequences: a prefill, then position by position."""

    def prefill(self, embeds: Tensor, starts: Tensor | None) -> object:
        """Reads embeds (B, S, hidden) into the empty cache.

        Sequence b is padded on the left before `starts[b]`; None where none is padded.
        """

    def step(self, x: Tensor) -> Tensor:
        """Embeddings (B, hidden) of the next position -> hidden states (B, hidden) after the final norm."""

    def restart(self) -> None:
        """Empties the cache."""


class DecoderStack(Protocol):
    """What a `Stepper` reads of a `Transformer`."""

    config: TransformerConfig
    layers: nn.ModuleList
    norm: RMSNorm
    rotary: Rotary

    def prefill(self, embeds: Tensor, cache: KVCache) -> Tensor:
        """Fills the empty cache with embeds (B, S, hidden); hidden states (B, S, hidden)."""


class Stepper:
    """Incremental decoding in torch: each step extends `cache` by one position.

    Not differentiable; run it under `torch.inference_mode`.
    """

    def __init__(self, transformer: DecoderStack, cache: KVCache) -> None:
        self.cache, self._transformer = cache, transformer
        config = transformer.config
        self.kv_heads, self.head_dim = config.num_kv_heads, config.head_dim
        self.windows = config.windows
        self.rotary = transformer.rotary
        self.blocks = [_BlockWeights(block) for block in transformer.layers]  # type: ignore[arg-type]
        self.norm = _norm(transformer.norm)
        self._known: dict[int, _Position] = {}

    def prefill(self, embeds: Tensor, starts: Tensor | None) -> Tensor:
        """Fills the empty cache; see `IncrementalDecoder`."""
        self.cache.pad_left(starts)
        return self._transformer.prefill(embeds, self.cache)

    def restart(self) -> None:
        self.cache.length = 0

    def step(self, x: Tensor) -> Tensor:
        """Embeddings (B, hidden) at position `cache.length` -> hidden states (B, hidden) after the final norm."""
        position = self._position(self.cache.length)
        for block, views in zip(self.blocks, position.layers, strict=True):
            x = self._attend(x, block, views, position)
            gate, up = torch.mm(block.mlp_norm(x), block.gate_up).chunk(2, -1)
            x = torch.addmm(x, block.act(gate).mul_(up), block.down)
        self.cache.length += 1
        return self.norm(x)

    def _attend(self, x: Tensor, block: _BlockWeights, views: _CacheViews, position: _Position) -> Tensor:
        normed, batch = block.attention_norm(x), x.shape[0]
        fused = (
            torch.mm(normed, block.qkv) if block.qkv_bias is None else torch.addmm(block.qkv_bias, normed, block.qkv)
        )
        query_key, value = fused.view(batch, -1, self.head_dim).split_with_sizes(block.query_key_value, 1)
        query_key = rotate(block.qk_norm(query_key), position.cos, position.sin)
        query, key = query_key.split_with_sizes(block.query_key, 1)
        views.key.copy_(key)
        views.value.copy_(value)
        query = query.view(batch, self.kv_heads, -1, self.head_dim)
        mixed = functional.scaled_dot_product_attention(query, views.keys, views.values, attn_mask=views.mask)
        if block.output_bias is not None:
            x = x + block.output_bias
        return torch.addmm(x, mixed.reshape(batch, -1), block.output)

    def _position(self, index: int) -> _Position:
        """What the step at position `index` needs of rotary tables and cache."""
        if index in self._known:
            return self._known[index]
        if self.cache.reserve(index + 1):
            self._known.clear()
        cos, sin = self.rotary.table(self.cache.capacity, self.cache.store.device)
        views = [self._views(layer, index) for layer in range(len(self.blocks))]
        if self.cache.starts is None:
            position = _Position(cos[index], sin[index], views)
        else:
            own = index - self.cache.starts
            position = _Position(cos[own][:, None], sin[own][:, None], views)
        if self.cache.capacity <= _REUSED_CAPACITY:
            self._known[index] = position
        return position

    def _views(self, layer: int, index: int) -> _CacheViews:
        keys, values = self.cache.store[layer].unbind()
        first = max(0, index + 1 - (self.windows[layer] or index + 1))
        size, mask = index + 1 - first, self.cache.mask
        return _CacheViews(
            keys.select(2, index),
            values.select(2, index),
            keys.narrow(2, first, size),
            values.narrow(2, first, size),
            None if mask is None else mask.narrow(3, first, size),
        )


class _CacheViews(NamedTuple):
    """One layer's views of the cache at a position: key and value (B, kv heads, head_dim) to write there, and the
    keys and values that the position attends to."""

    key: Tensor
    value: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor | None


class _Position(NamedTuple):
    """Rotary cosines and sines of a position and each layer's views of the cache there."""

    cos: Tensor
    sin: Tensor
    layers: list[_CacheViews]


class _BlockWeights:
    """The parameters of one block as plain attributes: each look-up through a module takes time."""

    def __init__(self, block: Block) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.attention_norm, self.mlp_norm = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        self.qk_norm = _stacked_norm(attention.q_norm, attention.heads, attention.k_norm, attention.kv_heads)
        self.query_key = (attention.heads, attention.kv_heads)
        self.query_key_value = (attention.heads + attention.kv_heads, attention.kv_heads)
        self.qkv, self.qkv_bias = attention.qkv_proj.weight.t(), attention.qkv_proj.bias
        self.output, self.output_bias = attention.o_proj.weight.t(), attention.o_proj.bias
        self.gate_up, self.down = mlp.gate_up_proj.weight.t(), mlp.down_proj.weight.t()
        self.act = mlp.act


class _FusedNorm:
    """RMS norm by torch's function: one kernel on a GPU, computed in float32 for half precision."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight, self.eps = weight, eps

    def __call__(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], None, self.eps) * self.weight


class _PlainNorm:
    """RMS norm in float32 on a CPU, where torch's function is made of twice as many operations.

    x / sqrt(|x|^2 / n + eps) = sqrt(n) x / hypot(|x|, sqrt(n eps)).
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        size = weight.shape[-1]
        self.weight = weight * math.sqrt(size)
        self.floor = torch.tensor(math.sqrt(size * eps))

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * self.weight).div_(torch.hypot(length, self.floor))


def _norm(norm: RMSNorm) -> _FusedNorm | _PlainNorm:
    return _norm_of(norm.weight.detach(), norm.eps)


def _stacked_norm(queries: RMSNorm, heads: int, keys: RMSNorm, kv_heads: int) -> _FusedNorm | _PlainNorm:
    """One norm over queries and keys (B, heads + kv heads, head_dim), each head with its own weights."""
    weights = (queries.weight.detach().expand(heads, -1), keys.weight.detach().expand(kv_heads, -1))
    return _norm_of(torch.cat(weights), queries.eps)


def _norm_of(weight: Tensor, eps: float) -> _FusedNorm | _PlainNorm:
    plain = weight.dtype == torch.float32 and weight.device.type == "cpu"
    return _PlainNorm(weight, eps) if plain else _FusedNorm(weight, eps)
