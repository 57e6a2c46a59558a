"""Exports a Llama checkpoint folder to GGUF, and validates any LLM's GGUF file before llama.cpp loads it.

The layout is that of llama.cpp's own converter: rows of the query and key matrices permuted for its rotary position
embedding, the frequency factors of Llama 3's RoPE scaling as the tensor `rope_freqs.weight`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError, first_line
from audio_projection.files.tensor_folder import TensorFolder
from audio_projection.gguf.reader import GGUFFile, read_gguf
from audio_projection.gguf.tokenizer import vocabulary_keys
from audio_projection.gguf.writer import PlannedTensor, write_gguf
from audio_projection.sampling import Choice

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""LLM architectures that are supported, every tensor checked; Mistral and others like Llama are `llama` in GGUF."""
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_MODEL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_NO_MATRIX = {"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"}
"""Types that no matrix may have (vectors must be F32): llama.cpp aborts the process over them."""
_ROTARY = ("none", "linear", "yarn", "longrope")
_ROLES = ("eos", "eot", "eom")
"""GGUF has keys for three token ids that end an answer."""


def write_llm(folder: str | Path, path: str | Path, name: str, wanted: str = "F16") -> GGUFFile:
    """Exports the Llama in `folder` (config.json, safetensors, tokenizer) as `wanted`: F32, F16 or Q8_0.

    Raises AudioProjectionError for other architectures: llama.cpp's own converter makes files of those.
    """
    from audio_projection.llm.language_model import load_tokenizer

    folder = Path(folder)
    config = _config(folder)
    if config.model_type != "llama" or config.attention_bias or config.mlp_bias or config.hidden_act != "silu":
        raise AudioProjectionError(
            f"{folder} is a {config.model_type} model, only plain Llama models are exported here; "
            "make its file with llama.cpp's convert_hf_to_gguf.py and give it with --llm FILE"
        )
    tokenizer = load_tokenizer(str(folder))
    files = TensorFolder(folder)
    metadata = {
        "general.type": "model",
        "general.name": name,
        **_sizes(config),
        **_text_keys(folder, config, tokenizer),
    }
    tensors = [*_frequencies(config), *(_planned(files, name, config) for name in files.names())]
    return write_gguf(path, "llama", metadata, tensors, wanted)


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise AudioProjectionError(f"{folder} has no config.json of a language model ({reason})") from None


def check_llm(path: str | Path) -> GGUFFile:
    """Reads an LLM's GGUF file and checks names, shapes and types of its tensors against the sizes in its metadata.

    Raises AudioProjectionError for a damaged file, an unsupported architecture, or contradictory sizes.
    """
    file = read_gguf(path)
    check_not_split(file)  # its later parts have no architecture
    if file.architecture not in ARCHITECTURES:
        raise AudioProjectionError(
            f"{path} has the architecture {file.architecture!r}; language models are {', '.join(ARCHITECTURES)}"
        )
    rows = len(file.texts("tokenizer.ggml.tokens"))
    check_stack(file, {"token_embd.weight": rows}, {"output.weight": rows})
    return file


def sampling_of(file: GGUFFile) -> Choice:
    """How answers are drawn: the keys `general.sampling.*`; greedy where there are none."""
    key = "general.sampling."
    if file.metadata.get(f"{key}temp", 0) == 0:
        return Choice(greedy=True)
    top_k, top_p = max(0, file.whole(f"{key}top_k", 0, least=-1)), file.number(f"{key}top_p", 1.0)
    # GGUF stores float32: 0.6 is read as 0.6000000238
    return Choice(temperature=round(file.number(f"{key}temp"), 6), top_k=top_k, top_p=round(top_p, 6))


def end_ids_of(file: GGUFFile) -> set[int]:
    """Ids of the tokens that end an answer, by the metadata."""
    named = (file.metadata.get(f"tokenizer.ggml.{role}_token_id") for role in _ROLES)
    return {number for number in named if isinstance(number, int)}


def check_not_split(file: GGUFFile) -> None:
    """Raises AudioProjectionError for one part of a model that is split into several files."""
    count = file.metadata.get("split.count", 1)
    if isinstance(count, int) and count > 1:
        number = file.metadata.get("split.no", 0)
        raise AudioProjectionError(
            f"{file.path} is part {number + 1 if isinstance(number, int) else '?'} of {count} of a split model: make "
            "one file of the parts with llama.cpp's `llama-gguf-split --merge FIRST_PART OUT`"
        )


def check_stack(file: GGUFFile, tables: Mapping[str, int], optional: Mapping[str, int]) -> None:
    """Checks a decoder-only transformer: each tensor needed is there with its shape, and no unknown tensor is.

    `tables` (needed) and `optional` map names of tensors (rows, hidden size) to their number of rows. Raises
    AudioProjectionError naming the first tensor that is wrong.
    """
    sizes = StackSizes.of(file)
    needed, possible = sizes.shapes()
    needed |= {name: (rows, sizes.width) for name, rows in tables.items()}
    possible |= {name: (rows, sizes.width) for name, rows in optional.items()}
    absent = [name for name in needed if name not in file.tensors]
    if absent:
        raise AudioProjectionError(
            f"{file.path} lacks the tensor {absent[0]} and {len(absent) - 1} more; make it again"
        )
    for name, info in file.tensors.items():
        expected = needed.get(name) or possible.get(name)
        if expected is None or info.shape != expected:
            wanted = "is not known" if expected is None else f"should be {list(expected)}"
            raise AudioProjectionError(f"{file.path}: the tensor {name} {list(info.shape)} {wanted}; make it again")
        if info.type in _NO_MATRIX or (len(info.shape) == 1 and info.type != "F32"):
            raise AudioProjectionError(
                f"{file.path}: llama.cpp cannot compute with {name} as {info.type}; make it again"
            )


@dataclass(frozen=True)
class StackSizes:
    """Sizes of a decoder-only transformer, from the metadata of its file."""

    layers: int
    width: int  # hidden size
    inner: int  # of the feed-forward network
    heads: int
    kv_heads: int
    head: int  # numbers in one head

    @classmethod
    def of(cls, file: GGUFFile) -> StackSizes:
        """Raises AudioProjectionError naming the key that is missing, out of range or contradicts another."""
        arch = file.architecture
        width = file.whole(f"{arch}.embedding_length", most=1 << 17)
        heads = file.whole(f"{arch}.attention.head_count", most=1 << 12)
        kv_heads = file.whole(f"{arch}.attention.head_count_kv", heads, most=heads)
        head = file.whole(f"{arch}.attention.key_length", width // heads or None, most=1 << 12)
        inner = file.whole(f"{arch}.feed_forward_length", most=1 << 20)
        layers = file.whole(f"{arch}.block_count", most=256)
        file.whole(f"{arch}.context_length")
        file.number(f"{arch}.attention.layer_norm_rms_epsilon")
        file.number(f"{arch}.rope.freq_base", 10000.0)
        if file.metadata.get(f"{arch}.attention.causal", True) is not True:
            raise AudioProjectionError(
                f"{file.path} is no language model that writes: {arch}.attention.causal is not true"
            )
        if file.text(f"{arch}.rope.scaling.type", "none") not in _ROTARY:
            raise AudioProjectionError(f"{file.path}: {arch}.rope.scaling.type is none of {', '.join(_ROTARY)}")
        same = {"attention.value_length": head, "rope.dimension_count": head}
        same |= dict.fromkeys(["expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count"], 0)
        contradicting = [key for key, size in same.items() if file.whole(f"{arch}.{key}", size, least=0) != size]
        if heads % kv_heads or head % 2 or contradicting:
            what = contradicting[0] if contradicting else "attention.head_count_kv or attention.key_length"
            raise AudioProjectionError(f"{file.path}: {arch}.{what} does not fit the other sizes; make it again")
        return cls(layers, width, inner, heads, kv_heads, head)

    def shapes(self) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
        """Shapes of the required tensors, and of the optional ones."""
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        layer: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (self.width,),
            "attn_q.weight": (queries, self.width),
            "attn_k.weight": (keys, self.width),
            "attn_v.weight": (keys, self.width),
            "attn_output.weight": (self.width, queries),
            "ffn_norm.weight": (self.width,),
            "ffn_gate.weight": (self.inner, self.width),
            "ffn_up.weight": (self.inner, self.width),
            "ffn_down.weight": (self.width, self.inner),
        }
        extra: dict[str, tuple[int, ...]] = {
            "attn_q.bias": (queries,),
            "attn_k.bias": (keys,),
            "attn_v.bias": (keys,),
            "attn_q_norm.weight": (self.head,),
            "attn_k_norm.weight": (self.head,),
        }
        needed = {"output_norm.weight": (self.width,), **_each(layer, self.layers)}
        return needed, {"rope_freqs.weight": (self.head // 2,), **_each(extra, self.layers)}


def _each(layer: dict[str, tuple[int, ...]], layers: int) -> dict[str, tuple[int, ...]]:
    return {f"blk.{number}.{name}": shape for number in range(layers) for name, shape in layer.items()}


def _sizes(config: Any) -> dict[str, Any]:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.key_length": head,
        "llama.attention.value_length": head,
        "llama.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "llama.rope.dimension_count": head,
        "llama.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "llama.vocab_size": config.vocab_size,
    }


def _text_keys(folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Vocabulary, chat template, end-of-answer ids and default sampling."""
    from transformers import GenerationConfig

    settings = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else config
    listed = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    ends = [end for end in dict.fromkeys([tokenizer.eos_token_id, *listed]) if end is not None]
    roles = {f"tokenizer.ggml.{role}_token_id": end for role, end in zip(_ROLES, ends, strict=False)}
    sampling = {
        "general.sampling.temp": float(getattr(settings, "temperature", None) or 1.0),
        "general.sampling.top_k": int(getattr(settings, "top_k", None) or 0),
        "general.sampling.top_p": float(getattr(settings, "top_p", None) or 1.0),
    }
    return {
        **vocabulary_keys(tokenizer.backend_tokenizer, config.vocab_size),
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.add_bos_token": tokenizer.bos_token_id is not None,
        "tokenizer.chat_template": tokenizer.chat_template,
        **roles,
        **(sampling if getattr(settings, "do_sample", False) else {"general.sampling.temp": 0.0}),
    }


def _planned(files: TensorFolder, name: str, config: Any) -> PlannedTensor:
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    stored = _stored_name(name)
    reorder = heads.get(stored.split(".")[-2])
    return PlannedTensor(stored, files.shape(name), lambda: _numbers(files.tensor(name), reorder))


def _stored_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _MODEL:
        return f"{_MODEL[stem]}.weight"
    _, _, number, part = stem.split(".", 3) if stem.startswith("model.layers.") else ("", "", "", "")
    if part not in _LAYER:
        raise AudioProjectionError(f"the tensor {name} belongs to no plain Llama model: it cannot be exported")
    return f"blk.{number}.{_LAYER[part]}.weight"


def _numbers(tensor: Tensor, heads: int | None) -> np.ndarray:
    values = tensor.float().numpy()
    if heads is None:
        return values
    return values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def _frequencies(config: Any) -> Iterator[PlannedTensor]:
    """Factors by which Llama 3's RoPE scaling divides each rotary frequency; plain RoPE has no such tensor."""
    kind = config.rope_parameters.get("rope_type", "default")
    if kind == "default":
        return
    if kind != "llama3":
        raise AudioProjectionError(f"rotary positions of the kind {kind!r} cannot be exported (default and llama3 can)")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.int64).float() / size)
    factors = (plain / scaled).numpy()
    yield PlannedTensor("rope_freqs.weight", factors.shape, lambda: factors)
