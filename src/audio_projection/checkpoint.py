"""Files that are either whole or absent, and the training checkpoints made of them.

Every file is written beside its target, synced and renamed; a checkpoint is a folder that gets its final name
only when all of its files are on the disk. Formats: safetensors and JSON, nothing that can carry code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from audio_projection.errors import AudioProjectionError

FORMAT = "audio-projection-training"
VERSION = 2


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replaces `path` by `data` in one step; the old file stays untouched when anything fails.

    Raises AudioProjectionError when the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_beside(path) as (descriptor, temporary):
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise AudioProjectionError(
            f"cannot write {path}: {error.strerror or error}; choose a folder with space that you may write to"
        ) from error


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode())


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file atomically; tensors are copied to the CPU and made contiguous first."""
    write_bytes(path, _pack(tensors))


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Removes what killed processes left of files in `folder` whose names begin with `name`; none may be at work."""
    for stale in folder.glob(f".{name}*.tmp"):
        stale.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any:
    """Reads a JSON file; AudioProjectionError when it is missing or not JSON."""
    return _parse_json(Path(path), _read_bytes(Path(path)))


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads a safetensors file into memory; AudioProjectionError when it is missing, truncated or foreign."""
    return _parse_tensors(Path(path), _read_bytes(Path(path)))


def map_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, mapped into memory: what is not used is not read.

    Raises AudioProjectionError as `read_tensors` does.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (SafetensorError, OSError) as error:
        raise AudioProjectionError(
            f"{path} is not a whole safetensors file ({error}); make or fetch it again"
        ) from error


@dataclass
class TrainingState:
    """All that a run needs to go on as though it had never stopped."""

    step: int  # optimizer steps done
    position: int  # micro-batches taken from the data so far
    weights: dict[str, Tensor]  # everything that trains, by name
    optimizer: dict[str, Any]  # torch.optim.Optimizer.state_dict()
    settings: dict[str, Any] = field(default_factory=dict)  # what must be the same on resume
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
            "weights.safetensors": _pack(state.weights),
            "optimizer.safetensors": _pack(moments),
            "random.safetensors": _pack(_random_states()),
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
        """Reads one checkpoint and restores the random states; AudioProjectionError when it is torn or foreign."""
        folder = Path(folder)
        record = _read_record(folder)
        files = {name: _checked(folder / name, digest) for name, digest in record["sha256"].items()}
        tensors = {name: _parse_tensors(folder / name, data) for name, data in files.items()}
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
        raise _torn(folder)
    return record


def _checked(path: Path, digest: str) -> bytes:
    data = _read_bytes(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise _torn(path.parent)
    return data


def _torn(folder: Path) -> AudioProjectionError:
    return AudioProjectionError(
        f"the checkpoint {folder} is damaged (its files are not those it was saved with); "
        "delete that folder to go on from the one before it"
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AudioProjectionError(f"cannot read {path}: {error.strerror or error}") from error


def _parse_json(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise AudioProjectionError(f"{path} is not valid JSON ({error}); write or fetch it again") from error


def _parse_tensors(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise AudioProjectionError(
            f"{path} is not a whole safetensors file ({error}); make or fetch it again"
        ) from error


def _pack(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def write_folder(target: Path, payloads: Mapping[str, bytes]) -> None:
    """The folder appears under its own name only when each of its files is on the disk."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    for name, data in payloads.items():
        write_bytes(temporary / name, data)
    if target.exists():
        shutil.rmtree(target)
    os.replace(temporary, target)
    _sync_folder(target.parent)


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
    """Torch's generators: what the steps draw otherwise comes from (seed, step) and needs no state."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{index}": value for index, value in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _restore_random(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for index in range(torch.cuda.device_count()):
        if f"cuda{index}" in states:
            torch.cuda.set_rng_state(states[f"cuda{index}"], index)


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[tuple[int, str]]:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
    # mkstemp makes private files; the result gets the permissions that a plain open() would have given
    mask = os.umask(0)
    os.umask(mask)
    try:
        os.chmod(temporary, 0o666 & ~mask)
        yield descriptor, temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable; some file systems cannot sync a folder, and need not."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
