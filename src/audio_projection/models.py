"""Loading the LLM, the projector and the TTS that a configuration names, each by its back end."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import find_gguf, find_llm, find_tts
from audio_projection.llm.hidden_states import Layers
from audio_projection.llm.language_model import LanguageModel
from audio_projection.projector import Projector
from audio_projection.tts.model import Qwen3TTS

if TYPE_CHECKING:
    from audio_projection.config import Config

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Models:
    """A frozen LLM that gives the states of the projector's layers, the projector, and the frozen TTS."""

    llm: LanguageModel
    projector: Projector
    tts: Qwen3TTS


def choose_device(config: Config) -> torch.device:
    """The device of `config.device`; auto: CUDA, else Apple's, else the CPU."""
    if config.device != "auto":
        return torch.device(config.device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_llm(config: Config) -> LanguageModel:
    """The frozen LLM; with `layers: probe` it gives its last layer until the probe has chosen.

    dtype auto is float32 on the CPU, where bfloat16 is several times slower, and the checkpoint's own elsewhere.
    """
    layers = "last" if config.llm.layers == "probe" else config.llm.layers
    if config.llm.backend == "gguf":
        return _load_gguf_llm(config, layers)
    device = choose_device(config)
    slow = config.llm.dtype == "auto" and device.type == "cpu"
    return LanguageModel.from_pretrained(
        find_llm(config),
        dtype="float32" if slow else config.llm.dtype,
        device=device,
        layers=layers,
        context=config.llm.context,
        prompt=config.llm.prompt,
        name=config.llm.name,
    )


def load_tts(config: Config) -> Qwen3TTS:
    """The frozen TTS; dtype auto is float32 on the CPU and bfloat16 elsewhere."""
    if config.tts.backend == "gguf":
        return _load_gguf_tts(config)
    device = choose_device(config)
    automatic = torch.float32 if device.type == "cpu" else torch.bfloat16
    return Qwen3TTS.from_pretrained(find_tts(config), DTYPES.get(config.tts.dtype, automatic), device)


def load_projector(place: Path) -> Projector:
    """A trained projector of a folder or a GGUF file; AudioProjectionError where its weights are no finite numbers."""
    projector = _read_projector(place)
    for name, weight in projector.state_dict().items():
        if not weight.isfinite().all():
            raise AudioProjectionError(
                f"{place} is damaged: {name} has weights that are no finite numbers; train it again"
            )
    return projector


def _read_projector(place: Path) -> Projector:
    if place.suffix != ".gguf":
        return Projector.from_pretrained(place)
    from audio_projection.gguf.projector_file import read_projector

    return read_projector(place)


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
