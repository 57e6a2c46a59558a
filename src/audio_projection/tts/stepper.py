"""One position at a time through a `Transformer`: the decode loop's inner step, lean because it runs 16 times a frame.

Reads the very parameters of the modules (nothing is copied, so weights may change between steps) but calls no
modules: at one position the work is tiny and the calls would cost more than the arithmetic. Queries of one key's
group go through attention as its query places, so no key is repeated.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from audio_projection.tts.transformer import Block, KVCache, Transformer, rotate


class Stepper:
    """Continues `cache` by one position a call. Not differentiable; run it under `torch.inference_mode`."""

    def __init__(self, transformer: Transformer, cache: KVCache) -> None:
        self.cache = cache
        self.transformer = transformer
        config = transformer.config
        self.heads, self.kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.eps = config.rms_norm_eps
        self.blocks = [_BlockWeights(block) for block in transformer.layers]  # type: ignore[arg-type]
        self.windows = config.windows

    def step(self, x: Tensor) -> Tensor:
        """x (B, hidden) at position `cache.length`, to the hidden state (B, hidden) after the final norm."""
        cache, place = self.cache, self.cache.length
        cache.reserve(place + 1)
        cos, sin = self._angles(place, x.device)
        for index, block in enumerate(self.blocks):
            x = self._attend(x, block, index, cos, sin)
            normed = functional.rms_norm(x, x.shape[-1:], block.mlp_norm, self.eps)
            gate, up = functional.linear(normed, block.gate_up).chunk(2, -1)
            x = x + functional.linear(block.act(gate) * up, block.down)
        cache.length = place + 1
        return functional.rms_norm(x, x.shape[-1:], self.transformer.norm.weight, self.eps)

    def _angles(self, place: int, device: torch.device) -> tuple[Tensor, Tensor]:
        cos, sin = self.transformer.rotary.table(self.cache.capacity, device)
        if self.cache.starts is None:
            return cos[place], sin[place]
        own = place - self.cache.starts
        return cos[own][:, None], sin[own][:, None]

    def _attend(self, x: Tensor, block: _BlockWeights, index: int, cos: Tensor, sin: Tensor) -> Tensor:
        place, batch = self.cache.length, x.shape[0]
        normed = functional.rms_norm(x, x.shape[-1:], block.attention_norm, self.eps)
        fused = functional.linear(normed, block.qkv, block.qkv_bias).view(batch, -1, self.head_dim)
        turned = self.heads + self.kv_heads
        both = functional.rms_norm(fused[:, :turned], (self.head_dim,), None, self.eps) * block.qk_norm
        both = rotate(both, cos, sin)
        keys, values = self.cache.store[index]
        keys[:, :, place] = both[:, self.heads :]
        values[:, :, place] = fused[:, turned:]
        first = max(0, place + 1 - (self.windows[index] or place + 1))
        mask = self.cache.mask
        mixed = functional.scaled_dot_product_attention(
            both[:, : self.heads].view(batch, self.kv_heads, -1, self.head_dim),
            keys[:, :, first : place + 1],
            values[:, :, first : place + 1],
            attn_mask=None if mask is None else mask[..., first : place + 1],
        )
        return x + functional.linear(mixed.reshape(batch, -1), block.output, block.output_bias)


class _BlockWeights:
    """The parameters of one block as plain attributes: reading them through modules costs a look-up each."""

    def __init__(self, block: Block) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.attention_norm = block.input_layernorm.weight
        self.qkv, self.qkv_bias = attention.qkv_proj.weight, attention.qkv_proj.bias
        self.qk_norm = torch.cat(
            (
                attention.q_norm.weight.detach().expand(attention.heads, -1),
                attention.k_norm.weight.detach().expand(attention.kv_heads, -1),
            )
        )
        self.output, self.output_bias = attention.o_proj.weight, attention.o_proj.bias
        self.mlp_norm = block.post_attention_layernorm.weight
        self.gate_up, self.down = mlp.gate_up_proj.weight, mlp.down_proj.weight
        self.act = mlp.act
