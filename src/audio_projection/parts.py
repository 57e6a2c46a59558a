"""The frozen models and the projector that a configuration names, put together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from audio_projection.errors import AudioProjectionError
from audio_projection.layer_states import Layers
from audio_projection.llm import LanguageModel
from audio_projection.locations import find_gguf, find_llm, find_tts
from audio_projection.probe import probe
from audio_projection.projector import Projector, ProjectorInfo, build_projector
from audio_projection.tts.model import Qwen3TTS

if TYPE_CHECKING:
    from audio_projection.config import Config

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Parts:
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

    talker, predictor = find_gguf(config, "talker.gguf"), find_gguf(config, "predictor.gguf")
    dtype = DTYPES.get(config.tts.dtype, torch.float32)
    threads = _llama_cpp_threads(config)
    return load_gguf_tts(find_tts(config), talker, predictor, threads, config.gguf.memory, dtype)


def _llama_cpp_threads(config: Config) -> int:
    if config.device not in ("auto", "cpu"):
        raise AudioProjectionError(f"the gguf back ends run on the CPU: use device=cpu, not {config.device}")
    return config.threads or torch.get_num_threads()


def assemble(
    config: Config, tts: Qwen3TTS, texts: Sequence[str], probed: tuple[int, dict[str, Any]] | None = None
) -> Parts:
    """The LLM with the layers that the configuration wants and an untrained projector for them.

    With `layers: probe` the layer and its report are `probed`, or are found on `texts`.
    """
    llm, report = load_llm(config), None
    if config.llm.layers == "probe":
        layer, report = probed or _probe_layer(config, llm, tts, texts)
        llm = llm.select(layer)
    parts = Parts(llm, new_projector(config, llm, tts), tts)
    if report is not None:
        parts.projector.info.measurements["probe"] = report
    return parts


def new_projector(config: Config, llm: LanguageModel, tts: Qwen3TTS) -> Projector:
    """An untrained projector for the layers that `llm` gives, seeded, on the TTS's device."""
    info = ProjectorInfo(
        kind=config.projector.kind,
        llm_size=llm.hidden_size,
        tts_size=tts.config.hidden_size,
        layers=list(llm.layers),
        activation=config.projector.activation,
        rank=config.projector.rank,
        context=llm.context,
        prompt=llm.prompt,
        llm=config.llm.name,
        tts=config.tts.name,
        llm_tokenizer_hash=llm.tokenizer_hash,
        tts_tokenizer_hash=tts.tokenizer_hash,
        layout=config.tts.layout,
        language=config.tts.language,
    )
    torch.manual_seed(config.seed)
    return build_projector(info).to(tts.device)


def _probe_layer(config: Config, llm: LanguageModel, tts: Qwen3TTS, texts: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """The layer that the identity probe chooses, and its report; the embeddings (layer 0) are no choice."""
    layers = list(range(1, llm.num_layers + 1))
    limits = config.fit.model_copy(update={"tokens": min(config.fit.tokens, 20_000)})
    report = probe(limits, llm.select(layers), tts, layers, texts)
    return report.chosen, report.to_json()
