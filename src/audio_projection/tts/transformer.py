"""The decoder stack that the talker and the code predictor share: a Qwen3 decoder without its embeddings.

`Transformer.forward` is the differentiable whole-sequence pass; with a `KVCache` it is the prefill that the
one-position pass of `decode_step.py` continues.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from audio_projection.tts.config import TransformerConfig
from audio_projection.tts.decode_step import Stepper, Steps
from audio_projection.tts.layers import Block, KVCache, RMSNorm, Rotary


class Transformer(nn.Module):
    """A stack of blocks and the final norm. Parameter names are the official ones but for the fused matrices."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = Rotary(config.head_dim, config.rope_theta)
        self.checkpointing = False
        """Whether layers are computed again for the backward pass instead of keeping their activations."""

    def forward(self, embeds: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Causal pass over `embeds` (B, S, hidden), to hidden states (B, S, hidden) after the final norm.

        `lengths` (B,): rows are padded on the right beyond them, and the states there come out zero.
        """
        cos, sin = self.rotary.table(embeds.shape[1], embeds.device)
        size = embeds.shape[1]
        hidden = self._run(embeds, cos[:size, None], sin[:size, None], None, None)
        if lengths is None:
            return hidden
        padding = torch.arange(size, device=embeds.device) >= lengths[:, None]
        return hidden.masked_fill(padding[..., None], 0.0)

    def begin(self, batch: int, capacity: int, like: Tensor) -> Steps:
        """A stepper for `batch` utterances with room for `capacity` positions, of `like`'s dtype and device."""
        return Stepper(self, KVCache(self.config, batch, capacity, like))

    def prefill(self, embeds: Tensor, cache: KVCache) -> Tensor:
        """The same pass that also fills the empty `cache`; rows may be padded on the left as the cache says."""
        size = embeds.shape[1]
        cache.reserve(size)
        cos, sin = self.rotary.table(size, embeds.device)
        if cache.starts is None:
            cos, sin, visible = cos[:size, None], sin[:size, None], None
        else:
            places = torch.arange(size, device=embeds.device)
            own = (places - cache.starts[:, None]).clamp_min(0)
            cos, sin = cos[own][:, :, None], sin[own][:, :, None]
            # A padded place sees itself: with nothing to see its state would be NaN, and 0 * NaN spreads.
            visible = (places >= cache.starts[:, None])[:, None, None] | torch.eye(
                size, dtype=torch.bool, device=embeds.device
            )
        hidden = self._run(embeds, cos, sin, visible, cache)
        cache.length = size
        return hidden

    def _run(self, x: Tensor, cos: Tensor, sin: Tensor, visible: Tensor | None, cache: KVCache | None) -> Tensor:
        masks = {window: _mask(x, window, visible) for window in set(self.config.windows)}
        for index, block in enumerate(self.layers):
            inputs = x, cos, sin, masks[self.config.windows[index]], cache, index
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(*inputs)
        return self.norm(x)


def _mask(x: Tensor, window: int | None, visible: Tensor | None) -> Tensor | None:
    """Which places each place sees, (B or 1, 1, S, S) bool; None where that is just every earlier one."""
    size = x.shape[1]
    if visible is None and (window is None or window >= size):
        return None
    places = torch.arange(size, device=x.device)
    distance = places[:, None] - places
    mask = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    return mask[None, None] if visible is None else mask & visible
