"""Incremental decoding with a key-value cache: one position of each sequence at a time through a `Transformer`.

`SlotStepper` decodes sequences that have slots of their own and any lengths (the talker), `FrameStepper` sequences that
begin together and are short (the code predictor's frames). Shapes are static: a step reads the first positions of every
slot, as many as the longest sequence's bucket has, and masks those that a sequence has not reached.

This inner step runs 16 times a frame, so it is written for low overhead: it reads the parameters of the modules (only
the small query and key norms are copied, so weights may change between decodings) but calls no modules, because at one
position the arithmetic is tiny and every call counts. In grouped-query attention the queries that share a key are laid
out as query positions of that key's head, so that no key is repeated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_projection.tts.config import TransformerConfig
from audio_projection.tts.layers import Block, CachedSequence, KVCache, RMSNorm, Rotary, rotate


class SlotDecoder(Protocol):
    """A decoder stack with a key-value cache of one sequence a slot; `SlotStepper` is torch's."""

    def prefill(self, slot: int, embeds: Tensor) -> object:
        """Reads embeds (S, hidden) after what the slot's sequence has; slots are made as they are needed."""

    def prepare(self, count: int) -> object:
        """Must be called before each step of slots 0 to `count` - 1: makes room, and says what shapes depend on."""

    def step(self, x: Tensor) -> Tensor:
        """Embeddings (B, hidden) of the next positions of the first B slots -> hidden states (B, hidden) after the
        final norm. Runs on the device alone; `advance` counts the positions."""

    def advance(self, count: int) -> None:
        """The first `count` sequences have become one position longer."""

    def swap(self, first: int, second: int) -> None:
        """Exchanges the sequences of two slots."""

    def clear(self, slot: int) -> None:
        """Empties a slot, and makes it where there was none."""


class FrameDecoder(Protocol):
    """A decoder stack whose sequences begin and end together; `FrameStepper` is torch's."""

    def restart(self, count: int) -> None:
        """Empties the cache, for `count` sequences."""

    def step(self, x: Tensor) -> Tensor:
        """Embeddings (B, hidden) of the next position -> hidden states (B, hidden) after the final norm."""


class DecoderStack(Protocol):
    """What the steppers read of a `Transformer`."""

    config: TransformerConfig
    layers: nn.ModuleList
    norm: RMSNorm
    rotary: Rotary

    def prefill(self, embeds: Tensor, past: CachedSequence) -> Tensor:
        """Extends a cached sequence by embeds (1, S, hidden); hidden states (1, S, hidden)."""


def bucket(length: int) -> int:
    """The number of positions that are read for sequences of at most `length`: 64, 128, 192, 256, 384, 512, 768 ...

    At most half as many again as there are beyond 128, so that there are few shapes and little is read in vain.
    """
    step = max(64, (1 << (length - 1).bit_length()) // 4)
    return -(-length // step) * step


class SlotStepper:
    """Incremental decoding in torch of sequences in slots; see `SlotDecoder`.

    Not differentiable; run it under `torch.inference_mode`.
    """

    def __init__(self, transformer: DecoderStack, cache: KVCache) -> None:
        self.cache, self._transformer = cache, transformer
        self.layers = _Layers(transformer)
        self.positions = [0] * cache.slots
        """The length of each slot's sequence."""
        self._masked_windows = sorted({window or 0 for window in transformer.config.windows})
        self._bucket = 0
        self._moved()

    def prefill(self, slot: int, embeds: Tensor) -> Tensor:
        """Hidden states (S, hidden) of embeds (S, hidden) that follow the slot's sequence."""
        self._reserve(slot + 1, 1)
        start = self.positions[slot]
        self._reserve(slot + 1, start + len(embeds))
        hidden = self._transformer.prefill(embeds[None], CachedSequence(self.cache, slot, start))
        self.positions[slot] += len(embeds)
        return hidden[0]

    def prepare(self, count: int) -> tuple[int, int]:
        """(slots, positions) that the next step reads; they and the cache's size are all that its shapes depend on."""
        longest = max(self.positions[:count], default=0) + 1
        self._reserve(count, longest)
        self._bucket = min(bucket(longest), self.cache.capacity)
        self._places[:count].copy_(torch.tensor(self.positions[:count]), non_blocking=True)
        return count, self._bucket

    def step(self, x: Tensor) -> Tensor:
        count, size = len(x), self._bucket
        places = self._places[:count]
        index = self._first_rows[:count] + places[:, None]
        seen = self._counting[:size] <= places[:, None]
        masks = {}
        for window in self._masked_windows:
            visible = seen & (self._counting[:size] > places[:, None] - window) if window else seen
            masks[window] = torch.where(visible, self._zero, self._minus_infinity)[:, None, None]
        views = self._views(count, size)
        layers = [
            _CacheViews(*each, masks[window or 0])
            for each, window in zip(views, self._transformer.config.windows, strict=True)
        ]
        cos, sin = self._cos[places][:, None], self._sin[places][:, None]
        return self.layers.run(x, _Position(cos, sin, index.view(-1), layers))

    def advance(self, count: int) -> None:
        for slot in range(count):
            self.positions[slot] += 1

    def swap(self, first: int, second: int) -> None:
        positions = self.positions
        self.cache.swap(first, second, max(positions[first], positions[second]))
        positions[first], positions[second] = positions[second], positions[first]

    def clear(self, slot: int) -> None:
        self._reserve(slot + 1, 1)
        self.positions[slot] = 0

    def _reserve(self, slots: int, length: int) -> None:
        if self.cache.reserve(slots, bucket(length)):
            self.positions += [0] * (self.cache.slots - len(self.positions))
            self._moved()

    def _moved(self) -> None:
        """Makes anew what depends on the cache's memory and size."""
        store = self.cache.store
        _, _, slots, heads, capacity, _ = store.shape
        device = store.device
        self._known: dict[tuple[int, int], list[tuple[Tensor, Tensor, Tensor, Tensor]]] = {}
        self._places = torch.zeros(slots, dtype=torch.int64, device=device)
        self._counting = torch.arange(capacity, device=device)
        self._first_rows = torch.arange(slots * heads, device=device).view(slots, heads) * capacity
        self._zero, self._minus_infinity = store.new_zeros(()), store.new_full((), -torch.inf)
        self._cos, self._sin = self._transformer.rotary.table(capacity, device)

    def _views(self, count: int, size: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For each layer: keys and values as rows (slots * kv heads * capacity, head_dim), to write one, and those
        (B, kv heads, size, head_dim) that are read."""
        if (count, size) not in self._known:
            width = self.cache.store.shape[-1]
            self._known[count, size] = [
                (keys.view(-1, width), values.view(-1, width), keys[:count, :, :size], values[:count, :, :size])
                for keys, values in self.cache.store
            ]
        return self._known[count, size]


class FrameStepper:
    """Incremental decoding in torch of sequences that all are at the same position; see `FrameDecoder`.

    Not differentiable; run it under `torch.inference_mode`.
    """

    def __init__(self, transformer: DecoderStack, cache: KVCache) -> None:
        self.cache, self.layers = cache, _Layers(transformer)
        self._windows = transformer.config.windows
        self._cos, self._sin = transformer.rotary.table(cache.capacity, cache.store.device)
        self._known: dict[tuple[int, int], _Position] = {}
        self.length = 0

    def restart(self, count: int) -> None:
        self.length = 0
        if self.cache.reserve(count, self.cache.capacity):
            self._known.clear()

    def step(self, x: Tensor) -> Tensor:
        place = (len(x), self.length)
        if place not in self._known:
            self._known[place] = self._position(*place)
        self.length += 1
        return self.layers.run(x, self._known[place])

    def _position(self, count: int, index: int) -> _Position:
        layers = []
        for (keys, values), window in zip(self.cache.store[:, :, :count], self._windows, strict=True):
            first = max(0, index + 1 - (window or index + 1))
            seen = slice(first, index + 1)
            layers.append(
                _CacheViews(keys[:, :, index], values[:, :, index], keys[:, :, seen], values[:, :, seen], None)
            )
        return _Position(self._cos[index], self._sin[index], None, layers)


class _CacheViews(NamedTuple):
    """One layer's views of the cache: where key and value are written, the keys and values (B, kv heads, T, head_dim)
    that the position attends to, and the mask (B, 1, 1, T) that is added to its scores."""

    key: Tensor
    value: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor | None


class _Position(NamedTuple):
    """Rotary cosines and sines of the positions, and each layer's views of the cache.

    `rows` (B * kv heads,): the rows of `key` and `value` to write; None where they are (B, kv heads, head_dim).
    """

    cos: Tensor
    sin: Tensor
    rows: Tensor | None
    layers: Sequence[_CacheViews]


class _Layers:
    """The layers of a decoder stack for one position of each sequence."""

    def __init__(self, transformer: DecoderStack) -> None:
        config = transformer.config
        self.kv_heads, self.head_dim = config.num_kv_heads, config.head_dim
        self.blocks = [_BlockWeights(block) for block in transformer.layers]  # type: ignore[arg-type]
        self.norm = _norm(transformer.norm)

    def run(self, x: Tensor, position: _Position) -> Tensor:
        """Embeddings (B, hidden) -> hidden states (B, hidden) after the final norm; keys and values are stored."""
        for block, views in zip(self.blocks, position.layers, strict=True):
            x = self._attend(x, block, views, position)
            gate, up = torch.mm(block.mlp_norm(x), block.gate_up).chunk(2, -1)
            x = torch.addmm(x, block.act(gate).mul_(up), block.down)
        return self.norm(x)

    def _attend(self, x: Tensor, block: _BlockWeights, views: _CacheViews, position: _Position) -> Tensor:
        normed, batch = block.attention_norm(x), x.shape[0]
        fused = (
            torch.mm(normed, block.qkv) if block.qkv_bias is None else torch.addmm(block.qkv_bias, normed, block.qkv)
        )
        query_key, value = fused.view(batch, -1, self.head_dim).split_with_sizes(block.query_key_value, 1)
        query_key = rotate(block.qk_norm(query_key), position.cos, position.sin)
        query, key = query_key.split_with_sizes(block.query_key, 1)
        if position.rows is None:
            views.key.copy_(key)
            views.value.copy_(value)
        else:
            views.key.index_copy_(0, position.rows, key.reshape(-1, self.head_dim))
            views.value.index_copy_(0, position.rows, value.reshape(-1, self.head_dim))
        query = query.view(batch, self.kv_heads, -1, self.head_dim)
        mixed = functional.scaled_dot_product_attention(query, views.keys, views.values, attn_mask=views.mask)
        if block.output_bias is not None:
            x = x + block.output_bias
        return torch.addmm(x, mixed.reshape(batch, -1), block.output)


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
