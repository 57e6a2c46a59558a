"""Speaker encoder of Qwen3-TTS -Base checkpoints: a recording to a speaker embedding (x-vector).

ECAPA-TDNN (Desplanques et al., 2020, arXiv 2005.07143) over a log-mel spectrogram. Official source:
`qwen_tts/core/models/modeling_qwen3_tts.py`; attribute names are the official ones below `speaker_encoder.`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_projection.errors import AudioProjectionError
from audio_projection.files.tensor_folder import TensorFolder, check_tensors
from audio_projection.tts.codec.waveform import prepare_waveform
from audio_projection.tts.config import Qwen3TTSConfig

FFT = 1024
HOP = 256
HIGHEST_HZ = 12000


@dataclass(frozen=True)
class SpeakerEncoderConfig:
    """Sizes of the speaker encoder. Names (in `speaker_encoder_config`) and defaults are the official ones."""

    mel_dim: int = 128
    enc_dim: int = 1024
    enc_channels: tuple[int, ...] = (512, 512, 512, 512, 1536)
    enc_kernel_sizes: tuple[int, ...] = (5, 3, 3, 3, 1)
    enc_dilations: tuple[int, ...] = (1, 2, 3, 4, 1)
    enc_attention_channels: int = 128
    enc_res2net_scale: int = 8
    enc_se_channels: int = 128
    sample_rate: int = 24000

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> SpeakerEncoderConfig:
        """From the official JSON object; AudioProjectionError for sizes that an ECAPA-TDNN cannot have."""
        known: dict[str, Any] = {}
        for spec in dataclasses.fields(cls):
            value = values.get(spec.name, spec.default)
            many = isinstance(spec.default, tuple)
            sizes = tuple(value) if many and isinstance(value, (list, tuple)) else (value,)
            if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
                raise AudioProjectionError(f"{where}: speaker_encoder_config.{spec.name} is {value!r}, no size")
            known[spec.name] = sizes if many else value
        config = cls(**known)
        config._check(where)
        return config

    def _check(self, where: str) -> None:
        layers = {len(self.enc_channels), len(self.enc_kernel_sizes), len(self.enc_dilations)}
        if len(layers) > 1 or len(self.enc_channels) < 3:
            raise AudioProjectionError(
                f"{where}: speaker_encoder_config: enc_channels, enc_kernel_sizes and enc_dilations must be lists of "
                "one length, 3 or more"
            )
        if self.enc_channels[-1] != sum(self.enc_channels[1:-1]) or len(set(self.enc_channels[:-1])) > 1:
            raise AudioProjectionError(
                f"{where}: speaker_encoder_config.enc_channels {list(self.enc_channels)}: all but the last must be "
                "equal, and the last their sum without the first"
            )
        if self.enc_channels[0] % self.enc_res2net_scale:
            raise AudioProjectionError(
                f"{where}: speaker_encoder_config: {self.enc_channels[0]} channels cannot be cut into "
                f"enc_res2net_scale {self.enc_res2net_scale}"
            )


class TimeDelayBlock(nn.Module):
    """Time-delay layer (TDNN): dilated convolution with reflected borders, then ReLU. (B, in, T) -> (B, out, T)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            channels_in, channels_out, kernel, dilation=dilation, padding="same", padding_mode="reflect"
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Res2NetBlock(nn.Module):
    """Res2Net block: groups of channels, each convolved together with the output of the group before it."""

    def __init__(self, channels: int, groups: int, kernel: int, dilation: int) -> None:
        super().__init__()
        width = channels // groups
        self.blocks = nn.ModuleList(TimeDelayBlock(width, width, kernel, dilation) for _ in range(groups - 1))

    def forward(self, x: Tensor) -> Tensor:
        first, *others = x.chunk(len(self.blocks) + 1, dim=1)
        done = [first]
        for index, (block, part) in enumerate(zip(self.blocks, others, strict=True)):
            done.append(block(part + done[-1] if index else part))
        return torch.cat(done, 1)


class SqueezeExcitation(nn.Module):
    """Squeeze-excitation: scales each channel by a gate computed from all channels' means over time."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, squeezed, 1)
        self.conv2 = nn.Conv1d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(F.relu(self.conv1(x.mean(2, keepdim=True)))).sigmoid()


class SERes2NetBlock(nn.Module):
    """SE-Res2Net block of ECAPA-TDNN: TDNN, Res2Net, TDNN and squeeze-excitation with a residual connection."""

    def __init__(self, channels: int, kernel: int, dilation: int, config: SpeakerEncoderConfig) -> None:
        super().__init__()
        self.tdnn1 = TimeDelayBlock(channels, channels, 1, 1)
        self.res2net_block = Res2NetBlock(channels, config.enc_res2net_scale, kernel, dilation)
        self.tdnn2 = TimeDelayBlock(channels, channels, 1, 1)
        self.se_block = SqueezeExcitation(channels, config.enc_se_channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x))))


class AttentiveStatistics(nn.Module):
    """Attentive statistics pooling, weighted mean and deviation over time: (B, C, T) -> (B, 2 C, 1)."""

    def __init__(self, channels: int, attention_channels: int) -> None:
        super().__init__()
        self.tdnn = TimeDelayBlock(3 * channels, attention_channels, 1, 1)
        self.conv = nn.Conv1d(attention_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        uniform = torch.full_like(x, 1 / x.shape[2])
        whole = torch.cat((x, *(part.expand_as(x) for part in _moments(x, uniform))), 1)
        attention = self.conv(self.tdnn(whole).tanh()).softmax(2)
        return torch.cat(_moments(x, attention), 1)


def _moments(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weights * x).sum(2, keepdim=True)
    variance = (weights * (x - mean).square()).sum(2, keepdim=True)
    return mean, variance.clamp(1e-12).sqrt()


class SpeakerEncoder(nn.Module):
    """ECAPA-TDNN: log-mel frames to x-vectors of `config.enc_dim` values."""

    def __init__(self, config: SpeakerEncoderConfig) -> None:
        super().__init__()
        self.config = config
        channels, kernels, dilations = config.enc_channels, config.enc_kernel_sizes, config.enc_dilations
        first = TimeDelayBlock(config.mel_dim, channels[0], kernels[0], dilations[0])
        middle = [
            SERes2NetBlock(width, kernel, dilation, config)
            for width, kernel, dilation in zip(channels[1:-1], kernels[1:-1], dilations[1:-1], strict=True)
        ]
        self.blocks = nn.ModuleList([first, *middle])
        self.mfa = TimeDelayBlock(channels[-1], channels[-1], kernels[-1], dilations[-1])
        self.asp = AttentiveStatistics(channels[-1], config.enc_attention_channels)
        self.fc = nn.Conv1d(2 * channels[-1], config.enc_dim, 1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> SpeakerEncoder:
        """Build from the official `speaker_encoder_config` object, with random weights."""
        return cls(SpeakerEncoderConfig.from_dict(values, where))

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> SpeakerEncoder:
        """The speaker encoder of an official -Base folder alone, in float32, frozen and in eval mode.

        AudioProjectionError names a tensor that is missing, misshapen or unknown.
        """
        files, prefix = TensorFolder(folder), "speaker_encoder."
        encoder = cls.from_dict(Qwen3TTSConfig.from_folder(folder).speaker_encoder, f"{folder}/config.json")
        shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
        check_tensors({prefix + name: shape for name, shape in shapes.items()}, files, others="talker.")
        encoder.load_state_dict({name: files.tensor(prefix + name).float() for name in shapes}, assign=True)
        return encoder.to(device).eval().requires_grad_(False)

    def forward(self, mels: Tensor) -> Tensor:
        """Log-mel frames (B, T, mel_dim) -> x-vectors (B, enc_dim)."""
        x = mels.transpose(1, 2)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return self.fc(self.asp(self.mfa(torch.cat(outputs[1:], 1)))).squeeze(2)

    @torch.no_grad()
    def embed(self, samples: np.ndarray | Tensor, rate: int) -> Tensor:
        """Mono samples (S,) at `rate` Hz -> x-vector (enc_dim,) on the encoder's device.

        Raises AudioProjectionError for empty, non-finite or not mono samples, and for a recording that is too short.
        """
        config = self.config
        wave = prepare_waveform(samples, rate, config.sample_rate)
        shortest = self._shortest()
        if wave.numel() < shortest:
            raise AudioProjectionError(
                f"the reference recording is too short: {wave.numel()} samples at {config.sample_rate} Hz, "
                f"at least {shortest} are needed, some seconds are better"
            )
        weight = self.fc.weight
        mels = log_mel(wave.to(weight.device), config.mel_dim, config.sample_rate)
        return self(mels.to(weight.dtype)[None])[0]

    def _shortest(self) -> int:
        """The least samples that give as many mel frames as the reflected borders need."""
        config = self.config
        reach = max(
            -(-(kernel - 1) * dilation // 2)
            for kernel, dilation in zip(config.enc_kernel_sizes, config.enc_dilations, strict=True)
        )
        return max((reach + 1) * HOP, (FFT - HOP) // 2 + 1)


def log_mel(wave: Tensor, bands: int, rate: int) -> Tensor:
    """Log-mel spectrogram: samples (S,) -> natural log of mel magnitudes (S // 256, bands), windows of 1024 samples."""
    border = (FFT - HOP) // 2
    padded = F.pad(wave[None].float(), (border, border), mode="reflect")[0]
    window = torch.hann_window(FFT, device=wave.device)
    spectrum = torch.stft(padded, FFT, HOP, window=window, center=False, return_complex=True)
    magnitude = (torch.view_as_real(spectrum).square().sum(-1) + 1e-9).sqrt()
    return (_mel_filters(bands, rate).to(wave.device) @ magnitude).clamp(1e-5).log().T


@lru_cache(maxsize=4)
def _mel_filters(bands: int, rate: int) -> Tensor:
    """Slaney mel filter bank (bands, FFT // 2 + 1), area-normalised, as in librosa."""
    from transformers.audio_utils import mel_filter_bank

    highest = min(HIGHEST_HZ, rate / 2)
    filters = mel_filter_bank(FFT // 2 + 1, bands, 0.0, highest, rate, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters.T).float()
