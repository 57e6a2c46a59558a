"""The code predictor: predicts codebooks 1 and up of a frame from the talker's hidden state and the codes so far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audio_projection.tts.config import PredictorConfig
from audio_projection.tts.transformer import Transformer


class CodePredictor(nn.Module):
    """A small causal transformer over [talker state, embedding of code 0, embedding of code 1, ...] of one frame.

    Its own embeddings are one tensor (G-1, K, talker hidden), its heads one tensor (G-1, K, hidden), for G code
    groups of K codes. Code 0 is embedded by the talker's codec embedding, which belongs to the talker.
    """

    def __init__(self, config: PredictorConfig, talker_embedding: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        self._talker_embedding = (talker_embedding,)  # in a tuple, so that it is not registered as a parameter twice
        groups, codes = config.code_groups - 1, config.vocab_size
        hidden, talker_hidden = config.transformer.hidden_size, talker_embedding.embedding_dim
        self.codec_embedding = nn.Parameter(torch.empty(groups, codes, talker_hidden))
        self.lm_head = nn.Parameter(torch.empty(groups, codes, hidden))
        self.transformer = Transformer(config.transformer)
        # Same widths need no projection, and official checkpoints then have none.
        self.small_to_mtp_projection = nn.Linear(talker_hidden, hidden) if hidden != talker_hidden else nn.Identity()

    @property
    def talker_embedding(self) -> nn.Embedding:
        """The talker's embedding table of codebook 0."""
        return self._talker_embedding[0]

    def embed_rest(self, codes: Tensor) -> Tensor:
        """Embeddings (..., n, talker hidden) of codes (..., n) of codebooks 1 to n."""
        groups, size, width = self.codec_embedding.shape
        offsets = torch.arange(codes.shape[-1], device=codes.device) * size
        return nn.functional.embedding(codes + offsets, self.codec_embedding.view(groups * size, width))

    def embed(self, codes: Tensor) -> Tensor:
        """Frame embeddings (..., talker hidden): the summed code embeddings of whole frames (..., G)."""
        return self.talker_embedding(codes[..., 0]) + self.embed_rest(codes[..., 1:]).sum(-2)

    def forward(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """Teacher-forced logits (M, G-1, K) of codebooks 1 to G-1 of M frames; differentiable.

        `hidden` (M, talker hidden): the talker's state that predicted the frame; `codes` (M, G), int64.
        """
        first = self.talker_embedding(codes[:, :1])
        inputs = torch.cat((hidden[:, None], first, self.embed_rest(codes[:, 1:-1])), 1)
        states = self.transformer(self.small_to_mtp_projection(inputs))[:, 1:]
        return torch.einsum("mgh,gkh->mgk", states, self.lm_head)
