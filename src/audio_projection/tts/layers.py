"""Layers of the talker's and the code predictor's decoder stack: rotary positions, attention, MLP, key-value cache.

Pre-norm blocks of grouped-query attention with RMS-normed queries and keys and rotary positions, and a gated MLP
(official: qwen_tts/core/models/modeling_qwen3_tts.py). Query, key and value weights are fused into one matrix, gate and
up into another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_projection.errors import AudioProjectionError
from audio_projection.tts.config import TransformerConfig

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
}
"""Activation functions by their names in configurations; the published checkpoints have silu throughout."""


class Rotary:
    """Rotary position embedding (RoPE): tables of cosines and sines, always float32.

    Not a module with buffers, so that neither `.to(bfloat16)` nor loading on the meta device can change them: they are
    computed from the configuration when first needed on a device. The sines carry the sign of the half-rotation:
    rotated(x) = x * cos + roll(x, head_dim / 2) * sin.
    """

    def __init__(self, head_dim: int, theta: float) -> None:
        self.head_dim = head_dim
        self.theta = theta
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def table(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """(cos, sin), each at least (length, head_dim), float32, for positions 0, 1, 2 ..."""
        known = self._tables.get(device)
        if known is None or known[0].shape[0] < length:
            known = self._compute(max(length, 2 * known[0].shape[0] if known else 512), device)
            self._tables[device] = known
        return known

    def _compute(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False):  # tables made while decoding must also serve a training pass
            exponents = torch.arange(0, self.head_dim, 2, dtype=torch.int64).float() / self.head_dim
            angles = torch.outer(torch.arange(length).float(), 1.0 / self.theta**exponents)
            cos, sin = angles.cos(), angles.sin()
            return torch.cat((cos, cos), -1).to(device), torch.cat((-sin, sin), -1).to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` (..., head_dim) rotated by the tables' angles, computed in float32, in x's own dtype."""
    wide = x.float()
    return torch.addcmul(wide * cos, wide.roll(x.shape[-1] // 2, -1), sin).to(x.dtype)


class KVCache:
    """Keys and values of all layers for a number of slots, each with one sequence of its own length.

    `store` is (layers, 2, slots, kv heads, capacity, head_dim). Positions beyond a sequence's length hold finite
    numbers that the attention masks out; both slots and capacity grow by doubling.
    """

    def __init__(self, config: TransformerConfig, slots: int, capacity: int, like: Tensor) -> None:
        shape = (config.num_layers, 2, slots, config.num_kv_heads, capacity, config.head_dim)
        self.store = torch.zeros(shape, dtype=like.dtype, device=like.device)

    @property
    def slots(self) -> int:
        return self.store.shape[2]

    @property
    def capacity(self) -> int:
        return self.store.shape[4]

    def reserve(self, slots: int, length: int) -> bool:
        """Grows to at least `slots` slots of `length` positions; True when memory has moved, so that views are void."""
        if slots <= self.slots and length <= self.capacity:
            return False
        more = self.slots if slots <= self.slots else max(slots, 2 * self.slots)
        longer = self.capacity if length <= self.capacity else max(length, 2 * self.capacity)
        layers, two, _, heads, _, width = self.store.shape
        larger = self.store.new_zeros(layers, two, more, heads, longer, width)
        larger[:, :, : self.slots, :, : self.capacity] = self.store
        self.store = larger
        return True

    def swap(self, first: int, second: int, length: int) -> None:
        """Exchanges the sequences of two slots, of at most `length` positions."""
        one, other = self.store[:, :, first, :, :length], self.store[:, :, second, :, :length]
        kept = one.clone()
        one.copy_(other)
        other.copy_(kept)


class CachedSequences:
    """The sequences of neighbouring slots of a KVCache, which are `start` positions long: what a prefill extends."""

    def __init__(self, cache: KVCache, slots: slice, start: int) -> None:
        self.start = start
        self._store = cache.store[:, :, slots]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores one layer's keys and values (B, kv heads, S, head_dim) from `start` on; returns those of all
        start + S positions."""
        end = self.start + keys.shape[2]
        self._store[layer, 0, :, :, self.start : end] = keys
        self._store[layer, 1, :, :, self.start : end] = values
        if self.start == 0:
            return keys, values
        return self._store[layer, 0, :, :, :end], self._store[layer, 1, :, :, :end]


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last dimension, with a weight for each channel."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Causal grouped-query attention with RMS-normed, rotated queries and keys: (B, S, hidden) unchanged in shape."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.kv_heads = config.num_kv_heads
        self.head_dim = config.head_dim
        inner = config.num_heads * config.head_dim
        fused = inner + 2 * config.num_kv_heads * config.head_dim
        self.qkv_proj = nn.Linear(config.hidden_size, fused, bias=config.attention_bias)
        self.o_proj = nn.Linear(inner, config.hidden_size, bias=config.attention_bias)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, past: CachedSequences | None, layer: int
    ) -> Tensor:
        """x (B, S, hidden); cos and sin broadcast over (B, S, heads, head_dim); mask (1, 1, S, past + S) or None."""
        fused = self.qkv_proj(x).unflatten(-1, (-1, self.head_dim))
        query, key, value = fused.split((self.heads, self.kv_heads, self.kv_heads), dim=-2)
        query = rotate(self.q_norm(query), cos, sin).transpose(1, 2)
        key = rotate(self.k_norm(key), cos, sin).transpose(1, 2)
        value = value.transpose(1, 2)
        if past is not None:
            key, value = past.extend(layer, key, value)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=self.heads != self.kv_heads
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Gated MLP: down(act(gate(x)) * up(x))."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        return self.down_proj(self.act(gate) * up)


class Block(nn.Module):
    """One pre-norm decoder block: attention and MLP, each with a residual connection."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, past: CachedSequences | None, layer: int
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, past, layer)
        return x + self.mlp(self.post_attention_layernorm(x))


def activation(name: str) -> nn.Module:
    """A new activation module for a configuration's `hidden_act`; AudioProjectionError for an unknown name."""
    if name not in ACTIVATIONS:
        raise AudioProjectionError(f"config.json: hidden_act {name!r} is not known")
    return ACTIVATIONS[name]()
