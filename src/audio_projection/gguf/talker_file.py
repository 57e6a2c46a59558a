"""Exports the talker and the code predictor of a Qwen3-TTS to GGUF files, and validates such files.

The talker has llama.cpp's own layout for Qwen3-TTS (architecture `qwen3tts`): projected text embeddings and codec
embeddings in one table, the codec head as output matrix. The code predictor, which llama.cpp knows only as part of a
multimodal file, is a plain `qwen3` here; its inputs are embeddings, and it has no vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from audio_projection.errors import AudioProjectionError
from audio_projection.files.tensor_folder import TensorFolder
from audio_projection.gguf.llm_file import check_stack
from audio_projection.gguf.reader import GGUFFile, read_gguf
from audio_projection.gguf.tokenizer import CONTROL, vocabulary_keys
from audio_projection.gguf.writer import PlannedTensor, write_gguf
from audio_projection.tts.config import SPECIAL_CODES, Qwen3TTSConfig, TransformerConfig
from audio_projection.tts.layers import activation
from audio_projection.tts.tokenizer import TextTokenizer

TALKER, PREDICTOR = "qwen3tts", "qwen3"
FINETUNED = "audio_projection.talker"
"""Key of a file that holds a fine-tuned talker."""
CODEC_ROWS = 3072
"""Size of the codec vocabulary that llama.cpp's qwen3tts requires; smaller ones are padded with zeros."""
_UNUSED_ROWS = 2
"""llama.cpp requires an embedding table; the predictor's is never read. Two rows: a single one would be a vector."""
_STACKS = {"talker": "talker.model.", "predictor": "talker.code_predictor.model."}
_OWN = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_ATTENTION = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
_NORMS = {"q_norm": "attn_q_norm", "k_norm": "attn_k_norm"}
_MLP = {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
_LAYER = {
    **_OWN,
    **{f"self_attn.{name}": stored for name, stored in (_ATTENTION | _NORMS).items()},
    **{f"mlp.{name}": stored for name, stored in _MLP.items()},
}


class Tensors(Protocol):
    """Tensors of a checkpoint by their official names; `TensorFolder` is one."""

    def names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def tensor(self, name: str) -> Tensor: ...


@dataclass(frozen=True)
class Replaced:
    """The tensors of a checkpoint, with some of them replaced."""

    files: Tensors
    others: Mapping[str, Tensor]

    def names(self) -> list[str]:
        return self.files.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.files.shape(name)

    def tensor(self, name: str) -> Tensor:
        return self.others[name] if name in self.others else self.files.tensor(name)


@dataclass(frozen=True)
class Checkpoint:
    """Configuration, tensors and tokenizer of a Qwen3-TTS, from which its GGUF files are made."""

    config: Qwen3TTSConfig
    tensors: Tensors
    tokenizer: TextTokenizer
    name: str
    finetuned: str = ""
    """A hash of a fine-tuned talker, by which the projector that was trained with it knows it; "" is none."""

    @classmethod
    def from_folder(cls, folder: str | Path) -> Checkpoint:
        """Opens a folder in the official layout. Raises AudioProjectionError naming what it lacks."""
        parts = Qwen3TTSConfig.from_folder(folder), TensorFolder(folder), TextTokenizer.from_folder(folder)
        return cls(*parts, Path(folder).name)


def write_talker(checkpoint: Checkpoint, path: str | Path, wanted: str = "F16") -> GGUFFile:
    """Exports the talker as `wanted` (F32, F16, Q8_0).

    Raises AudioProjectionError for a talker that llama.cpp cannot run.
    """
    config, files = checkpoint.config, checkpoint.tensors
    talker, stack = config.talker, config.talker.transformer
    if talker.vocab_size > CODEC_ROWS:
        raise AudioProjectionError(
            f"{checkpoint.name}: the codec vocabulary has {talker.vocab_size} ids, llama.cpp {CODEC_ROWS}"
        )
    codec, head = "talker.model.codec_embedding.weight", "talker.codec_head.weight"
    rows = talker.text_vocab_size + CODEC_ROWS
    tensors = [
        PlannedTensor("token_embd.weight", (rows, stack.hidden_size), partial(_table, files, config, codec)),
        PlannedTensor(
            "output.weight",
            (CODEC_ROWS, stack.hidden_size),
            lambda: _padded(files.tensor(head if head in files.names() else codec)),
        ),
        *_stack_tensors(files, "talker", stack),
    ]
    sections = config.raw["talker_config"].get("rope_scaling") or {}
    metadata = {
        **_sizes(TALKER, stack, checkpoint.name),
        f"{TALKER}.rope.dimension_sections": _sections(sections.get("mrope_section"), stack.head_dim),
        **_vocabulary(checkpoint.tokenizer, config),
        FINETUNED: checkpoint.finetuned or None,
    }
    return write_gguf(path, TALKER, metadata, tensors, wanted)


def write_predictor(checkpoint: Checkpoint, path: str | Path, wanted: str = "F16") -> GGUFFile:
    """Exports the transformer of the code predictor as `wanted` (F32, F16, Q8_0)."""
    files, stack = checkpoint.tensors, checkpoint.config.predictor.transformer
    unused = PlannedTensor(
        "token_embd.weight", (_UNUSED_ROWS, stack.hidden_size), lambda: _zeros(_UNUSED_ROWS, stack.hidden_size)
    )
    metadata = {
        **_sizes(PREDICTOR, stack, checkpoint.name),
        f"{PREDICTOR}.vocab_size": _UNUSED_ROWS,
        "tokenizer.ggml.model": "none",
    }
    return write_gguf(path, PREDICTOR, metadata, [unused, *_stack_tensors(files, "predictor", stack)], wanted)


def check_stack_file(path: str | Path, stack: TransformerConfig, architecture: str) -> GGUFFile:
    """Reads a talker's or predictor's file and checks its sizes and tensors against the TTS's config.json (`stack`).

    Raises AudioProjectionError for a damaged file, one of another program, or one of another TTS.
    """
    file = read_gguf(path)
    if file.architecture != architecture or not file.sealed:
        raise AudioProjectionError(
            f"{path} (architecture {file.architecture!r}) is no {architecture!r} file of this program; "
            "make it with `audio-projection export gguf --all`"
        )
    expected = _sizes(architecture, stack, "")
    for key, value in expected.items():
        found = file.metadata.get(key)
        close = isinstance(value, float) and isinstance(found, float) and abs(found - value) <= 1e-6 * value
        if key.startswith(architecture) and found != value and not close:
            raise AudioProjectionError(f"{path} belongs to another TTS: {key} is {found}, config.json says {value}")
    if architecture == TALKER:
        rows = len(file.texts("tokenizer.ggml.tokens"))
        check_stack(file, {"token_embd.weight": rows, "output.weight": CODEC_ROWS}, {})
    else:
        check_stack(file, {"token_embd.weight": _UNUSED_ROWS}, {})
    return file


def is_stack_tensor(name: str) -> bool:
    """Whether a tensor of the checkpoint goes into talker.gguf or predictor.gguf; the others stay in safetensors."""
    stem = name.removeprefix("talker.").removeprefix("code_predictor.")
    return name.startswith("talker.") and stem.startswith(("model.layers.", "model.norm."))


def is_talker_tensor(name: str) -> bool:
    """Whether a tensor of the checkpoint is of the talker's transformer."""
    return is_stack_tensor(name) and not name.startswith("talker.code_predictor.")


def _sizes(architecture: str, stack: TransformerConfig, name: str) -> dict[str, Any]:
    if stack.hidden_act != "silu" or stack.attention_bias or any(window is not None for window in stack.windows):
        raise AudioProjectionError(
            f"{name}: llama.cpp runs only stacks with silu, no biases and no sliding window; use the torch back end"
        )
    return {
        "general.type": "model",
        "general.name": name,
        f"{architecture}.block_count": stack.num_layers,
        f"{architecture}.context_length": stack.max_positions,
        f"{architecture}.embedding_length": stack.hidden_size,
        f"{architecture}.feed_forward_length": stack.intermediate_size,
        f"{architecture}.attention.head_count": stack.num_heads,
        f"{architecture}.attention.head_count_kv": stack.num_kv_heads,
        f"{architecture}.attention.key_length": stack.head_dim,
        f"{architecture}.attention.value_length": stack.head_dim,
        f"{architecture}.attention.layer_norm_rms_epsilon": float(stack.rms_norm_eps),
        f"{architecture}.rope.dimension_count": stack.head_dim,
        f"{architecture}.rope.freq_base": float(stack.rope_theta),
    }


def _stack_tensors(files: Tensors, part: str, stack: TransformerConfig) -> list[PlannedTensor]:
    prefix, loads = _STACKS[part], partial(_load, files)
    tensors = [PlannedTensor("output_norm.weight", (stack.hidden_size,), loads(f"{prefix}norm.weight"))]
    for layer in range(stack.num_layers):
        for name, stored in _LAYER.items():
            official = f"{prefix}layers.{layer}.{name}.weight"
            # The predictor's feed-forward activations overflow float16, in which llama.cpp multiplies F16 matrices.
            overflows = part == "predictor" and stored == "ffn_down"
            tensors.append(
                PlannedTensor(f"blk.{layer}.{stored}.weight", files.shape(official), loads(official), overflows)
            )
    return tensors


def _load(files: Tensors, name: str) -> Callable[[], np.ndarray]:
    return lambda: files.tensor(name).float().numpy()


def _table(files: Tensors, config: Qwen3TTSConfig, codec: str) -> np.ndarray:
    """Embedding table: text embeddings after the text projection, then the codec embeddings."""
    embedding = files.tensor("talker.model.text_embedding.weight")
    first, second = (
        tuple(files.tensor(f"talker.text_projection.linear_fc{number}.{part}").float() for part in ("weight", "bias"))
        for number in (1, 2)
    )
    act = activation(config.talker.transformer.hidden_act)
    parts = [functional.linear(act(functional.linear(ids.float(), *first)), *second) for ids in embedding.split(4096)]
    return np.concatenate([torch.cat(parts).numpy(), _padded(files.tensor(codec))])


def _padded(table: Tensor) -> np.ndarray:
    return functional.pad(table.float(), (0, 0, 0, CODEC_ROWS - len(table))).numpy()


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def _sections(given: Any, head_dim: int) -> list[int]:
    """Rotary pairs for each of the 4 position axes; all axes have equal positions here, so any division is right."""
    sections = [int(part) for part in given] if isinstance(given, list) and given else [head_dim // 2]
    return [*sections, 0, 0, 0][:4]


def _vocabulary(tokenizer: TextTokenizer, config: Qwen3TTSConfig) -> dict[str, Any]:
    """Vocabulary: text tokens, then codec ids as control tokens; all but the codes and their end are suppressed."""
    talker = config.talker
    keys = vocabulary_keys(tokenizer.backend, talker.text_vocab_size)
    keys["tokenizer.ggml.tokens"] += [f"<|codec_{number}|>" for number in range(CODEC_ROWS)]
    keys["tokenizer.ggml.token_type"] += [CONTROL] * CODEC_ROWS
    start, end = talker.text_vocab_size, talker.text_vocab_size + talker.codec_eos
    suppressed = range(start + talker.vocab_size - SPECIAL_CODES, start + CODEC_ROWS)
    return {
        **keys,
        "tokenizer.ggml.eos_token_id": end,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.suppress_tokens": [number for number in suppressed if number != end],
    }
