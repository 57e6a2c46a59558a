"""One safetensors file: read, mapped into memory, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import write_bytes


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads a safetensors file into memory; AudioProjectionError when it is missing, truncated or foreign."""
    return parse_tensors(path, read_bytes(path))


def map_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, mapped into memory: what is not used is not read.

    Raises AudioProjectionError as `read_tensors` does.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file atomically; tensors are copied to the CPU and made contiguous first."""
    write_bytes(path, pack_tensors(tensors))


def pack_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a safetensors file of these tensors."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def parse_tensors(path: str | Path, data: bytes) -> dict[str, Tensor]:
    """The tensors in the bytes of a safetensors file; AudioProjectionError names `path` when they are damaged."""
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file; AudioProjectionError when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AudioProjectionError(f"cannot read {path}: {error.strerror or error}") from error


def _damaged(path: str | Path, error: Exception) -> AudioProjectionError:
    return AudioProjectionError(f"{path} is not a whole safetensors file ({error}); make or download it again")
