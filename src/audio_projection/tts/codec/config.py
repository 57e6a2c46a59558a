"""Configuration of the 12 Hz codec, read from `speech_tokenizer/config.json` of an official checkpoint folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audio_projection.errors import AudioProjectionError
from audio_projection.files.json_reader import read_json_object
from audio_projection.tts.config import ConfigReader
from audio_projection.tts.layers import ACTIVATIONS


@dataclass(frozen=True)
class CodecDecoderConfig:
    """Sizes of the codec decoder (codes to waveform). Names and defaults are the official ones.

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
        """Hop size: decoded samples of one frame."""
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
        """From the official JSON object. Keys that do not change the computation are ignored.

        Raises AudioProjectionError, naming `where`, when a size is missing, of the wrong type or contradicts another.
        """
        reader = ConfigReader(values, where)
        config = cls(
            decoder=_decoder_config(reader.section("decoder_config")),
            encoder=reader.section("encoder_config").values,
            encoder_valid_num_quantizers=reader.size("encoder_valid_num_quantizers", 16),
            input_sample_rate=reader.size("input_sample_rate", 24000),
            output_sample_rate=reader.size("output_sample_rate", 24000),
            encode_downsample_rate=reader.size("encode_downsample_rate", 1920),
        )
        declared = reader.size("decode_upsample_rate", 1920)
        if declared != config.samples_per_frame:
            raise AudioProjectionError(
                f"{where}: decode_upsample_rate is {declared}, but upsampling_ratios and upsample_rates make "
                f"{config.samples_per_frame} samples a frame"
            )
        return config

    @classmethod
    def from_folder(cls, folder: str | Path) -> CodecConfig:
        """Read `folder/config.json`; AudioProjectionError when it is absent, no JSON or no codec's."""
        path = Path(folder) / "config.json"
        return cls.from_dict(read_json_object(path, "the speech_tokenizer folder of a Qwen3-TTS"), str(path))

    def to_dict(self) -> dict[str, Any]:
        """The official JSON object; `from_dict` restores this configuration from it."""
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
        """The official preprocessor_config.json, from which the official package reads the encoder's sample rate."""
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


def _decoder_config(reader: ConfigReader) -> CodecDecoderConfig:
    values, defaults = reader.values, CodecDecoderConfig()
    if values.get("rope_scaling"):
        raise AudioProjectionError(f"{reader.where}: rope_scaling is not supported (null expected)")
    config = CodecDecoderConfig(
        num_quantizers=reader.size("num_quantizers", defaults.num_quantizers),
        codebook_size=reader.size("codebook_size", defaults.codebook_size),
        codebook_dim=reader.size("codebook_dim", defaults.codebook_dim),
        latent_dim=reader.size("latent_dim", defaults.latent_dim),
        hidden_size=reader.size("hidden_size", defaults.hidden_size),
        intermediate_size=reader.size("intermediate_size", defaults.intermediate_size),
        num_hidden_layers=reader.size("num_hidden_layers", defaults.num_hidden_layers),
        num_attention_heads=reader.size("num_attention_heads", defaults.num_attention_heads),
        num_key_value_heads=reader.size("num_key_value_heads", defaults.num_key_value_heads),
        head_dim=reader.size("head_dim", 1) if values.get("head_dim") is not None else None,
        hidden_act=str(values.get("hidden_act", defaults.hidden_act)),
        attention_bias=reader.flag("attention_bias"),
        sliding_window=reader.size("sliding_window", defaults.sliding_window),
        rope_theta=reader.number("rope_theta", defaults.rope_theta),
        rms_norm_eps=reader.number("rms_norm_eps", defaults.rms_norm_eps),
        layer_scale_initial_scale=reader.number("layer_scale_initial_scale", defaults.layer_scale_initial_scale),
        decoder_dim=reader.size("decoder_dim", defaults.decoder_dim),
        upsample_rates=_rates(reader, "upsample_rates", defaults.upsample_rates),
        upsampling_ratios=_rates(reader, "upsampling_ratios", defaults.upsampling_ratios),
    )
    _check_decoder(config, reader.where)
    return config


def _rates(reader: ConfigReader, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    value = reader.values.get(key, default)
    whole = isinstance(value, (list, tuple)) and all(type(rate) is int and rate > 0 for rate in value)
    if not whole or not value:
        raise AudioProjectionError(f"{reader.where}: {key} is {value!r}, must be a list of whole numbers above 0")
    return tuple(value)


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
    elif config.hidden_act not in ACTIVATIONS:
        problem = f"hidden_act {config.hidden_act!r} is unknown"
    if problem:
        raise AudioProjectionError(f"{where}: {problem}")
