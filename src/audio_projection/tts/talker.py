"""The talker: a causal transformer over text and codec embeddings that predicts codebook 0 of the next frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audio_projection.tts.config import TalkerConfig
from audio_projection.tts.layers import activation
from audio_projection.tts.transformer import Transformer


class TextProjection(nn.Module):
    """MLP from the text embedding table's width (text_hidden_size) to the talker's (hidden_size)."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(config.text_hidden_size, config.text_hidden_size)
        self.act = activation(config.transformer.hidden_act)
        self.linear_fc2 = nn.Linear(config.text_hidden_size, config.transformer.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_fc2(self.act(self.linear_fc1(x)))


class Talker(nn.Module):
    """Text and codec embeddings, text projection, decoder stack, and the head over codebook 0 and the special ids."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.transformer.hidden_size
        self.text_embedding = _table(config.text_vocab_size, config.text_hidden_size)
        self.text_projection = TextProjection(config)
        self.codec_embedding = _table(config.vocab_size, hidden)
        self.transformer = Transformer(config.transformer)
        self.codec_head = nn.Linear(hidden, config.vocab_size, bias=False)

    def text_embeddings(self, ids: Tensor) -> Tensor:
        """Text embeddings (..., hidden) of token ids (...), int64: what a projector's output replaces."""
        return self.text_projection(self.text_embedding(ids))

    def forward(self, embeds: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Hidden states (B, S, hidden) of `embeds` (B, S, hidden): causal, differentiable.

        `lengths` (B,): sequences are padded on the right beyond them; states there are zero.
        """
        return self.transformer(embeds, lengths)

    def logits(self, hidden: Tensor) -> Tensor:
        """Raw logits (..., vocab_size) of the next frame's codebook 0; no id is suppressed here."""
        return self.codec_head(hidden)


def _table(rows: int, width: int) -> nn.Embedding:
    """An uninitialised embedding table: PyTorch's own initialisation would import its compiler on the meta device."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)
