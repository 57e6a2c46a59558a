"""Loads the LLM, the projector and the TTS that a configuration names, each with its back end (torch or llama.cpp)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from audio_projection.devices import DTYPES, choose_device, warn_of_slow_model
from audio_projection.errors import AudioProjectionError
from audio_projection.files.json_reader import read_json
from audio_projection.files.locations import find_gguf, find_llm, find_llm_file, find_tts
from audio_projection.llm.hidden_states import Layers, layers_to_probe, resolve_layers
from audio_projection.llm.language_model import LanguageModel
from audio_projection.projector import Projector, check_mix
from audio_projection.tts.model import Qwen3TTS

if TYPE_CHECKING:
    from audio_projection.config import Config

log = logging.getLogger(__name__)


@dataclass
class Models:
    """The three models that speak together: frozen LLM, projector, frozen TTS.

    The LLM is set to return the hidden states of the projector's layers.
    """

    llm: LanguageModel
    projector: Projector
    tts: Qwen3TTS


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
    if _llama_cpp_runs(config):
        return _load_gguf_llm(config)
    return _load_torch_llm(config, choose_device(config.device))


def load_reading_llm(config: Config) -> LanguageModel:
    """As `load_llm`, for runs that never generate: the output head and the layers above the deepest are not kept.

    They are freed before the rest goes to its device. With `llm.layers=probe` the candidates stay until one is chosen.
    """
    if _llama_cpp_runs(config):
        return _load_gguf_llm(config)
    device = choose_device(config.device)
    quantised = config.llm.quantise != "none"
    llm = _load_torch_llm(config, device if quantised else torch.device("cpu"), device)
    if config.llm.layers == "probe":
        llm = llm.select(layers_to_probe(config.fit.probe_layers, llm.num_layers))
    llm = llm.keep_reading_only()
    return llm if quantised else llm.to(device)


def check_layers(config: Config) -> None:
    """Raises AudioProjectionError for `llm.layers` that the LLM does not have, by its config.json alone, and for a
    `projector.mix` that does not go with them."""
    layers, folder = config.llm.layers, find_llm(config)
    check_mix(config.projector.mix, len(layers) if isinstance(layers, list) else 1)
    if not (folder / "config.json").is_file():
        return
    values = read_json(folder / "config.json")
    count = values.get("num_hidden_layers") if isinstance(values, dict) else None
    if not isinstance(count, int):
        return
    if layers == "probe":
        layers_to_probe(config.fit.probe_layers, count)
    else:
        resolve_layers(layers, count)


def load_tts(config: Config) -> Qwen3TTS:
    """Loads the frozen TTS of a configuration; `tts.dtype=auto` is float32 on the CPU and bfloat16 elsewhere.

    Raises AudioProjectionError for a model that is missing or damaged.
    """
    if config.tts.backend == "gguf":
        return _load_gguf_tts(config)
    device, folder = choose_device(config.device), find_tts(config)
    warn_of_slow_model("speech model", config.tts.name, folder, device)
    automatic = torch.float32 if device.type == "cpu" else torch.bfloat16
    return Qwen3TTS.from_pretrained(folder, DTYPES.get(config.tts.dtype, automatic), device)


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


def _llama_cpp_runs(config: Config) -> bool:
    """Whether llama.cpp runs the LLM; the file of a package that stands for a model of the hub is logged."""
    found = find_llm(config)
    if config.llm.file is None and found == find_llm_file(config.llm, config.models_dir):
        log.info("language model: %s, out of the package %s", found, config.llm.package)
    return config.llm.llama_cpp_runs(found)


def _layers(config: Config) -> Layers:
    return "last" if config.llm.layers == "probe" else config.llm.layers


def _load_torch_llm(config: Config, place: torch.device, computes: torch.device | None = None) -> LanguageModel:
    """Loads to `place`; `computes` is the device that it goes to afterwards, if that is another one."""
    device, folder = computes or place, find_llm(config)
    float32 = config.llm.dtype == "auto" and device.type == "cpu"
    if folder.suffix == ".gguf":
        return _load_dequantised_llm(config, folder, "float32" if float32 else config.llm.dtype, place)
    warn_of_slow_model("language model", config.llm.name, folder, device)
    return LanguageModel.from_pretrained(
        folder,
        dtype="float32" if float32 else config.llm.dtype,
        device=place,
        layers=_layers(config),
        context=config.llm.context,
        prompt=config.llm.prompt,
        name=config.llm.name,
        quantise=config.llm.quantise,
    )


def _load_dequantised_llm(config: Config, file: Path, dtype: str, place: torch.device) -> LanguageModel:
    from audio_projection.gguf.dequantised import load_dequantised

    reading = _layers(config), config.llm.context, config.llm.prompt, config.llm.name
    return load_dequantised(file, "bfloat16" if dtype == "auto" else dtype, place, *reading)


def _load_gguf_llm(config: Config) -> LanguageModel:
    from audio_projection.gguf.language_model import GGUFLanguageModel, RunSettings

    choose_device("cpu")  # logged
    settings = RunSettings(config.threads or torch.get_num_threads(), config.gguf.context, config.gguf.memory)
    file, layers = find_llm(config), _layers(config)
    return GGUFLanguageModel(file, config.llm.name, layers, config.llm.context, config.llm.prompt, settings)


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
