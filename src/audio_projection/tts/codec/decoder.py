"""Streaming codec decoder of the 12 Hz Qwen3-TTS tokenizer: code frames to waveform.

Official source: `qwen_tts/core/tokenizer_12hz/modeling_qwen3_tts_tokenizer_v2.py`; attribute names are the official
parameter names. Every layer has the form `layer(x, state)`: it reads its past (convolution context, keys and values)
from `state` and stores there what the next chunk needs. A whole utterance is one chunk with an empty state, so
streaming and batch are the same computation. Channels first: (B, C, T).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_projection.devices import float64_device
from audio_projection.tts.codec.config import CodecDecoderConfig
from audio_projection.tts.codec.quantizer import SplitQuantizer
from audio_projection.tts.layers import activation

State = dict[nn.Module, Tensor]
"""Each layer's streaming state between two chunks of the same batch of utterances; `{}` before the first chunk.

That of a convolution is (B, C, T), that of attention (2, B, heads, frames, head_dim). `FrameTransformer` has one only
where the utterances of a batch have pasts of different lengths: (B,), how many of the oldest frames are padding.
"""


class CausalConv(nn.Module):
    """Causal convolution, padded with zeros before the first frame: (B, in, T) -> (B, out, T)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, dilation=dilation, groups=groups)
        self.context = (kernel - 1) * dilation

    def forward(self, x: Tensor, state: State) -> Tensor:
        if self.context:
            past = state.get(self)
            x = F.pad(x, (self.context, 0)) if past is None else torch.cat((past, x), -1)
            state[self] = x[..., -self.context :].clone()  # a view would keep the whole chunk alive
        return self.convolve(x)

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution without padding: (B, in, context + T) -> (B, out, T)."""
        return self.conv(x)


class DepthwiseConv(CausalConv):
    """Causal depthwise convolution as a sum of products: torch's own is slow in float64, one channel at a time."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, groups=channels)

    def convolve(self, x: Tensor) -> Tensor:
        windows, filters = x.unfold(-1, self.context + 1, 1), self.conv.weight
        return (windows * filters).sum(-1) + cast(Tensor, self.conv.bias)[:, None]


class CausalUpsample(nn.Module):
    """Causal upsampling, a transposed convolution trimmed on the right: (B, in, T) -> (B, out, T * stride)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        assert kernel % stride == 0, "`spread` adds whole strides"
        self.conv = nn.ConvTranspose1d(channels_in, channels_out, kernel, stride=stride)
        self.overlap = kernel - stride

    def forward(self, x: Tensor, state: State) -> Tensor:
        if not self.overlap:
            return self.spread(x)
        past = state.get(self)
        if past is not None:  # the last input frames are computed again: their outputs reach into this chunk
            x = torch.cat((past, x), -1)
        stride = self.conv.stride[0]
        context = -(-self.overlap // stride)
        state[self] = x[..., -context:].clone()
        skipped = 0 if past is None else past.shape[-1] * stride
        return self.spread(x)[..., skipped : x.shape[-1] * stride]

    def spread(self, x: Tensor) -> Tensor:
        """The whole transposed convolution: (B, in, T) -> (B, out, (T - 1) * stride + kernel).

        On a CPU it is one matrix product whose overlaps are added: oneDNN would reorder the weights in every call,
        which for the few frames of a chunk takes longer than the product itself.
        """
        if x.device.type != "cpu":
            return self.conv(x)
        weight, bias = self.conv.weight, cast(Tensor, self.conv.bias)
        (_, channels, kernel), stride, (batch, _, frames) = weight.shape, self.conv.stride[0], x.shape
        pieces = kernel // stride
        columns = (x.transpose(1, 2) @ weight.flatten(1)).view(batch, frames, channels, pieces, stride)
        spread = bias[:, None, None].expand(batch, -1, frames + pieces - 1, stride).clone()
        for late, piece in enumerate(columns.permute(3, 0, 2, 1, 4)):
            spread[:, :, late : late + frames] += piece
        return spread.flatten(2)


class SnakeBeta(nn.Module):
    """Snake activation x + sin^2(exp(alpha) x) / exp(beta) per channel (Ziyin et al., 2020, with its own magnitude)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, state: State) -> Tensor:
        frequency = self.alpha.exp().to(x.dtype)[:, None]
        magnitude = (self.beta.exp() + 1e-9).reciprocal().to(x.dtype)[:, None]
        return torch.addcmul(x, (x * frequency).sin().square(), magnitude)


class ConvNeXtBlock(nn.Module):
    """ConvNeXt block: depthwise convolution and pointwise MLP with a residual connection; (B, C, T) keeps its shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = DepthwiseConv(channels, 7)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor, state: State) -> Tensor:
        y = self.norm(self.dwconv(x, state).transpose(1, 2))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.transpose(1, 2)


class ResidualUnit(nn.Module):
    """Two convolutions with Snake activations and a residual connection; (B, C, T) keeps its shape."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.act1 = SnakeBeta(channels)
        self.conv1 = CausalConv(channels, channels, 7, dilation=dilation)
        self.act2 = SnakeBeta(channels)
        self.conv2 = CausalConv(channels, channels, 1)

    def forward(self, x: Tensor, state: State) -> Tensor:
        return x + run((self.act1, self.conv1, self.act2, self.conv2), x, state)


class UpsampleBlock(nn.Module):
    """One upsampling stage of the waveform decoder: (B, in, T) -> (B, out, T * rate)."""

    def __init__(self, channels_in: int, channels_out: int, rate: int) -> None:
        super().__init__()
        units = [ResidualUnit(channels_out, dilation) for dilation in (1, 3, 9)]
        upsample = CausalUpsample(channels_in, channels_out, 2 * rate, rate)
        self.block = nn.ModuleList([SnakeBeta(channels_in), upsample, *units])

    def forward(self, x: Tensor, state: State) -> Tensor:
        return run(self.block, x, state)


def run(layers: Iterable[nn.Module], x: Tensor, state: State) -> Tensor:
    """Applies streaming layers in sequence."""
    for layer in layers:
        x = layer(x, state)
    return x


class Attention(nn.Module):
    """Causal sliding-window attention over `sliding_window` frames, the present one included. (B, T, hidden)."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.head_dim = config.attention_head_dim
        self.window = config.sliding_window
        self.rope_theta = config.rope_theta
        width, bias = config.hidden_size, config.attention_bias
        query_width = config.num_attention_heads * self.head_dim
        key_width = config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(width, query_width, bias=bias)
        self.k_proj = nn.Linear(width, key_width, bias=bias)
        self.v_proj = nn.Linear(width, key_width, bias=bias)
        self.o_proj = nn.Linear(query_width, width, bias=bias)

    def forward(self, x: Tensor, state: State, padding: Tensor | None = None) -> Tensor:
        queries, keys, values = (self._heads(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        past = state.get(self)
        if past is not None:
            keys, values = torch.cat((past[0], keys), 2), torch.cat((past[1], values), 2)
        kept = max(keys.shape[2] - self.window + 1, 0)
        state[self] = torch.stack((keys[:, :, kept:], values[:, :, kept:]))
        # Keys are cached unrotated and positions count from the oldest one: RoPE depends on differences only, and
        # positions stay small however long the stream is.
        cos, sin = (part.to(keys.dtype).to(x.device) for part in self._rotation(keys.shape[2], x.device))
        new = queries.shape[2]
        queries, keys = _rotate(queries, cos[-new:], sin[-new:]), _rotate(keys, cos, sin)
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, self._mask(new, keys.shape[2], x.device, padding), enable_gqa=True
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _rotation(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        device = float64_device(device)
        exponents = torch.arange(0, self.head_dim, 2, device=device, dtype=torch.float64) / self.head_dim
        positions = torch.arange(length, device=device, dtype=torch.float64)
        angles = torch.outer(positions, self.rope_theta**-exponents).repeat(1, 2)
        return angles.cos(), angles.sin()

    def _mask(self, new: int, length: int, device: torch.device, padding: Tensor | None) -> Tensor:
        """(new, length), or (B, 1, new, length) with padding: where a frame attends."""
        frames = torch.arange(length, device=device)
        back = frames[length - new :, None] - frames
        mask = (back >= 0) & (back < self.window)
        return mask if padding is None else mask & (frames >= padding[:, None])[:, None, None]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class GatedMLP(nn.Module):
    """Gated MLP: down(act(gate(x)) * up(x))."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.activation = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class LayerScale(nn.Module):
    """Learned scale of each channel of a residual branch."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((config.hidden_size,), config.layer_scale_initial_scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


class TransformerLayer(nn.Module):
    """Pre-norm transformer block with LayerScale on attention and MLP. (B, T, hidden)."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = GatedMLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn_layer_scale = LayerScale(config)
        self.mlp_layer_scale = LayerScale(config)

    def forward(self, x: Tensor, state: State, padding: Tensor | None = None) -> Tensor:
        x = x + self.self_attn_layer_scale(self.self_attn(self.input_layernorm(x), state, padding))
        return x + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(x)))


class FrameTransformer(nn.Module):
    """Sliding-window transformer at the frame rate: (B, latent, T) -> (B, latent, T)."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.input_proj = nn.Linear(config.latent_dim, config.hidden_size)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.output_proj = nn.Linear(config.hidden_size, config.latent_dim)

    def forward(self, x: Tensor, state: State) -> Tensor:
        hidden, padding = self.input_proj(x.transpose(1, 2)), state.get(self)
        for layer in self.layers:
            hidden = layer(hidden, state, padding)
        return self.output_proj(self.norm(hidden)).transpose(1, 2)


class CodecDecoder(nn.Module):
    """Codec decoder, code frames to waveform; `state_dict()` has the official names below `decoder.`.

    Differentiable in the latents and in every parameter (codebooks are buffers), for chunks and whole utterances alike.
    """

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = SplitQuantizer(config)
        self.pre_conv = CausalConv(config.codebook_dim, config.latent_dim, 3)
        self.pre_transformer = FrameTransformer(config)
        latent = config.latent_dim
        self.upsample = nn.ModuleList(
            nn.ModuleList([CausalUpsample(latent, latent, ratio, ratio), ConvNeXtBlock(latent)])
            for ratio in config.upsampling_ratios
        )
        widths = [config.decoder_dim // 2**stage for stage in range(len(config.upsample_rates) + 1)]
        stages = [
            UpsampleBlock(widths[stage], widths[stage + 1], rate) for stage, rate in enumerate(config.upsample_rates)
        ]
        self.decoder = nn.ModuleList(
            [CausalConv(latent, widths[0], 7), *stages, SnakeBeta(widths[-1]), CausalConv(widths[-1], 1, 7)]
        )

    def forward(self, codes: Tensor, state: State | None = None) -> Tensor:
        """Codes (B, T, num_quantizers) int64 -> samples (B, T * samples_per_frame) in [-1, 1].

        With `state`, the codes continue the chunks that were decoded before with the same dictionary.
        """
        return self.synthesize(self.quantizer(codes), state).clamp(-1, 1)

    def synthesize(self, latents: Tensor, state: State | None = None) -> Tensor:
        """Quantised latents (B, codebook_dim, T) -> samples (B, T * samples_per_frame), not yet clamped."""
        state = {} if state is None else state
        wide, narrow = self.pre_conv.conv.weight.dtype, cast(CausalConv, self.decoder[-1]).conv.weight.dtype
        hidden = self.pre_transformer(self.pre_conv(latents.to(wide), state), state)
        for stage in self.upsample:
            hidden = run(cast(nn.ModuleList, stage), hidden, state)
        first, *stages = self.decoder
        hidden = first(hidden, state)
        if wide != narrow:
            hidden = hidden.to(narrow)
        return run(stages, hidden, state).squeeze(1)

    def join_states(self, states: Sequence[State]) -> State:
        """One state for a batch of all utterances, whose chunks so far may be of different lengths.

        Zeros stand where an utterance has no past: convolutions begin with zeros anyway, and attention masks them.
        """
        joined: State = {}
        for layer in dict.fromkeys(chain.from_iterable(states)):
            past = next(state[layer] for state in states if layer in state)
            if not isinstance(layer, Attention):
                joined[layer] = torch.cat([state.get(layer, torch.zeros_like(past)) for state in states])
                continue
            parts = [state.get(layer, past[:, :, :, :0]) for state in states]
            missing = [max(part.shape[3] for part in parts) - part.shape[3] for part in parts]
            padded = [F.pad(part, (0, 0, frames, 0)) for part, frames in zip(parts, missing, strict=True)]
            joined[layer] = torch.cat(padded, 1)
            if any(missing):
                joined[self.pre_transformer] = torch.tensor(missing, device=past.device)
        return joined

    def split_state(self, joined: State, frames: Sequence[int]) -> list[State]:
        """The state of each utterance of a batch; `frames`: how many each has decoded so far."""
        states: list[State] = [{} for _ in frames]
        for layer, past in joined.items():
            for index, (state, decoded) in enumerate(zip(states, frames, strict=True)):
                if isinstance(layer, Attention):
                    state[layer] = past[:, index : index + 1, :, max(0, past.shape[3] - decoded) :].clone()
                elif layer is not self.pre_transformer:
                    state[layer] = past[index : index + 1].clone()
        return states

    def to_float64(self) -> None:
        """Converts all layers before the waveform stages to float64, so that chunks equal the whole within 1e-5.

        Rounding depends on the length of a chunk, and the waveform stages amplify it: with these layers in float32,
        chunks can differ from the whole by more. They run at a few steps a frame, so float64 costs little.
        """
        for layer in (self.quantizer, self.pre_conv, self.pre_transformer, self.upsample, self.decoder[0]):
            layer.double()
