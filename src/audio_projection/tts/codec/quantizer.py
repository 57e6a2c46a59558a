"""Residual vector quantizer of the codec: codes to quantised latents, and code probabilities to expected latents.

Official source: `qwen_tts/core/tokenizer_12hz/modeling_qwen3_tts_tokenizer_v2.py`; attribute names are the official
parameter names. B is a batch, T frames, G code groups, K codes of a codebook.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_projection.tts.codec.config import CodecDecoderConfig


class Codebook(nn.Module):
    """One codebook, stored as running sums and counts; buffers, so that training the decoder does not change them."""

    cluster_usage: Tensor
    embedding_sum: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("cluster_usage", torch.ones(size))
        # in place: otherwise PyTorch imports its compiler on the meta device
        self.register_buffer("embedding_sum", torch.randn(size, dim).div_(dim**0.5))

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (..., T) -> vectors (..., T, dim)."""
        return F.embedding(codes, self.embedding_sum) / self.cluster_usage[codes].clamp(min=1e-5)[..., None]

    def expected(self, probabilities: Tensor) -> Tensor:
        """Probabilities (..., T, K) -> expected vectors (..., T, dim)."""
        vectors = self.embedding_sum / self.cluster_usage.clamp(min=1e-5)[:, None]
        return probabilities.to(vectors.dtype) @ vectors


class CodebookSlot(nn.Module):
    """Holds one codebook under its official name."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self._codebook = Codebook(size, dim)


class ResidualStack(nn.Module):
    """Codebooks of a residual quantizer: their vectors are summed."""

    def __init__(self, config: CodecDecoderConfig, quantizers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CodebookSlot(config.codebook_size, config.codebook_dim // 2) for _ in range(quantizers)
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (B, T, quantizers) -> summed vectors (B, codebook_dim / 2, T)."""
        return torch.stack([book(codes[..., index]) for index, book in enumerate(self._books())]).sum(0).transpose(1, 2)

    def expected(self, probabilities: Tensor) -> Tensor:
        """Probabilities (B, T, quantizers, K) -> expected sums (B, codebook_dim / 2, T)."""
        vectors = [book.expected(probabilities[..., index, :]) for index, book in enumerate(self._books())]
        return torch.stack(vectors).sum(0).transpose(1, 2)

    def _books(self) -> Iterator[Codebook]:
        return (cast(CodebookSlot, layer)._codebook for layer in self.layers)


class ResidualQuantizer(nn.Module):
    """One residual quantizer with its projections; decoding uses `output_proj` only."""

    def __init__(self, config: CodecDecoderConfig, quantizers: int) -> None:
        super().__init__()
        inner = config.codebook_dim // 2
        self.input_proj = nn.Conv1d(config.codebook_dim, inner, 1, bias=False)
        self.output_proj = nn.Conv1d(inner, config.codebook_dim, 1, bias=False)
        self.vq = ResidualStack(config, quantizers)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (B, T, quantizers) -> latents (B, codebook_dim, T)."""
        return self.output_proj(self.vq(codes))

    def expected(self, probabilities: Tensor) -> Tensor:
        """Probabilities (B, T, quantizers, K) -> expected latents (B, codebook_dim, T)."""
        return self.output_proj(self.vq.expected(probabilities))


class SplitQuantizer(nn.Module):
    """Split residual quantizer: codebook 0 and the residual stack of the others, each projected, then summed."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.rvq_first = ResidualQuantizer(config, 1)
        self.rvq_rest = ResidualQuantizer(config, config.num_quantizers - 1)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (B, T, num_quantizers) -> quantised latents (B, codebook_dim, T)."""
        return self.rvq_first(codes[..., :1]) + self.rvq_rest(codes[..., 1:])

    def expected(self, probabilities: Tensor) -> Tensor:
        """Probabilities of codes (B, T, num_quantizers, K) -> expected latents (B, codebook_dim, T).

        Differentiable in the probabilities; equals `forward` where they are one-hot.
        """
        return self.rvq_first.expected(probabilities[..., :1, :]) + self.rvq_rest.expected(probabilities[..., 1:, :])
