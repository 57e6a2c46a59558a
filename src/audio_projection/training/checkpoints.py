"""Training checkpoints: weights, optimizer and random states, from which a run resumes bit by bit.

Each is a folder that is either whole or absent.

Formats: safetensors and JSON, nothing that can carry code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import write_folder
from audio_projection.files.json_reader import read_json
from audio_projection.files.tensors import pack_tensors, parse_tensors, read_bytes

FORMAT = "audio-projection-training"
VERSION = 2


@dataclass
class TrainingState:
    """Everything that a run needs to resume with the same results as a run that never stopped."""

    step: int  # optimizer steps done
    position: int  # micro-batches taken from the data until then
    weights: dict[str, Tensor]  # all trained parameters, by name
    optimizer: dict[str, Any]  # torch.optim.Optimizer.state_dict()
    settings: dict[str, Any] = field(default_factory=dict)  # that must not change on resume
    seconds: float = 0.0  # spent training so far


class Checkpoints:
    """The training checkpoints of one run: `folder/step-00000100/`, the last `keep` of them."""

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        self.folder = Path(folder)
        self.keep = max(1, keep)

    def save(self, state: TrainingState) -> Path:
        """Writes one checkpoint, then removes those beyond the last `keep`; returns its folder."""
        moments, groups = _split_optimizer(state.optimizer)
        payloads = {
            "weights.safetensors": pack_tensors(state.weights),
            "optimizer.safetensors": pack_tensors(moments),
            "random.safetensors": pack_tensors(_random_states()),
        }
        record = {
            "format": FORMAT,
            "version": VERSION,
            "step": state.step,
            "position": state.position,
            "settings": state.settings,
            "seconds": state.seconds,
            "param_groups": groups,
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in payloads.items()},
        }
        payloads["state.json"] = json.dumps(record, indent=2, sort_keys=True).encode()
        target = self.folder / f"step-{state.step:08d}"
        write_folder(target, payloads)
        self._prune()
        return target

    def latest(self) -> Path | None:
        """The newest finished checkpoint folder, or None."""
        found = self._all()
        return found[-1] if found else None

    def load(self, folder: str | Path) -> TrainingState:
        """Reads a checkpoint and restores torch's random states; AudioProjectionError when it is damaged or foreign."""
        folder = Path(folder)
        record = _read_record(folder)
        files = {name: _checked(folder / name, digest) for name, digest in record["sha256"].items()}
        tensors = {name: parse_tensors(folder / name, data) for name, data in files.items()}
        _restore_random(tensors["random.safetensors"])
        return TrainingState(
            step=record["step"],
            position=record["position"],
            weights=tensors["weights.safetensors"],
            optimizer=_join_optimizer(tensors["optimizer.safetensors"], record["param_groups"]),
            settings=record["settings"],
            seconds=record["seconds"],
        )

    def settings(self, folder: str | Path) -> dict[str, Any]:
        """The settings that one checkpoint was saved with."""
        return _read_record(Path(folder))["settings"]

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    def _prune(self) -> None:
        for stale in self._all()[: -self.keep]:
            shutil.rmtree(stale, ignore_errors=True)
        for unfinished in self.folder.glob(".step-*"):
            shutil.rmtree(unfinished, ignore_errors=True)


def _read_record(folder: Path) -> dict[str, Any]:
    record = read_json(folder / "state.json")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise AudioProjectionError(f"{folder} is no training checkpoint of this program; choose another output_dir")
    if record.get("version") != VERSION:
        raise AudioProjectionError(
            f"{folder} has checkpoint version {record.get('version')}, this program reads {VERSION}; start a new run"
        )
    missing = {"step", "position", "settings", "seconds", "param_groups", "sha256"} - record.keys()
    if missing or set(record["sha256"]) != {"weights.safetensors", "optimizer.safetensors", "random.safetensors"}:
        raise _damaged(folder)
    return record


def _checked(path: Path, digest: str) -> bytes:
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise _damaged(path.parent)
    return data


def _damaged(folder: Path) -> AudioProjectionError:
    return AudioProjectionError(
        f"the checkpoint {folder} is damaged (its files are not those it was saved with); "
        "delete that folder to go on from the one before it"
    )


def _split_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimizer's state as named tensors ("0.exp_avg") and plain parameter groups."""
    moments = {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in state["state"].items()
        for name, value in values.items()
    }
    return moments, [dict(group) for group in state["param_groups"]]


def _join_optimizer(moments: Mapping[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in moments.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": groups}


def _random_states() -> dict[str, Tensor]:
    """States of torch's global generators. What a step samples itself is seeded by its position and needs no state."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{index}": value for index, value in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _restore_random(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for index in range(torch.cuda.device_count()):
        if f"cuda{index}" in states:
            torch.cuda.set_rng_state(states[f"cuda{index}"], index)
