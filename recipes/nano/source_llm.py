"""Tokens, merges and embeddings of the LLM that the text table begins from: a GGUF file or a transformers folder."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bpe import Merge
from safetensors import safe_open

import gguf

EMBEDDINGS = "model.embed_tokens.weight"


@dataclass(frozen=True)
class SourceLLM:
    """A byte-level BPE and an embedding for each of its tokens."""

    tokens: dict[str, int]
    merges: list[Merge]
    embeddings: np.ndarray
    """float32 (tokens, width)."""


def load(path: Path) -> SourceLLM:
    """Read a .gguf file (quantised ones too) or a folder with tokenizer.json and model.safetensors."""
    return from_gguf(path) if path.suffix == ".gguf" else from_folder(path)


def from_gguf(path: Path) -> SourceLLM:
    reader = gguf.GGUFReader(path)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [split(merge) for merge in reader.fields["tokenizer.ggml.merges"].contents()]
    table = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    embeddings = gguf.quants.dequantize(table.data, table.tensor_type)
    return SourceLLM({token: number for number, token in enumerate(tokens)}, merges, embeddings.astype(np.float32))


def from_folder(folder: Path) -> SourceLLM:
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = described["model"]["vocab"] | {each["content"]: each["id"] for each in described["added_tokens"]}
    merges = [split(merge) for merge in described["model"]["merges"]]
    with safe_open(folder / "model.safetensors", "pt") as file:
        return SourceLLM(tokens, merges, file.get_tensor(EMBEDDINGS).float().numpy())


def split(merge: str | list[str]) -> Merge:
    """Both spellings of a merge that files have."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second
