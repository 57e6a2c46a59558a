"""Loads the LLM, the projector and the TTS that a configuration names, each with its back end (torch or llama.cpp)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from audio_projection.dtypes import DTYPES
from audio_projection.errors import AudioProjectionError
from audio_projection.files.json_reader import read_json
from audio_projection.files.locations import find_gguf, find_llm, find_tts
from audio_projection.llm.hidden_states import Layers, resolve_layers
from audio_projection.llm.language_model import LanguageModel
from audio_projection.projector import Projector
from audio_projection.tts.model import Qwen3TTS

if TYPE_CHECKING:
    from audio_projection.config import Config


@dataclass
class Models:
    """The three models that speak together: frozen LLM, projector, frozen TTS.

    The LLM is set to return the hidden states of the projector's layers.
    """

    llm: LanguageModel
    projector: Projector
    tts: Qwen3TTS


def choose_device(name: str) -> torch.device:
    """The torch device of that name (`config.device`); "auto": CUDA where there is one, else Apple's MPS, else CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def use_threads(count: int | None) -> None:
    """Sets how many CPU threads torch computes with (`config.threads`); None leaves torch's own choice."""
    if count is not None:
        torch.set_num_threads(count)


def load_llm(config: Config) -> LanguageModel:
    """Loads the frozen LLM of a configuration.

    With `llm.layers=probe` it returns the states of its last layer until the probe has chosen one. `llm.dtype=auto` is
    float32 on the CPU, where bfloat16 is several times slower, and the checkpoint's own type elsewhere. Raises
    AudioProjectionError for a model that is missing or damaged.
    """
    layers = "last" if config.llm.layers == "probe" else config.llm.layers
    if config.llm.backend == "gguf":
        return _load_gguf_llm(config, layers)
    device = choose_device(config.device)
    float32 = config.llm.dtype == "auto" and device.type == "cpu"
    return LanguageModel.from_pretrained(
        find_llm(config),
        dtype="float32" if float32 else config.llm.dtype,
        device=device,
        layers=layers,
        context=config.llm.context,
        prompt=config.llm.prompt,
        name=config.llm.name,
    )


def check_layers(config: Config) -> None:
    """Raises AudioProjectionError for `llm.layers` that the LLM does not have, by its config.json alone."""
    layers, folder = config.llm.layers, find_llm(config)
    if layers == "probe" or not (folder / "config.json").is_file():
        return
    values = read_json(folder / "config.json")
    count = values.get("num_hidden_layers") if isinstance(values, dict) else None
    if isinstance(count, int):
        resolve_layers(layers, count)


def load_tts(config: Config) -> Qwen3TTS:
    """Loads the frozen TTS of a configuration; `tts.dtype=auto` is float32 on the CPU and bfloat16 elsewhere.

    Raises AudioProjectionError for a model that is missing or damaged.
    """
    if config.tts.backend == "gguf":
        return _load_gguf_tts(config)
    device = choose_device(config.device)
    automatic = torch.float32 if device.type == "cpu" else torch.bfloat16
    return Qwen3TTS.from_pretrained(find_tts(config), DTYPES.get(config.tts.dtype, automatic), device)


def load_projector(path: Path) -> Projector:
    """Loads a trained projector from its folder or from a GGUF file.

    Raises AudioProjectionError for one that is missing or damaged, also where a weight is NaN or infinite.
    """
    projector = _read_projector(path)
    for name, weight in projector.state_dict().items():
        if not weight.isfinite().all():
            raise AudioProjectionError(
                f"{path} is damaged: {name} has weights that are no finite numbers; train it again"
            )
    return projector


def _read_projector(path: Path) -> Projector:
    if path.suffix != ".gguf":
        return Projector.from_pretrained(path)
    from audio_projection.gguf.projector_file import read_projector

    return read_projector(path)


def _load_gguf_llm(config: Config, layers: Layers) -> LanguageModel:
    from audio_projection.gguf.language_model import GGUFLanguageModel, RunSettings

    settings = RunSettings(_llama_cpp_threads(config), config.gguf.context, config.gguf.memory)
    return GGUFLanguageModel(find_llm(config), config.llm.name, layers, config.llm.context, config.llm.prompt, settings)


def _load_gguf_tts(config: Config) -> Qwen3TTS:
    from audio_projection.gguf.decoder_stack import load_gguf_tts

    talker, predictor = find_gguf(config.gguf, "talker.gguf"), find_gguf(config.gguf, "predictor.gguf")
    dtype = DTYPES.get(config.tts.dtype, torch.float32)
    threads = _llama_cpp_threads(config)
    return load_gguf_tts(find_tts(config), talker, predictor, threads, config.gguf.memory, dtype)


def _llama_cpp_threads(config: Config) -> int:
    if config.device not in ("auto", "cpu"):
        raise AudioProjectionError(f"the gguf back ends run on the CPU: use device=cpu, not {config.device}")
    return config.threads or torch.get_num_threads()
