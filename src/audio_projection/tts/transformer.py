"""The transformer stack that the talker and the code predictor share: a Qwen3 decoder without its embeddings.

`Transformer.forward` is the differentiable pass over whole sequences (training), `Transformer.prefill` the same pass
that also fills a key-value cache, which `decode_step.py` continues position by position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from audio_projection.tts.config import TransformerConfig
from audio_projection.tts.decode_step import FrameStepper, SlotStepper
from audio_projection.tts.layers import Block, CachedSequences, KVCache, RMSNorm, Rotary


class Transformer(nn.Module):
    """Decoder blocks and the final norm. Parameter names are the official ones except for the fused matrices."""

    slots_grow = True
    """Whether `begin` needs no more slots than are used at first."""

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
        hidden = self._run(embeds, None)
        if lengths is None:
            return hidden
        padding = torch.arange(embeds.shape[1], device=embeds.device) >= lengths[:, None]
        return hidden.masked_fill(padding[..., None], 0.0)

    def begin(self, slots: int, capacity: int, like: Tensor, static: bool = False) -> SlotStepper:
        """Incremental decoding of sequences of their own lengths; the cache has `slots` slots and `capacity` positions
        at first, and is like `like` in dtype and device. `static`: shapes for CUDA graphs, as always on a GPU."""
        cache = KVCache(self.config, slots, capacity, like)
        return SlotStepper(self, cache, static or like.device.type != "cpu")

    def begin_frames(self, slots: int, length: int, like: Tensor) -> FrameStepper:
        """Incremental decoding of sequences of at most `length` positions that all begin together, again and again."""
        return FrameStepper(self, KVCache(self.config, slots, length, like))

    def prefill(self, embeds: Tensor, past: CachedSequences) -> Tensor:
        """Causal pass over `embeds` (B, S, hidden), which follow the sequences `past` and are stored in them;
        hidden states (B, S, hidden)."""
        return self._run(embeds, past)

    def _run(self, x: Tensor, past: CachedSequences | None) -> Tensor:
        start = 0 if past is None else past.start
        end = start + x.shape[1]
        cos, sin = (table[start:end, None] for table in self.rotary.table(end, x.device))
        masks = {window: _mask(start, end, window, x.device) for window in set(self.config.windows)}
        for index, block in enumerate(self.layers):
            inputs = x, cos, sin, masks[self.config.windows[index]], past, index
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(*inputs)
        return self.norm(x)


def _mask(start: int, end: int, window: int | None, device: torch.device) -> Tensor | None:
    """Attention mask (1, 1, end - start, end), bool, True where a position attends; None where it is plainly causal."""
    if start == 0 and (window is None or window >= end):
        return None
    positions = torch.arange(end, device=device)
    distance = positions[start:, None] - positions
    mask = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    return mask[None, None]
