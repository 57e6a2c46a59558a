"""Strict reader of GGUF files, versions 2 and 3, little-endian: metadata, tensor table, tensors as numpy arrays.

Every count and length is checked against the size of the file, so that a damaged or hostile file raises one clear
error here and never reaches llama.cpp. Format: ggml's docs/gguf.md.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from audio_projection.errors import AudioProjectionError
from audio_projection.gguf.optional_packages import gguf_package

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SEAL = "audio_projection.seal"
"""Metadata key that holds a SHA-256 of the rest of the header (see `seal_of`), in files written by this package."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LONGEST_NAME = 63
_MOST_DIMENSIONS = 4
_LARGEST_ALIGNMENT = 1 << 16
_SMALLEST_ENTRY = 12  # bytes of a metadata entry: the length of its key, its type
_SMALLEST_TENSOR = 32  # bytes of an entry in the tensor table


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape, type and position of one tensor in the file."""

    name: str
    shape: tuple[int, ...]  # rows first, as numpy has it; the file lists them the other way round
    type: str  # F32, F16, Q8_0, ...
    start: int  # first byte in the file
    size: int  # bytes


@dataclass(frozen=True)
class GGUFFile:
    """Checked header of a GGUF file: metadata and tensor table; `array` reads a tensor."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    seal_offset: int | None = field(default=None, repr=False)  # in bytes, of the seal's value

    @property
    def architecture(self) -> str:
        """`general.architecture`; empty where the file has none."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def sealed(self) -> bool:
        """Whether this package wrote the file; `read_gguf` has then verified its seal."""
        return self.seal_offset is not None

    def whole(self, key: str, default: int | None = None, least: int = 1, most: int = 1 << 31) -> int:
        """An integer of the metadata; raises AudioProjectionError when it is missing or out of bounds."""
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise AudioProjectionError(
                f"{self.path}: {key} is {_short(value)}, need a whole number of {least} to {most}"
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above 0 of the metadata; raises AudioProjectionError for anything else."""
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise AudioProjectionError(f"{self.path}: {key} is {_short(value)}, need a number above 0")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        """A string of the metadata; raises AudioProjectionError for anything else."""
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise AudioProjectionError(f"{self.path}: {key} is {_short(value)}, need a text")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings of the metadata; raises AudioProjectionError for anything else."""
        value = self.metadata.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise AudioProjectionError(f"{self.path}: {key} is {_short(value)}, need a list of texts")
        return value

    def array(self, name: str) -> np.ndarray:
        """Reads a tensor and dequantises it to float32; shape as in `TensorInfo`."""
        info = self.tensors[name]
        package = gguf_package()
        stored = np.fromfile(self.path, np.uint8, info.size, offset=info.start)
        if info.type in ("F32", "F16"):
            return stored.view(np.float32 if info.type == "F32" else np.float16).reshape(info.shape).astype(np.float32)
        kind = package.GGMLQuantizationType[info.type]
        return package.quants.dequantize(stored.reshape(*info.shape[:-1], -1), kind).reshape(info.shape)


def read_gguf(path: str | Path) -> GGUFFile:
    """Reads and checks a file's header, seal included; tensor data is read later, by `GGUFFile.array`.

    Raises AudioProjectionError saying what is wrong, at which byte, and how to mend it.
    """
    file = parse_gguf(path)
    if file.sealed and file.metadata[SEAL] != seal_of(file.metadata, file.tensors):
        raise AudioProjectionError(
            f"{path} is damaged: its header is not the one that was written; make or download it again"
        )
    return file


def parse_gguf(path: str | Path) -> GGUFFile:
    """As `read_gguf`, but does not verify the seal: for a file that is being written."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < len(MAGIC):
                raise AudioProjectionError(f"{path} is empty or no GGUF file; make or download it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Parser(path, data, size).parse()
    except FileNotFoundError:
        raise AudioProjectionError(f"there is no file {path}: give a GGUF file") from None
    except OSError as error:
        raise AudioProjectionError(f"cannot read {path}: {error.strerror or error}") from None


def seal_of(metadata: dict[str, Any], tensors: dict[str, TensorInfo]) -> str:
    """SHA-256 of the header: all metadata but the seal, and each tensor's name, shape and type."""
    header = [
        sorted((key, value) for key, value in metadata.items() if key != SEAL),
        sorted((info.name, info.shape, info.type) for info in tensors.values()),
    ]
    return hashlib.sha256(json.dumps(header, ensure_ascii=True).encode()).hexdigest()


class _Parser:
    """Parses a header from its first byte to its last."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self.path, self.data, self.size = path, data, size
        self.offset = 0
        self.seal_offset: int | None = None
        types = gguf_package()
        self.blocks = {int(kind): (kind.name, *types.GGML_QUANT_SIZES[kind]) for kind in types.GGML_QUANT_SIZES}

    def parse(self) -> GGUFFile:
        if self._take(4) != MAGIC:
            raise AudioProjectionError(f"{self.path} is no GGUF file: it does not start with {MAGIC.decode()}")
        version = self._number("I")
        if version not in VERSIONS:
            self._fail(f"version {version} is not known (2 and 3, little-endian, are)")
        tensors, entries = self._count(_SMALLEST_TENSOR, "tensors"), self._count(_SMALLEST_ENTRY, "metadata entries")
        metadata = self._metadata(entries)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
            self._fail(f"general.alignment is {_short(alignment)}, must be a power of 2")
        return GGUFFile(self.path, metadata, self._table(tensors, alignment), self.seal_offset)

    def _metadata(self, entries: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self._string("a key")
            if not key or key in metadata:
                self._fail(f"the key {_short(key)} is empty or there twice")
            kind = self._number("I")
            if key == SEAL and kind == _STRING:
                self.seal_offset = self.offset + 8
            metadata[key] = self._value(kind, key)
        return metadata

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._string(key)
        if kind == _ARRAY:
            return self._list(key)
        if kind not in _SCALARS:
            self._fail(f"{_short(key)} has the unknown type {kind}")
        if kind == 7:
            byte = self._take(1)[0]
            if byte > 1:
                self._fail(f"{_short(key)} is neither true nor false")
            return bool(byte)
        return self._number(_SCALARS[kind])

    def _list(self, key: str) -> list[Any]:
        kind = self._number("I")
        if kind == _STRING:
            return self._strings(self._count(8, f"texts in {_short(key)}"), key)
        if kind not in _SCALARS:
            self._fail(f"{_short(key)} is a list of the unknown type {kind}")
        dtype = np.dtype("<" + _SCALARS[kind] if _SCALARS[kind] != "?" else "u1")
        count = self._count(dtype.itemsize, f"numbers in {_short(key)}")
        return np.frombuffer(self._take(count * dtype.itemsize), dtype).tolist()

    def _strings(self, count: int, key: str) -> list[str]:
        """`count` times `_string`, inlined for speed: vocabulary and merges are some 400,000 strings."""
        data, offset, texts, length_at = self.data, self.offset, [], struct.Struct("<Q").unpack_from
        try:
            for _ in range(count):
                (length,) = length_at(data, offset)
                offset += 8 + length
                if offset > self.size:
                    self._fail(f"a text of {_short(key)} reaches beyond the file")
                texts.append(data[offset - length : offset].decode())
        except (struct.error, UnicodeDecodeError):
            self._fail(f"a text of {_short(key)} is cut off or not UTF-8")
        self.offset = offset
        return texts

    def _table(self, count: int, alignment: int) -> dict[str, TensorInfo]:
        entries = [self._entry() for _ in range(count)]
        start = -(-self.offset // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        expected = 0  # tensors follow each other without gaps but for the alignment
        for name, shape, (kind, block, block_size), offset in entries:
            size = prod(shape) // block * block_size
            if name in tensors or offset != expected or start + offset + size > self.size:
                what = "is there twice" if name in tensors else "is not where it should be, or reaches beyond the file"
                self._fail(f"the tensor {_short(name)} {what}")
            tensors[name] = TensorInfo(name, shape, kind, start + offset, size)
            expected = offset + -(-size // alignment) * alignment
        return tensors

    def _entry(self) -> tuple[str, tuple[int, ...], tuple[str, int, int], int]:
        name = self._string("a tensor's name")
        if not 0 < len(name.encode()) <= _LONGEST_NAME:
            self._fail(f"a tensor's name is empty or longer than {_LONGEST_NAME} bytes")
        dimensions = self._number("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            self._fail(f"the tensor {_short(name)} has {dimensions} dimensions, 1 to {_MOST_DIMENSIONS} are possible")
        shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]
        kind = self._number("I")
        if kind not in self.blocks:
            self._fail(f"the tensor {_short(name)} has the unknown type {kind}")
        if prod(shape) == 0 or prod(shape) > 8 * self.size or shape[-1] % self.blocks[kind][1]:
            self._fail(f"the tensor {_short(name)} has the shape {list(shape)}, impossible for {self.blocks[kind][0]}")
        return name, shape, self.blocks[kind], self._number("Q")

    def _string(self, what: str) -> str:
        length = self._number("Q")
        if length > self.size - self.offset:
            self._fail(f"{_short(what)} is {length} bytes long, more than the file holds")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            self._fail(f"{_short(what)} is not UTF-8")

    def _count(self, least_bytes: int, what: str) -> int:
        count = self._number("Q")
        if count * least_bytes > self.size - self.offset:
            self._fail(f"{count} {what} are more than the file can hold")
        return count

    def _number(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _take(self, count: int) -> bytes:
        if count > self.size - self.offset:
            self._fail("it ends too early")
        self.offset += count
        return self.data[self.offset - count : self.offset]

    def _fail(self, what: str) -> NoReturn:
        raise AudioProjectionError(f"{self.path} is damaged at byte {self.offset}: {what}; make or download it again")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
