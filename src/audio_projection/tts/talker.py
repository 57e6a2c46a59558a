"""The talker: reads summed text rows and code embeddings, predicts codebook 0 of the next frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audio_projection.tts.config import TalkerConfig
from audio_projection.tts.layers import activation
from audio_projection.tts.transformer import Transformer


class TextProjection(nn.Module):
    """Two linear layers that carry a text embedding (text_hidden_size) to a text row (hidden_size)."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(config.text_hidden_size, config.text_hidden_size)
        self.act = activation(config.transformer.hidden_act)
        self.linear_fc2 = nn.Linear(config.text_hidden_size, config.transformer.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_fc2(self.act(self.linear_fc1(x)))


class Talker(nn.Module):
    """Text and codec embeddings, text projection, decoder stack and the head over codebook 0 and the special ids."""

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
        """Text rows (..., hidden) of token ids (...), int64: the space that projected features live in."""
        return self.text_projection(self.text_embedding(ids))

    def forward(self, embeds: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Hidden states (B, S, hidden) of `embeds` (B, S, hidden): causal, differentiable.

        `lengths` (B,): rows are padded on the right beyond them; states there are zero.
        """
        return self.transformer(embeds, lengths)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., vocab_size) of the next frame's codebook 0, raw: no id is suppressed here."""
        return self.codec_head(hidden)


def _table(rows: int, width: int) -> nn.Embedding:
    """Rows yet to be filled. PyTorch's own filling, on the meta device, would import its whole compiler."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)
