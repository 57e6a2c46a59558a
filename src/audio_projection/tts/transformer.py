"""The transformer stack that the talker and the code predictor share: a Qwen3 decoder without its embeddings.

`Transformer.forward` is the differentiable pass over whole sequences (training), `Transformer.prefill` the same pass
that also fills a key-value cache, which `decode_step.py` continues position by position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from audio_projection.tts.config import TransformerConfig
from audio_projection.tts.decode_step import IncrementalDecoder, Stepper
from audio_projection.tts.layers import Block, KVCache, RMSNorm, Rotary


class Transformer(nn.Module):
    """Decoder blocks and the final norm. Parameter names are the official ones except for the fused matrices."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = Rotary(config.head_dim, config.rope_theta)
        self.checkpointing = False
        """Gradient checkpointing: recompute the blocks in the backward pass instead of keeping their activations."""

    def forward(self, embeds: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Causal pass over `embeds` (B, S, hidden), to hidden states (B, S, hidden) after the final norm.

        `lengths` (B,): sequences are padded on the right beyond them; the states there are zero.
        """
        cos, sin = self.rotary.table(embeds.shape[1], embeds.device)
        size = embeds.shape[1]
        hidden = self._run(embeds, cos[:size, None], sin[:size, None], None, None)
        if lengths is None:
            return hidden
        padding = torch.arange(size, device=embeds.device) >= lengths[:, None]
        return hidden.masked_fill(padding[..., None], 0.0)

    def begin(self, batch: int, capacity: int, like: Tensor) -> IncrementalDecoder:
        """Incremental decoding of `batch` sequences, with a cache of `capacity` positions like `like` in dtype and
        device."""
        return Stepper(self, KVCache(self.config, batch, capacity, like))

    def prefill(self, embeds: Tensor, cache: KVCache) -> Tensor:
        """Causal pass over `embeds` (B, S, hidden) that fills the empty `cache`, to hidden states (B, S, hidden).

        Sequences may be padded on the left, as `cache.starts` says.
        """
        size = embeds.shape[1]
        cache.reserve(size)
        cos, sin = self.rotary.table(size, embeds.device)
        if cache.starts is None:
            cos, sin, visible = cos[:size, None], sin[:size, None], None
        else:
            positions = torch.arange(size, device=embeds.device)
            own = (positions - cache.starts[:, None]).clamp_min(0)
            cos, sin = cos[own][:, :, None], sin[own][:, :, None]
            # A padded position attends to itself: with nothing to attend to it would be NaN, and 0 * NaN spreads.
            visible = (positions >= cache.starts[:, None])[:, None, None] | torch.eye(
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
    """Attention mask (B or 1, 1, S, S), bool, True where a position attends; None where it is plainly causal."""
    size = x.shape[1]
    if visible is None and (window is None or window >= size):
        return None
    positions = torch.arange(size, device=x.device)
    distance = positions[:, None] - positions
    mask = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    return mask[None, None] if visible is None else mask & visible
