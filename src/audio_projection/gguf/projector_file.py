"""Writes and reads a trained projector as a GGUF file, in the layout of llama.cpp's multimodal projectors (mmproj).

Tensors are named `mm.*`, vectors are F32. The entries of projector.json (layers, sizes, tokenizer hashes, state
convention ...) are metadata keys `audio_projection.<entry>`, and are checked when the file is read.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from audio_projection.errors import AudioProjectionError
from audio_projection.gguf.reader import GGUFFile, read_gguf
from audio_projection.gguf.writer import PlannedTensor, write_gguf
from audio_projection.projector import ADDED_LATER, Projector, ProjectorInfo, build_projector

ARCHITECTURE = "clip"
TYPE = "audio_projection"
_KEY = "audio_projection."
_NAMES = {
    "linear.weight": "mm.0.weight",
    "linear.bias": "mm.0.bias",
    "norm.weight": "mm.norm.weight",
    "norm.bias": "mm.norm.bias",
    "down.weight": "mm.down.weight",
    "up.weight": "mm.up.weight",
    "gate": "mm.gate.weight",
    "output.weight": "mm.2.weight",
    "output.bias": "mm.2.bias",
    "mix": "mm.mix.weight",
    "voice": "mm.voice.weight",
}


def write_projector(projector: Projector, path: str | Path, wanted: str = "F16") -> GGUFFile:
    """Writes matrices as `wanted` (F32, F16 or Q8_0) and vectors as F32; returns the header, read again."""
    tensors = {name: value.detach().float().cpu() for name, value in projector.state_dict().items()}
    if projector.voice_vector is not None:
        tensors["voice"] = projector.voice_vector.float()
    planned = [
        PlannedTensor(_NAMES[name], tuple(value.shape), lambda value=value: value.numpy())  # type: ignore[misc]
        for name, value in tensors.items()
    ]
    return write_gguf(path, ARCHITECTURE, _metadata(projector.info), planned, wanted)


def read_projector(path: str | Path) -> Projector:
    """Loads a projector, float32, from a file that `write_projector` made.

    Raises AudioProjectionError for a damaged file, one of another kind, or one whose tensors do not fit its keys.
    """
    file = read_gguf(path)
    if file.architecture != ARCHITECTURE or file.metadata.get("clip.projector_type") != TYPE or not file.sealed:
        raise AudioProjectionError(
            f"{path} is no projector of this program (architecture {file.architecture!r}): "
            "make one with `audio-projection export gguf`"
        )
    projector = build_projector(_info(file))
    tensors = {name: torch.from_numpy(file.array(stored)) for name, stored in _NAMES.items() if stored in file.tensors}
    voice = tensors.pop("voice", None)
    expected = {name: tuple(value.shape) for name, value in projector.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if found != expected or len(file.tensors) != len(tensors) + (voice is not None):
        wrong: list[object] = [*sorted({*found.items()} ^ {*expected.items()}), *sorted(file.tensors)]
        raise AudioProjectionError(f"{path}: its tensors do not fit its keys, first {wrong[0]}; export it again")
    projector.load_state_dict(tensors)
    projector.voice_vector = voice
    return projector


def _metadata(info: ProjectorInfo) -> dict[str, Any]:
    entries = {f"{_KEY}{name}": _stored(value) for name, value in info.to_json().items()}
    return {
        "general.type": "mmproj",
        "general.name": f"projector from {info.llm} to {info.tts}",
        "clip.projector_type": TYPE,
        "clip.has_audio_encoder": False,
        "clip.audio.embedding_length": info.llm_size,
        "clip.audio.projection_dim": info.tts_size,
        "clip.audio.attention.layer_norm_epsilon": 1e-5,
        f"{_KEY}norm": "layernorm",
        **entries,
    }


def _stored(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def _info(file: GGUFFile) -> ProjectorInfo:
    stored = {key.removeprefix(_KEY): value for key, value in file.metadata.items() if key.startswith(_KEY)}
    record = {"format": stored.get("format"), "version": stored.get("version")}
    record |= {
        item.name: stored.get(item.name)
        for item in fields(ProjectorInfo)
        if item.name in stored or item.name not in ADDED_LATER
    }
    try:
        record["measurements"] = json.loads(record["measurements"] or "{}")
    except (TypeError, ValueError):
        raise AudioProjectionError(f"{file.path}: {_KEY}measurements is no JSON; export it again") from None
    return ProjectorInfo.from_json(record, file.path)
