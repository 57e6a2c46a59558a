"""Codec encoder of the 12 Hz Qwen3-TTS tokenizer: waveform to code frames.

It is Mimi (Kyutai, 2024) without its decoder: transformers' Mimi layers, assembled here under the official parameter
names, which `MimiModel` keeps in some 5.x releases and changes in others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import MimiConfig
from transformers.models.mimi.modeling_mimi import (
    MimiConv1d,
    MimiEncoder,
    MimiSplitResidualVectorQuantizer,
    MimiTransformerModel,
)

from audio_projection.errors import AudioProjectionError

UNBOUNDED = 2**30
"""A sliding window, in positions, that is longer than any recording."""


class CodecEncoder(nn.Module):
    """Codec encoder, waveform to code frames; `state_dict()` has the official names below `encoder.`.

    `config` is the official `encoder_config` object; the first `code_groups` of its quantizers are used. Raises
    AudioProjectionError for a configuration that transformers refuses.
    """

    def __init__(self, config: Mapping[str, Any], code_groups: int) -> None:
        super().__init__()
        mimi = _mimi_config(config)
        if code_groups > mimi.num_quantizers:
            raise AudioProjectionError(
                f"encoder_valid_num_quantizers is {code_groups}, but there are {mimi.num_quantizers}"
            )
        self.code_groups = code_groups
        try:
            self.encoder = MimiEncoder(mimi)
            self.encoder_transformer = MimiTransformerModel(mimi)
            self.downsample = _downsample(mimi)
            self.quantizer = MimiSplitResidualVectorQuantizer(mimi)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _invalid(error) from None

    @torch.no_grad()
    def forward(self, waves: Tensor) -> Tensor:
        """Samples (B, S) float -> codes (B, T, code_groups) int64; the last frame may reach beyond the samples."""
        codes = self.quantizer.encode(self.latents(waves), self.code_groups)
        return codes.permute(1, 2, 0).contiguous()

    def latents(self, waves: Tensor) -> Tensor:
        """Samples (B, S) -> latents (B, hidden_size, T) before quantisation; differentiable."""
        hidden = self.encoder_transformer(self.encoder(waves[:, None]).transpose(1, 2))[0]
        return self.downsample(hidden.transpose(1, 2))


def _mimi_config(config: Mapping[str, Any]) -> MimiConfig:
    """The official `encoder_config` as transformers' MimiConfig, without its sliding window.

    The official package ignores `sliding_window` and attends to the whole past; transformers 5 would apply it, and
    clips of more than 10 s would get other codes.
    """
    known = {key: value for key, value in config.items() if key not in ("model_type", "transformers_version", "dtype")}
    try:
        mimi = MimiConfig(**{**known, "sliding_window": UNBOUNDED})
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise _invalid(error) from None
    mimi._attn_implementation = "sdpa"
    return mimi


def _invalid(error: Exception) -> AudioProjectionError:
    return AudioProjectionError(f"encoder_config is not valid: {' '.join(str(error).split())}")


def _downsample(mimi: MimiConfig) -> nn.Module:
    """Downsampling from the convolutions' frame rate to that of the codes: stride 2 in every official checkpoint."""
    if mimi.frame_rate == mimi.encodec_frame_rate:
        return nn.Identity()
    ratio = int(mimi.encodec_frame_rate / mimi.frame_rate)
    width = mimi.hidden_size
    return MimiConv1d(mimi, width, width, kernel_size=2 * ratio, stride=2, bias=False, pad_mode="replicate")
