"""Streaming codec decoder of the 12 Hz Qwen3-TTS tokenizer: code frames to waveform.

Official source: `qwen_tts/core/tokenizer_12hz/modeling_qwen3_tts_tokenizer_v2.py`; attribute names are the official
parameter names. Every layer has the form `layer(x, state)`: it reads its past (convolution context, keys and values)
from `state` and stores there what the next chunk needs. A whole utterance is one chunk with an empty state, so
streaming and batch are the same computation. Channels last, (B, T, C): a tap of a convolution is a product of matrices,
and upsampling needs no movement of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_projection.devices import float64_device
from audio_projection.tts.codec.config import CodecDecoderConfig
from audio_projection.tts.codec.quantizer import SplitQuantizer
from audio_projection.tts.layers import activation

State = dict[nn.Module, Tensor]
"""Each layer's streaming state between two chunks of the same batch of utterances; `{}` before the first chunk.

That of a convolution is (B, T, C), that of attention (2, B, heads, frames, head_dim). `FrameTransformer` has one only
where the utterances of a batch have pasts of different lengths: (B,), how many of the oldest frames are padding.
"""


class Causal(nn.Module):
    """A layer that sees the `context` rows before its own, zeros before the first frame."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.context = context

    def forward(self, x: Tensor, state: State, act: SnakeBeta | None = None) -> Tensor:
        """The layer applied to x (B, T, in), or to act(x)."""
        return self.compute(self._with_past(x, state, act))

    def compute(self, x: Tensor) -> Tensor:
        """The layer without padding: x (B, context + T, in)."""
        raise NotImplementedError

    def _with_past(self, x: Tensor, state: State, act: SnakeBeta | None) -> Tensor:
        if not self.context:
            return x if act is None else act(x)
        past, (batch, length, channels) = state.get(self), x.shape
        if torch.is_grad_enabled():
            activated = x if act is None else act(x)
            first = x.new_zeros(batch, self.context, channels) if past is None else past
            joined = torch.cat((first, activated), 1)
        else:  # everything is written where the convolution reads it
            joined = x.new_empty(batch, self.context + length, channels)
            joined[:, : self.context] = 0.0 if past is None else past
            place = joined[:, self.context :]
            _ = place.copy_(x) if act is None else act.into(place, x)
        state[self] = joined[:, -self.context :].clone()  # a view would keep the whole chunk alive
        return joined


class CausalConv(Causal):
    """Causal convolution: (B, T, in) -> (B, T, out)."""

    WIDE = 128 * 128
    """Channels in times channels out from which a CPU computes a product for each tap: libraries for convolutions would
    reorder the weights in every call, which for the few frames of a chunk takes as long as the convolution."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, dilation: int = 1, groups: int = 1) -> None:
        super().__init__((kernel - 1) * dilation)
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, dilation=dilation, groups=groups)

    def compute(self, x: Tensor) -> Tensor:
        weight, bias, dilation = self.conv.weight, cast(Tensor, self.conv.bias), self.conv.dilation[0]
        if x.device.type != "cpu" or (weight.dtype == torch.float32 and weight.shape[0] * weight.shape[1] < self.WIDE):
            image = x.transpose(1, 2)[:, :, None]  # as a picture one pixel high it keeps its channels last
            return F.conv2d(image, weight[:, :, None], bias, dilation=(1, dilation))[:, :, 0].transpose(1, 2)
        return _products(x, [tap.t() for tap in weight.unbind(2)], bias, dilation)

    def add_to(self, x: Tensor, y: Tensor) -> Tensor:
        """x plus the convolution, of kernel 1, of y."""
        weight, bias = self.conv.weight, cast(Tensor, self.conv.bias)
        return (x + bias).baddbmm_(y, weight[:, :, 0].t().expand(len(y), -1, -1))


def _products(x: Tensor, factors: Sequence[Tensor], bias: Tensor, step: int) -> Tensor:
    """Sum over k of x[:, k * step :] @ factors[k]: (B, T + (K-1) * step, in) and (in, out) -> (B, T, out)."""
    length, batch = x.shape[1] - (len(factors) - 1) * step, len(x)
    total = torch.baddbmm(bias, x[:, :length], factors[0].expand(batch, -1, -1))
    for k, factor in enumerate(factors[1:], 1):
        total.baddbmm_(x[:, k * step : k * step + length], factor.expand(batch, -1, -1))
    return total


class DepthwiseConv(CausalConv):
    """Causal depthwise convolution as a sum of products: torch's own is slow in float64, one channel at a time."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, groups=channels)

    def compute(self, x: Tensor) -> Tensor:
        windows, filters = x.unfold(1, self.context + 1, 1), self.conv.weight[:, 0]
        return (windows * filters).sum(-1) + cast(Tensor, self.conv.bias)


class CausalUpsample(Causal):
    """Causal upsampling, a transposed convolution trimmed on the right: (B, T, in) -> (B, T * stride, out).

    It is a product for each stride that an input frame reaches into.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int) -> None:
        assert kernel % stride == 0, "each input frame reaches into whole strides"
        super().__init__(kernel // stride - 1)
        self.conv = nn.ConvTranspose1d(channels_in, channels_out, kernel, stride=stride)

    def compute(self, x: Tensor) -> Tensor:
        stride, (channels_in, channels, _) = self.conv.stride[0], self.conv.weight.shape
        pieces = self.conv.weight.transpose(1, 2).split(stride, 1)  # each (in, stride, out), that of the newest first
        bias = cast(Tensor, self.conv.bias).repeat(stride)
        columns = _products(x, [piece.reshape(channels_in, -1) for piece in reversed(pieces)], bias, 1)
        return columns.view(len(x), -1, channels)


class SnakeBeta(nn.Module):
    """Snake activation x + sin^2(exp(alpha) x) / exp(beta) per channel (Ziyin et al., 2020, with its own magnitude);
    (B, T, C) keeps its shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self._known: tuple[object, tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.into(torch.empty_like(x), x)
        frequency, magnitude = self._factors()
        return torch.addcmul(x, (x * frequency).sin().square(), magnitude)

    def into(self, place: Tensor, x: Tensor) -> Tensor:
        """The activation of x, written to `place`; not differentiable."""
        frequency, magnitude = self._frozen_factors()
        sines = torch.mul(x, frequency, out=place).sin_()
        return torch.addcmul(x, sines.square_(), magnitude, out=place)

    def _factors(self) -> tuple[Tensor, Tensor]:
        """Frequency and magnitude (C,)."""
        return self.alpha.exp(), (self.beta.exp() + 1e-9).reciprocal()

    def _frozen_factors(self) -> tuple[Tensor, Tensor]:
        """As `_factors`, computed again only where the parameters have changed."""
        key = tuple((part.data_ptr(), 0 if part.is_inference() else part._version) for part in (self.alpha, self.beta))
        if self._known is None or self._known[0] != key:
            self._known = (key, self._factors())
        return self._known[1]


class ConvNeXtBlock(nn.Module):
    """ConvNeXt block: depthwise convolution and pointwise MLP with a residual connection; (B, T, C) keeps its shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = DepthwiseConv(channels, 7)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor, state: State) -> Tensor:
        y = self.norm(self.dwconv(x, state))
        return torch.addcmul(x, self.gamma, self.pwconv2(F.gelu(self.pwconv1(y))))


class ResidualUnit(nn.Module):
    """Two convolutions with Snake activations and a residual connection; (B, T, C) keeps its shape."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.act1 = SnakeBeta(channels)
        self.conv1 = CausalConv(channels, channels, 7, dilation=dilation)
        self.act2 = SnakeBeta(channels)
        self.conv2 = CausalConv(channels, channels, 1)

    def forward(self, x: Tensor, state: State) -> Tensor:
        return self.conv2.add_to(x, self.act2(self.conv1(x, state, self.act1)))


class UpsampleBlock(nn.Module):
    """One upsampling stage of the waveform decoder: (B, T, in) -> (B, T * rate, out)."""

    def __init__(self, channels_in: int, channels_out: int, rate: int) -> None:
        super().__init__()
        units = [ResidualUnit(channels_out, dilation) for dilation in (1, 3, 9)]
        upsample = CausalUpsample(channels_in, channels_out, 2 * rate, rate)
        self.block = nn.ModuleList([SnakeBeta(channels_in), upsample, *units])

    def forward(self, x: Tensor, state: State) -> Tensor:
        act, upsample, *units = self.block
        return run(units, upsample(x, state, act), state)


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

    def forward(self, x: Tensor, state: State, places: Places) -> Tensor:
        queries, keys, values = (self._heads(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        past = state.get(self)
        if past is not None:
            keys, values = torch.cat((past[0], keys), 2), torch.cat((past[1], values), 2)
        kept = max(keys.shape[2] - self.window + 1, 0)
        state[self] = torch.stack((keys[:, :, kept:], values[:, :, kept:]))
        new = queries.shape[2]
        # Keys are cached unrotated and positions count from the oldest one: RoPE depends on differences only, and
        # positions stay small however long the stream is.
        queries = _rotate(queries, places.cos[-new:], places.sin[-new:])
        keys = _rotate(keys, places.cos, places.sin)
        mixed = F.scaled_dot_product_attention(queries, keys, values, places.mask, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def places(self, x: Tensor, state: State, padding: Tensor | None) -> Places:
        """What all layers need to know of the positions of a chunk x (B, T, ...) and of its past."""
        past = state.get(self)
        new = x.shape[1]
        length = new if past is None else new + past.shape[3]
        cos, sin = (part.to(x) for part in self._rotation(length, x.device))
        return Places(cos, sin, self._mask(new, length, x.device, padding))

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


class Places(NamedTuple):
    """Rotary cosines and sines (past + T, head_dim), and where the frames of a chunk attend, as `Attention._mask`."""

    cos: Tensor
    sin: Tensor
    mask: Tensor


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

    def forward(self, x: Tensor, state: State, places: Places) -> Tensor:
        x = x + self.self_attn_layer_scale(self.self_attn(self.input_layernorm(x), state, places))
        return x + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(x)))


class FrameTransformer(nn.Module):
    """Sliding-window transformer at the frame rate: (B, T, latent) -> (B, T, latent)."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.input_proj = nn.Linear(config.latent_dim, config.hidden_size)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.output_proj = nn.Linear(config.hidden_size, config.latent_dim)

    def forward(self, x: Tensor, state: State) -> Tensor:
        hidden = self.input_proj(x)
        places = cast(TransformerLayer, self.layers[0]).self_attn.places(hidden, state, state.get(self))
        for layer in self.layers:
            hidden = layer(hidden, state, places)
        return self.output_proj(self.norm(hidden))


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
        hidden = self.pre_transformer(self.pre_conv(latents.to(wide).transpose(1, 2), state), state)
        for stage in self.upsample:
            hidden = run(cast(nn.ModuleList, stage), hidden, state)
        first, *stages, act, last = self.decoder
        hidden = first(hidden, state)
        if wide != narrow:
            hidden = hidden.to(narrow)
        return last(run(stages, hidden, state), state, act).squeeze(2)

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

    def to_channels_last(self) -> None:
        """Lays the weights of convolutions out in memory as products read them; shapes and values stay."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
                layer.weight.data = layer.weight.data.transpose(1, 2).contiguous().transpose(1, 2)

    def to_float64(self) -> None:
        """Converts all layers before the waveform stages to float64, so that chunks equal the whole within 1e-5.

        Rounding depends on the length of a chunk, and the waveform stages amplify it: with these layers in float32,
        chunks can differ from the whole by more. They run at a few steps a frame, so float64 costs little.
        """
        for layer in (self.quantizer, self.pre_conv, self.pre_transformer, self.upsample, self.decoder[0]):
            layer.double()
