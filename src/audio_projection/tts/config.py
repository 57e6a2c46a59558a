"""Configuration of a Qwen3-TTS checkpoint (sizes, special ids, languages, speakers), read from its `config.json`.

Defaults are those of the official configuration classes (qwen-tts 0.1.1, configuration_qwen3_tts.py), so that keys
which an official file leaves out have their official values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audio_projection.errors import AudioProjectionError
from audio_projection.files.json_reader import read_json_object

KINDS = ("custom_voice", "voice_design", "base")
SPECIAL_CODES = 1024
"""The last so many ids of the talker's vocabulary are no codes; of them only the end of speech is ever generated."""


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of one transformer stack, the talker's or the code predictor's."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    hidden_act: str = "silu"
    attention_bias: bool = False
    max_positions: int = 32768
    windows: tuple[int | None, ...] = ()
    """Sliding window of each layer in positions, the present one included; None: full attention."""

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise AudioProjectionError(
                f"config.json: num_attention_heads {self.num_heads} is no multiple of "
                f"num_key_value_heads {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise AudioProjectionError(f"config.json: head_dim {self.head_dim} is odd; rotary positions need it even")


@dataclass(frozen=True)
class TalkerConfig:
    """The talker: a causal transformer over summed text and code embeddings that predicts codebook 0."""

    transformer: TransformerConfig
    vocab_size: int
    text_vocab_size: int
    text_hidden_size: int
    code_groups: int
    tied: bool
    codec_pad: int
    codec_bos: int
    codec_eos: int
    codec_think: int
    codec_nothink: int
    codec_think_bos: int
    codec_think_eos: int
    languages: Mapping[str, int] = field(default_factory=dict)
    speakers: Mapping[str, int] = field(default_factory=dict)
    dialects: Mapping[str, str | bool] = field(default_factory=dict)
    """For each speaker the dialect that he speaks (a name in `languages`), or False."""


@dataclass(frozen=True)
class PredictorConfig:
    """The code predictor: predicts codebooks 1 and up of a frame, one after another."""

    transformer: TransformerConfig
    vocab_size: int
    code_groups: int


@dataclass(frozen=True)
class Qwen3TTSConfig:
    """The whole of `config.json`. `raw` is the file's own object, for writing the folder again."""

    kind: str
    talker: TalkerConfig
    predictor: PredictorConfig
    tts_pad: int
    tts_bos: int
    tts_eos: int
    model_size: str = ""
    speaker_encoder: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def hidden_size(self) -> int:
        """Width of the talker: of text embeddings, code embeddings and a projector's output."""
        return self.talker.transformer.hidden_size

    @property
    def code_groups(self) -> int:
        return self.talker.code_groups

    @property
    def language_names(self) -> list[str]:
        """Languages that a user may choose. Dialects come with their speakers, as in the official package."""
        return ["auto", *(name for name in self.talker.languages if "dialect" not in name)]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> Qwen3TTSConfig:
        """From the official JSON object; AudioProjectionError names `where` when it is foreign or contradictory."""
        if values.get("model_type") != "qwen3_tts":
            raise AudioProjectionError(
                f"{where} describes a model of type {values.get('model_type')!r}, not a Qwen3-TTS ('qwen3_tts')"
            )
        kind = values.get("tts_model_type")
        if kind not in KINDS:
            raise AudioProjectionError(f"{where}: tts_model_type is {kind!r}, must be one of {', '.join(KINDS)}")
        reader = ConfigReader(values, where)
        talker_reader = reader.section("talker_config")
        talker = _talker(talker_reader)
        config = cls(
            kind=kind,
            talker=talker,
            predictor=_predictor(talker_reader.section("code_predictor_config")),
            tts_pad=reader.integer("tts_pad_token_id", 151671),
            tts_bos=reader.integer("tts_bos_token_id", 151672),
            tts_eos=reader.integer("tts_eos_token_id", 151673),
            model_size=str(values.get("tts_model_size") or ""),
            speaker_encoder=dict(values.get("speaker_encoder_config") or {}),
            raw=dict(values),
        )
        _check(config, where)
        return config

    @classmethod
    def from_folder(cls, folder: str | Path) -> Qwen3TTSConfig:
        """Read `folder/config.json`; AudioProjectionError when it is absent, no JSON or no Qwen3-TTS."""
        path = Path(folder) / "config.json"
        return cls.from_dict(read_json_object(path, "a Qwen3-TTS folder"), str(path))


_LARGEST = 100_000_000
_MOST_LAYERS = 1_000


@dataclass(frozen=True)
class ConfigReader:
    """Typed look-ups in one JSON object; errors name the file and the key."""

    values: Mapping[str, Any]
    where: str

    def section(self, key: str) -> ConfigReader:
        """The object under `key`."""
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise AudioProjectionError(f"{self.where}: section {key!r} is missing")
        return ConfigReader(value, f"{self.where}, {key}")

    def integer(self, key: str, default: int) -> int:
        """An integer of at least 0, and no larger than anything in a model."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
            raise AudioProjectionError(f"{self.where}: {key} is {value!r}, must be a whole number, at most {_LARGEST}")
        return value

    def layers(self, key: str, default: int) -> int:
        """A number of layers."""
        value = self.size(key, default)
        if value > _MOST_LAYERS:
            raise AudioProjectionError(f"{self.where}: {key} is {value}, more than {_MOST_LAYERS}")
        return value

    def size(self, key: str, default: int) -> int:
        """An integer of at least 1."""
        value = self.integer(key, default)
        if not value:
            raise AudioProjectionError(f"{self.where}: {key} must be at least 1")
        return value

    def number(self, key: str, default: float) -> float:
        """A number above 0."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise AudioProjectionError(f"{self.where}: {key} is {value!r}, must be a number above 0")
        return float(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """The object under `key`, empty where there is none."""
        value = self.values.get(key) or {}
        if not isinstance(value, Mapping):
            raise AudioProjectionError(f"{self.where}: {key} is {value!r}, must be an object")
        return dict(value)

    def flag(self, key: str) -> bool:
        return bool(self.values.get(key, False))


def _talker(reader: ConfigReader) -> TalkerConfig:
    layers = reader.layers("num_hidden_layers", 20)
    window = reader.size("sliding_window", 4096) if reader.flag("use_sliding_window") else None
    sizes = {"hidden": 1024, "intermediate": 2048, "kv_heads": 2, "head_dim": None}
    return TalkerConfig(
        transformer=_transformer(reader, layers, (window,) * layers, sizes),
        vocab_size=reader.size("vocab_size", 3072),
        text_vocab_size=reader.size("text_vocab_size", 151936),
        text_hidden_size=reader.size("text_hidden_size", 2048),
        code_groups=reader.size("num_code_groups", 32),
        tied=reader.flag("tie_word_embeddings"),
        codec_pad=reader.integer("codec_pad_id", 4196),
        codec_bos=reader.integer("codec_bos_id", 4197),
        codec_eos=reader.integer("codec_eos_token_id", 4198),
        codec_think=reader.integer("codec_think_id", 4202),
        codec_nothink=reader.integer("codec_nothink_id", 4203),
        codec_think_bos=reader.integer("codec_think_bos_id", 4204),
        codec_think_eos=reader.integer("codec_think_eos_id", 4205),
        languages=reader.mapping("codec_language_id"),
        speakers=reader.mapping("spk_id"),
        dialects=reader.mapping("spk_is_dialect"),
    )


def _predictor(reader: ConfigReader) -> PredictorConfig:
    layers = reader.layers("num_hidden_layers", 5)
    window = reader.size("sliding_window", 4096) if reader.flag("use_sliding_window") else None
    first = reader.integer("max_window_layers", 28)
    kinds = reader.values.get("layer_types") or [
        "sliding_attention" if window is not None and layer >= first else "full_attention" for layer in range(layers)
    ]
    windows = tuple(window if kind == "sliding_attention" else None for kind in kinds[:layers])
    sizes = {"hidden": 1024, "intermediate": 3072, "kv_heads": 8, "head_dim": 128}
    return PredictorConfig(
        transformer=_transformer(reader, layers, windows, sizes),
        vocab_size=reader.size("vocab_size", 2048),
        code_groups=reader.size("num_code_groups", 32),
    )


def _transformer(
    reader: ConfigReader, layers: int, windows: tuple[int | None, ...], sizes: Mapping[str, int | None]
) -> TransformerConfig:
    _require_plain_rope(reader)
    hidden = reader.size("hidden_size", sizes["hidden"] or 0)
    heads = reader.size("num_attention_heads", 16)
    kv_heads = heads if reader.values.get("num_key_value_heads", 0) is None else None
    return TransformerConfig(
        hidden_size=hidden,
        intermediate_size=reader.size("intermediate_size", sizes["intermediate"] or 0),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads or reader.size("num_key_value_heads", sizes["kv_heads"] or 0),
        head_dim=reader.size("head_dim", sizes["head_dim"] or hidden // heads),
        rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
        rope_theta=reader.number("rope_theta", 10000.0),
        hidden_act=str(reader.values.get("hidden_act", "silu")),
        attention_bias=reader.flag("attention_bias"),
        max_positions=reader.size("max_position_embeddings", 32768),
        windows=windows,
    )


def _require_plain_rope(reader: ConfigReader) -> None:
    """Refuses scaled RoPE. The talker's multimodal RoPE is plain RoPE, because its three positions are always equal."""
    scaling = reader.mapping("rope_scaling")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "mrope"):
        raise AudioProjectionError(f"{reader.where}: rope type {kind!r} is not supported (only 'default' is)")


def _check(config: Qwen3TTSConfig, where: str) -> None:
    talker, predictor = config.talker, config.predictor
    if talker.code_groups != predictor.code_groups or talker.code_groups < 2:
        raise AudioProjectionError(
            f"{where}: num_code_groups is {talker.code_groups} in talker_config and {predictor.code_groups} in "
            "code_predictor_config; they must be the same and at least 2"
        )
    codec_ids = {
        "codec_eos_token_id": talker.codec_eos,
        "codec_bos_id": talker.codec_bos,
        "codec_pad_id": talker.codec_pad,
        "codec_think_id": talker.codec_think,
        "codec_nothink_id": talker.codec_nothink,
        "codec_think_bos_id": talker.codec_think_bos,
        "codec_think_eos_id": talker.codec_think_eos,
    }
    codec_ids |= {f"spk_id {name!r}": number for name, number in talker.speakers.items()}
    codec_ids |= {f"codec_language_id {name!r}": number for name, number in talker.languages.items()}
    for name, number in codec_ids.items():
        if not isinstance(number, int) or not 0 <= number < talker.vocab_size:
            raise AudioProjectionError(f"{where}: {name} is {number!r}, outside the vocabulary of {talker.vocab_size}")
    text_ids = {
        "tts_pad_token_id": config.tts_pad,
        "tts_bos_token_id": config.tts_bos,
        "tts_eos_token_id": config.tts_eos,
    }
    for name, number in text_ids.items():
        if number >= talker.text_vocab_size:
            raise AudioProjectionError(f"{where}: {name} is {number}, outside text_vocab_size {talker.text_vocab_size}")
