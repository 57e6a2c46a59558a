"""Sizes of the 12 Hz codec, read from `speech_tokenizer/config.json` of an official checkpoint folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audio_projection.errors import AudioProjectionError


@dataclass(frozen=True)
class CodecDecoderConfig:
    """Sizes of the decoder (codes to waveform). Names and defaults are the official ones; see `CodecConfig.from_dict`.

    One frame becomes `prod(upsampling_ratios) * prod(upsample_rates)` samples.
    """

    num_quantizers: int = 16
    codebook_size: int = 2048
    codebook_dim: int = 512
    latent_dim: int = 1024
    hidden_size: int = 1024
    intermediate_size: int = 3072
    num_hidden_layers: int = 8
    num_attention_heads: int = 16
    num_key_value_heads: int = 16
    head_dim: int | None = None
    hidden_act: str = "silu"
    attention_bias: bool = False
    sliding_window: int = 72
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    layer_scale_initial_scale: float = 0.01
    decoder_dim: int = 1536
    upsample_rates: tuple[int, ...] = (8, 5, 4, 3)
    upsampling_ratios: tuple[int, ...] = (2, 2)

    @property
    def samples_per_frame(self) -> int:
        return math.prod(self.upsample_rates) * math.prod(self.upsampling_ratios)

    @property
    def attention_head_dim(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class CodecConfig:
    """The whole codec: the decoder's sizes, the encoder's Mimi configuration as written, and the rates in Hz."""

    decoder: CodecDecoderConfig = field(default_factory=CodecDecoderConfig)
    encoder: Mapping[str, Any] = field(default_factory=dict)
    encoder_valid_num_quantizers: int = 16
    input_sample_rate: int = 24000
    output_sample_rate: int = 24000
    encode_downsample_rate: int = 1920

    @property
    def samples_per_frame(self) -> int:
        return self.decoder.samples_per_frame

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "speech_tokenizer/config.json") -> CodecConfig:
        """Read the official JSON object. Keys that do not shape the computation are passed over.

        Raises AudioProjectionError, naming `where`, when a size is missing, of the wrong type or contradicts another.
        """
        rates = {
            name: _positive(values[name], f"{name} in {where}")
            for name in (
                "encoder_valid_num_quantizers",
                "input_sample_rate",
                "output_sample_rate",
                "encode_downsample_rate",
            )
            if name in values
        }
        config = cls(
            decoder=_decoder_config(_section(values, "decoder_config", where), where),
            encoder=dict(_section(values, "encoder_config", where)),
            **rates,
        )
        declared = values.get("decode_upsample_rate", config.samples_per_frame)
        if declared != config.samples_per_frame:
            raise AudioProjectionError(
                f"{where}: decode_upsample_rate is {declared}, but upsampling_ratios and upsample_rates make "
                f"{config.samples_per_frame} samples a frame"
            )
        return config

    def to_dict(self) -> dict[str, Any]:
        """The official JSON object, such that `from_dict` gives this configuration back."""
        decoder = {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(self.decoder).items()}
        decoder["head_dim"] = self.decoder.attention_head_dim
        return {
            "architectures": ["Qwen3TTSTokenizerV2Model"],
            "model_type": "qwen3_tts_tokenizer_12hz",
            "encoder_valid_num_quantizers": self.encoder_valid_num_quantizers,
            "input_sample_rate": self.input_sample_rate,
            "output_sample_rate": self.output_sample_rate,
            "decode_upsample_rate": self.samples_per_frame,
            "encode_downsample_rate": self.encode_downsample_rate,
            "encoder_config": dict(self.encoder),
            "decoder_config": decoder,
        }

    def preprocessor(self) -> dict[str, Any]:
        """The official preprocessor_config.json: the official package reads its encoder's rate from there."""
        return {
            "feature_extractor_type": "EncodecFeatureExtractor",
            "sampling_rate": self.input_sample_rate,
            "feature_size": 1,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
            "chunk_length_s": None,
            "overlap": None,
        }


def _section(values: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    section = values.get(name)
    if not isinstance(section, Mapping):
        raise AudioProjectionError(f"{where}: {name} is missing; this is not the folder of a 12 Hz Qwen3-TTS codec")
    return section


def _decoder_config(values: Mapping[str, Any], where: str) -> CodecDecoderConfig:
    known: dict[str, Any] = {}
    for spec in dataclasses.fields(CodecDecoderConfig):
        if spec.name not in values:
            continue
        value, name = values[spec.name], f"decoder_config.{spec.name} in {where}"
        if spec.name in ("upsample_rates", "upsampling_ratios"):
            known[spec.name] = _positives(value, name)
        elif spec.type == "int" or (spec.type == "int | None" and value is not None):
            known[spec.name] = _positive(value, name)
        elif spec.type == "float":
            known[spec.name] = _number(value, name)
        else:
            known[spec.name] = value
    if values.get("rope_scaling") not in (None, {}):
        raise AudioProjectionError(f"{where}: decoder_config.rope_scaling is not supported (null expected)")
    config = CodecDecoderConfig(**known)
    _check_decoder(config, where)
    return config


def _check_decoder(config: CodecDecoderConfig, where: str) -> None:
    problem = None
    if config.num_quantizers < 2:
        problem = "num_quantizers must be at least 2"
    elif config.codebook_dim % 2:
        problem = f"codebook_dim {config.codebook_dim} must be even"
    elif config.attention_head_dim % 2:
        problem = f"head_dim {config.attention_head_dim} must be even"
    elif config.num_attention_heads % config.num_key_value_heads:
        problem = f"{config.num_attention_heads} attention heads cannot share {config.num_key_value_heads} key heads"
    elif config.decoder_dim < 2 ** len(config.upsample_rates):
        problem = f"decoder_dim {config.decoder_dim} cannot be halved {len(config.upsample_rates)} times"
    if problem:
        raise AudioProjectionError(f"{where}: decoder_config: {problem}")


def _positive(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise AudioProjectionError(f"{name} must be a positive whole number, not {value!r}")
    return value


def _positives(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise AudioProjectionError(f"{name} must be a list of positive whole numbers, not {value!r}")
    return tuple(_positive(item, name) for item in value)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise AudioProjectionError(f"{name} must be a number, not {value!r}")
    return float(value)
