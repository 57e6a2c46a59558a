"""Writes GGUF files: one tensor in memory at a time, and the old file is replaced only by a complete one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import replacing
from audio_projection.gguf.optional_packages import gguf_package
from audio_projection.gguf.reader import SEAL, GGUFFile, parse_gguf, read_gguf, seal_of

PLAIN_TYPES = ("F32", "F16", "Q8_0")
"""Types that are written from Python; llama.cpp makes K-quants of such a file (`quantise.py`)."""
_FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7}
_NO_SEAL = "0" * 64  # replaced by the hash when the header is complete


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to write; its data is loaded only when its turn comes."""

    name: str
    shape: tuple[int, ...]  # rows first
    load: Callable[[], np.ndarray]  # float32, of that shape
    overflows: bool = False  # its inputs overflow float16: stored as F32 where other matrices are F16

    def stored_type(self, wanted: str) -> str:
        """The tensor's type in a file of `wanted`: vectors stay F32, rows of no whole Q8_0 blocks become F16."""
        if len(self.shape) == 1 or (self.overflows and wanted == "F16"):
            return "F32"
        return "F16" if wanted == "Q8_0" and self.shape[-1] % 32 else wanted


def write_gguf(
    path: str | Path,
    architecture: str,
    metadata: Mapping[str, Any],
    tensors: Sequence[PlannedTensor],
    wanted: str = "F16",
) -> GGUFFile:
    """Writes a GGUF file with matrices as `wanted` (F32, F16, Q8_0); returns its header, read again.

    Values of `metadata` are str, bool, int, float or lists of one of them; None is left out. Raises
    AudioProjectionError when the file cannot be written; the old file then stays.
    """
    if wanted not in PLAIN_TYPES:
        raise AudioProjectionError(f"unknown GGUF type {wanted!r}; choose one of {', '.join(PLAIN_TYPES)}")
    package = gguf_package()
    with replacing(path) as temporary:
        writer = package.GGUFWriter(temporary, architecture)
        writer.add_file_type(_FILE_TYPES[wanted])
        writer.add_quantization_version(2)
        for key, value in {**metadata, SEAL: _NO_SEAL}.items():
            if value is not None:
                _add(writer, key, value)
        kinds = [package.GGMLQuantizationType[tensor.stored_type(wanted)] for tensor in tensors]
        for tensor, kind in zip(tensors, kinds, strict=True):
            shape = package.quants.quant_shape_to_byte_shape(tensor.shape, kind)
            quantised = kind.name not in ("F32", "F16")
            dtype = np.dtype(np.uint8) if quantised else np.dtype(np.float32 if kind.name == "F32" else np.float16)
            writer.add_tensor_info(tensor.name, shape if quantised else tensor.shape, dtype, math.prod(shape), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        pairs = list(zip(tensors, kinds, strict=True))
        console = Console(stderr=True)
        for tensor, kind in track(pairs, Path(path).name, console=console, disable=not console.is_terminal):
            writer.write_tensor_data(_numbers(tensor, kind))
        writer.close()
        seal(temporary)
    return read_gguf(path)


def seal(path: Path) -> None:
    """Writes the hash of the header into its metadata, so that later damage to the header is found when it is read."""
    header = parse_gguf(path)
    assert header.seal_offset is not None, "write_gguf reserves the seal's bytes"
    with path.open("rb+") as file:
        file.seek(header.seal_offset)
        file.write(seal_of(header.metadata, header.tensors).encode())


def _numbers(tensor: PlannedTensor, kind: Any) -> np.ndarray:
    values = np.ascontiguousarray(tensor.load(), dtype=np.float32)
    assert values.shape == tensor.shape, f"{tensor.name}: {values.shape} instead of {tensor.shape}"
    if kind.name in ("F32", "F16"):
        return values.astype(np.float32 if kind.name == "F32" else np.float16)
    return gguf_package().quants.quantize(values, kind)


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_key_value(key, value, gguf_package().GGUFValueType.STRING)  # add_string drops empty strings
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value) if 0 <= value < 1 << 32 else writer.add_int64(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif value:
        writer.add_array(key, value)
