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
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_projection.tts.config import TransformerConfig
from audio_projection.tts.layers import Block, CachedSequences, KVCache, RMSNorm, Rotary, rotate


class SlotDecoder(Protocol):
    """A decoder stack with a key-value cache of one sequence a slot; `SlotStepper` is torch's."""

    def prefill(self, slot: int, embeds: Sequence[Tensor]) -> object:
        """Reads embeds[b] (S, hidden) after the sequence of slot + b; these sequences are all equally long."""

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

    def begin(self, first: Tensor, second: Tensor) -> Tensor:
        """Begins new sequences with the embeddings (B, hidden) of two positions; the hidden states (B, hidden) of the
        second one."""

    def step(self, x: Tensor) -> Tensor:
        """Embeddings (B, hidden) of the next position -> hidden states (B, hidden) after the final norm."""


class DecoderStack(Protocol):
    """What the steppers read of a `Transformer`."""

    config: TransformerConfig
    layers: nn.ModuleList
    norm: RMSNorm
    rotary: Rotary

    def prefill(self, embeds: Tensor, past: CachedSequences) -> Tensor:
        """Extends cached sequences by embeds (B, S, hidden); hidden states (B, S, hidden)."""


def bucket(length: int) -> int:
    """The number of positions that are read for sequences of at most `length`: 64, 128, 192, 256, 384, 512, 768 ...

    At most half as many again as there are beyond 128, so that there are few shapes and little is read in vain.
    """
    step = max(64, (1 << (length - 1).bit_length()) // 4)
    return -(-length // step) * step


class SlotStepper:
    """Incremental decoding in torch of sequences in slots; see `SlotDecoder`.

    A single sequence is read up to its own position, several up to their bucket. `static`: a single one, too, so that
    the step can be captured as a CUDA graph. Not differentiable; run it under `torch.inference_mode`.
    """

    def __init__(self, transformer: DecoderStack, cache: KVCache, static: bool = False) -> None:
        self.cache, self._transformer, self._static = cache, transformer, static
        self.layers = _Layers(transformer)
        self.positions = [0] * cache.slots
        """The length of each slot's sequence."""
        self._windows = transformer.config.windows
        self._size = 0
        self._moved()

    def prefill(self, slot: int, embeds: Sequence[Tensor]) -> Tensor:
        """See `SlotDecoder`; hidden states (B, longest S, hidden), void beyond each sequence's own end.

        Shorter sequences are padded on the right: what the padding leaves in the cache is masked, then overwritten.
        """
        count, size = len(embeds), max(map(len, embeds))
        self._reserve(slot + count, 1)
        start = self.positions[slot]
        self._reserve(slot + count, start + size)
        padded = torch.stack([functional.pad(each, (0, 0, 0, size - len(each))) for each in embeds])
        hidden = self._transformer.prefill(padded, CachedSequences(self.cache, slice(slot, slot + count), start))
        for number, each in enumerate(embeds, slot):
            self.positions[number] += len(each)
        return hidden

    def prepare(self, count: int) -> tuple[int, ...]:
        """The slots and positions that the next step reads, and those of the cache: all that its shapes depend on."""
        longest = max(self.positions[:count], default=0) + 1
        self._reserve(count, longest)
        self._size = min(bucket(longest), self.cache.capacity)
        if count > 1 or self._static:
            self._places[:count].copy_(torch.tensor(self.positions[:count]), non_blocking=True)
        return count, self._size, self.cache.slots, self.cache.capacity

    def step(self, x: Tensor) -> Tensor:
        if len(x) > 1 or self._static:
            return self.layers.run(x, self._own_positions(len(x)))
        position = self.positions[0]
        rotate = self.layers.rotation(*self._rotary[position].unbind())
        return self.layers.run(x, _Position(rotate, None, _views_at(self.cache, 1, position, self._windows)))

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
        self._rotary = torch.stack(self._transformer.rotary.table(capacity, device), 1)[:, :, None]

    def _own_positions(self, count: int) -> _Position:
        """Each sequence at its own position, masked beyond it."""
        places, size = self._places[:count], self._size
        column = places[:, None]
        counting, masks = self._counting[:size], {}
        seen = counting <= column
        for window in set(self._windows):
            visible = seen if window is None else seen & (counting > column - window)
            masks[window] = torch.where(visible, self._zero, self._minus_infinity)[:, None, None]
        if (count, size) not in self._known:
            self._known[count, size] = self._views(count, size)
        layers = [
            _CacheViews(*views, masks[window])
            for views, window in zip(self._known[count, size], self._windows, strict=True)
        ]
        rotate = self.layers.rotation(*self._rotary.index_select(0, places).unbind(1))
        return _Position(rotate, (self._first_rows[:count] + column).view(-1), layers)

    def _views(self, count: int, size: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For each layer: keys and values as rows (slots * kv heads * capacity, head_dim), to write one, and those
        (B, kv heads, size, head_dim) that are read."""
        width = self.cache.store.shape[-1]
        return [
            (keys.view(-1, width), values.view(-1, width), keys[:count, :, :size], values[:count, :, :size])
            for keys, values in self.cache.store
        ]


class FrameStepper:
    """Incremental decoding in torch of sequences that all are at the same position; see `FrameDecoder`.

    Not differentiable; run it under `torch.inference_mode`.
    """

    def __init__(self, transformer: DecoderStack, cache: KVCache) -> None:
        self.cache, self.layers = cache, _Layers(transformer)
        self._windows = transformer.config.windows
        self._rotary = torch.stack(transformer.rotary.table(cache.capacity, cache.store.device), 1)[:, :, None]
        self._known: dict[tuple[int, int], _Position] = {}
        self.length = 0

    def begin(self, first: Tensor, second: Tensor) -> Tensor:
        """See `FrameDecoder`. Both positions go through the layers together: the weights are read once."""
        count = len(first)
        if self.cache.reserve(count, self.cache.capacity):
            self._known.clear()
        if (count, 0) not in self._known:
            cos, sin = self._rotary[:2].repeat(count, 1, 1, 1).unbind(1)
            views = _views_at(self.cache, count, 0, self._windows, 2)
            self._known[count, 0] = _Position(self.layers.rotation(cos, sin), None, views)
        self.length = 2
        both = torch.stack((first, second), 1).flatten(0, 1)
        return self.layers.run(both, self._known[count, 0])[1::2]

    def step(self, x: Tensor) -> Tensor:
        place = (len(x), self.length)
        if place not in self._known:
            rotate = self.layers.rotation(*self._rotary[self.length].unbind())
            self._known[place] = _Position(rotate, None, _views_at(self.cache, *place, self._windows))
        self.length += 1
        return self.layers.run(x, self._known[place])


def _views_at(cache: KVCache, count: int, index: int, windows: Sequence[int | None], new: int = 1) -> list[_CacheViews]:
    """For each layer: the first `count` sequences, all at position `index`, with so many new positions: one, which
    needs no mask, or the first ones."""
    store = cache.store[:, :, :count]
    here = store.narrow(4, index, new) if new > 1 else store.select(4, index)
    places = here.flatten(0, 1).unbind()
    seen, masks = {}, {}
    for window in set(windows):
        first = max(0, index + 1 - (window or index + 1))
        seen[window] = store.narrow(4, first, index + new - first).flatten(0, 1).unbind()
        masks[window] = _causal(new, window, store) if new > 1 else None
    return [
        _CacheViews(places[layer], places[layer + 1], seen[window][layer], seen[window][layer + 1], masks[window])
        for layer, window in zip(range(0, len(places), 2), windows, strict=True)
    ]


def _causal(length: int, window: int | None, like: Tensor) -> Tensor:
    """The mask (length, length) that is added to scores of the first positions."""
    positions = torch.arange(length, device=like.device)
    distance = positions[:, None] - positions
    visible = (distance >= 0) & (distance < (window or length))
    return like.new_zeros(length, length).masked_fill_(~visible, -torch.inf)


class _CacheViews(NamedTuple):
    """One layer's views of the cache: where key and value are written, the keys and values (B, kv heads, T, head_dim)
    that the position attends to, and the mask that is added to its scores: (B, 1, 1, T), or (S, T) for S positions of
    each sequence."""

    key: Tensor
    value: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor | None


class _Position(NamedTuple):
    """The rotation of queries and keys to their positions, and each layer's views of the cache.

    `rows` (B * kv heads,): the rows of `key` and `value` to write; None where they are (B, kv heads, head_dim).
    """

    rotate: Callable[[Tensor], Tensor]
    rows: Tensor | None
    layers: Sequence[_CacheViews]


class _Layers:
    """The layers of a decoder stack for one position of each sequence."""

    def __init__(self, transformer: DecoderStack) -> None:
        config = transformer.config
        self.kv_heads, self.head_dim = config.num_kv_heads, config.head_dim
        self.blocks = [_BlockWeights(block) for block in transformer.layers]  # type: ignore[arg-type]
        self.norm = _norm(transformer.norm)
        self._as_product = _is_plain(transformer.norm.weight)
        eye = torch.eye(self.head_dim, device=transformer.norm.weight.device)
        self._eyes = (eye, eye.roll(self.head_dim // 2, 0))

    def rotation(self, cos: Tensor, sin: Tensor) -> Callable[[Tensor], Tensor]:
        """The rotary rotation of (B, heads, head_dim) by the tables' angles (1 or B, 1, head_dim)."""
        if not self._as_product:
            return lambda x: rotate(x, cos, sin)
        # one small matrix product is faster on a CPU than the four operations that it stands for
        same, opposite = self._eyes
        matrix = torch.addcmul(same * cos, opposite, sin)
        return lambda x: torch.matmul(x, matrix)

    def run(self, x: Tensor, position: _Position) -> Tensor:
        """Embeddings (B, hidden) -> hidden states (B, hidden) after the final norm; keys and values are stored."""
        for block, views in zip(self.blocks, position.layers, strict=True):
            x = self._attend(x, block, views, position)
            gate, up = torch.mm(block.mlp_norm(x), block.gate_up).split_with_sizes(block.gate_and_up, 1)
            x = torch.addmm(x, block.act(gate).mul_(up), block.down)
        return self.norm(x)

    def _attend(self, x: Tensor, block: _BlockWeights, views: _CacheViews, position: _Position) -> Tensor:
        normed, batch = block.attention_norm(x), x.shape[0]
        fused = (
            torch.mm(normed, block.qkv) if block.qkv_bias is None else torch.addmm(block.qkv_bias, normed, block.qkv)
        )
        query_key, value = fused.view(batch, -1, self.head_dim).split_with_sizes(block.query_key_value, 1)
        query_key = position.rotate(block.qk_norm(query_key))
        query, key = query_key.split_with_sizes(block.query_key, 1)
        if views.key.dim() == 4:
            views.key.copy_(self._by_sequence(key, views))
            views.value.copy_(self._by_sequence(value, views))
        elif position.rows is None:
            views.key.copy_(key)
            views.value.copy_(value)
        else:
            views.key.index_copy_(0, position.rows, key.reshape(-1, self.head_dim))
            views.value.index_copy_(0, position.rows, value.reshape(-1, self.head_dim))
        if views.key.dim() == 4:
            mixed = self._attend_from_all(query, views)
        else:
            query = query.view(batch, self.kv_heads, -1, self.head_dim)
            mixed = functional.scaled_dot_product_attention(query, views.keys, views.values, attn_mask=views.mask)
        if block.output_bias is not None:
            x = x + block.output_bias
        return torch.addmm(x, mixed.reshape(batch, -1), block.output)

    def _by_sequence(self, x: Tensor, views: _CacheViews) -> Tensor:
        """(B * S, heads, head_dim) -> (B, heads, S, head_dim)."""
        return x.unflatten(0, (-1, views.key.shape[2])).transpose(1, 2)

    def _attend_from_all(self, query: Tensor, views: _CacheViews) -> Tensor:
        """Attention of S positions of each sequence: query (B * S, heads, head_dim) -> (B * S, heads, head_dim)."""
        query = self._by_sequence(query, views)
        keys, values, mask = views.keys, views.values, views.mask
        mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, enable_gqa=True)
        return mixed.transpose(1, 2).flatten(0, 1)


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
        self.gate_and_up = (mlp.down_proj.in_features,) * 2
        # a function instead of a module, whose call costs more than a small activation itself
        self.act: Callable[[Tensor], Tensor] = functional.silu if isinstance(mlp.act, nn.SiLU) else mlp.act


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
    return _PlainNorm(weight, eps) if _is_plain(weight) else _FusedNorm(weight, eps)


def _is_plain(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu"
