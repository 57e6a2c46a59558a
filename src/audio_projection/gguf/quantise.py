"""Smaller GGUF files by llama.cpp's own quantiser, and what each tensor of a file really is."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from pathlib import Path

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import replacing
from audio_projection.gguf.llama_cpp_runtime import call, last_error, quiet_library
from audio_projection.gguf.optional_packages import binding
from audio_projection.gguf.reader import GGUFFile, read_gguf
from audio_projection.gguf.writer import seal

K_QUANTS = {"Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
"""Names and llama.cpp's numbers (enum llama_ftype) of the mixtures that can be asked for."""


def quantise(source: Path, target: Path, wanted: str, threads: int) -> GGUFFile:
    """Writes `source` (F32 or F16) again as a mixture of K-quants; returns the file read again."""
    library = binding()
    quiet_library()
    parameters = library.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype = threads, K_QUANTS[wanted]
    with replacing(target) as temporary:
        files = os.fsencode(source), os.fsencode(temporary)
        failed = call(library.llama_model_quantize, *files, ctypes.byref(parameters))
        if failed:
            raise AudioProjectionError(f"llama.cpp cannot write {target} as {wanted}: {last_error()}")
        seal(temporary)
    return read_gguf(target)


def describe_types(file: GGUFFile) -> str:
    """How many tensors of which type, largest share first, for people: "Q4_K 30, F32 21, Q6_K 6"."""
    counts = Counter(info.type for info in file.tensors.values())
    return ", ".join(f"{kind} {count}" for kind, count in counts.most_common())


def unexpected_types(file: GGUFFile, wanted: str) -> list[str]:
    """The matrices that are of no type that `wanted` stands for, each with the length of its rows.

    A row must be a whole number of blocks: 256 numbers in K-quants, 32 in Q8_0. Others silently become another type.
    """
    expected = {"F32": {"F32"}, "F16": {"F16"}, "Q8_0": {"Q8_0"}}.get(wanted, {"Q4_K", "Q5_K", "Q6_K"})
    return [
        f"{info.name} is {info.type} (rows of {info.shape[-1]})"
        for info in file.tensors.values()
        if len(info.shape) > 1 and info.type not in expected
    ]
