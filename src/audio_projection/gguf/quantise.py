"""K-quant quantisation of GGUF files by llama.cpp, and the types that the tensors of a file really have."""

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
"""K-quant mixtures that can be written, with their numbers in llama.cpp's enum llama_ftype."""


def quantise(source: Path, target: Path, wanted: str, threads: int) -> GGUFFile:
    """Quantises `source` (F32 or F16) to one of K_QUANTS; returns the header of `target`, read again.

    Raises AudioProjectionError with llama.cpp's reason when it fails; `target` is then as it was.
    """
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
    """Number of tensors of each type, the most frequent first: "Q4_K 30, F32 21, Q6_K 6"."""
    counts = Counter(info.type for info in file.tensors.values())
    return ", ".join(f"{kind} {count}" for kind, count in counts.most_common())


def unexpected_types(file: GGUFFile, wanted: str) -> list[str]:
    """Matrices that have another type than `wanted` stands for, each in words with the length of its rows.

    A row must be a whole number of blocks (256 numbers in K-quants, 32 in Q8_0); llama.cpp stores other matrices as
    another type without a word.
    """
    expected = {"F32": {"F32"}, "F16": {"F16"}, "Q8_0": {"Q8_0"}}.get(wanted, {"Q4_K", "Q5_K", "Q6_K"})
    return [
        f"{info.name} is {info.type} (rows of {info.shape[-1]})"
        for info in file.tensors.values()
        if len(info.shape) > 1 and info.type not in expected
    ]
