"""A language model's GGUF file read by transformers, all its weights dequantised: for machines without llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from audio_projection.devices import DTYPES
from audio_projection.errors import AudioProjectionError, first_line
from audio_projection.gguf.llm_file import check_llm, end_ids_of, sampling_of
from audio_projection.gguf.optional_packages import INSTALL, gguf_package
from audio_projection.gguf.reader import GGUFFile
from audio_projection.gguf.tokenizer import read_tokenizer
from audio_projection.llm.hidden_states import Layers
from audio_projection.llm.language_model import LanguageModel, without_progress_bar

_FACTORS = "rope_freqs.weight"
"""Llama 3's scaling of the rotary position embedding, a factor for each frequency."""


def load_dequantised(
    path: str | Path,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    layers: Layers = "last",
    context: str = "raw",
    prompt: str = "Read this aloud.",
    name: str | None = None,
) -> LanguageModel:
    """The LLM of a GGUF file as a model of transformers in `dtype`: the same states as llama.cpp's, but for what that
    rounds on the way.

    Raises AudioProjectionError for a damaged or unsupported file, and for rotary scaling that only llama.cpp reads.
    """
    file = check_llm(path)
    gguf_package()
    if file.text(f"{file.architecture}.rope.scaling.type", "none") != "none":
        raise AudioProjectionError(f"{path}: transformers does not read its scaling of positions; {INSTALL}")
    model, tokenizer = _load(file, DTYPES[dtype]), read_tokenizer(file)
    model.generation_config = _generation(file)
    if _FACTORS in file.tensors:
        _scale_frequencies(model, torch.from_numpy(file.array(_FACTORS).copy()))
    return LanguageModel(model.to(device), tokenizer, name or str(path), layers, context, prompt)


def _load(file: GGUFFile, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        with without_progress_bar():
            return AutoModelForCausalLM.from_pretrained(
                file.path.parent, gguf_file=file.path.name, dtype=dtype, local_files_only=True
            )
    except Exception as error:  # transformers raises whatever a file leads to
        raise AudioProjectionError(f"transformers cannot read {file.path} ({first_line(error)}); {INSTALL}") from None


def _generation(file: GGUFFile) -> Any:
    """How answers are drawn and ended, which transformers does not read from the file."""
    from transformers import GenerationConfig

    drawn = sampling_of(file)
    chosen = {} if drawn.greedy else {"temperature": drawn.temperature, "top_k": drawn.top_k, "top_p": drawn.top_p}
    return GenerationConfig(do_sample=not drawn.greedy, eos_token_id=sorted(end_ids_of(file)), **chosen)


def _scale_frequencies(model: Any, factors: torch.Tensor) -> None:
    """transformers drops the factors: each frequency is divided by its own."""
    rotary = model.get_decoder().rotary_emb
    scaled = rotary.inv_freq / factors.to(rotary.inv_freq)
    rotary.inv_freq = rotary.original_inv_freq = scaled
