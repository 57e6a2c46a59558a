"""The device that computes and its dtypes: which are chosen, what they can do, what a large model costs on a CPU."""

from __future__ import annotations

import json
import logging
import struct
from functools import cache
from math import prod
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
"""Names of floating-point types in configurations and checkpoints, and torch's dtypes behind them."""

LARGE = 2_000_000_000
"""Parameters from which a CPU without bfloat16 arithmetic takes seconds for every token."""


def choose_device(name: str) -> torch.device:
    """The torch device of that name (`config.device`); "auto": CUDA where there is one, else Apple's MPS, else CPU.

    The device is logged, once.
    """
    device = torch.device(name) if name != "auto" else _automatic()
    _log_device(str(device), name == "auto")
    return device


def float64_device(device: torch.device) -> torch.device:
    """The device for what needs double precision: the given one, but the CPU for Apple's GPU, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def to_float64(values: Tensor) -> Tensor:
    """The values in float64, on a device that has it."""
    return values.to(float64_device(values.device)).double()  # moved first: the other device cannot even convert


def warn_of_slow_model(role: str, name: str, folder: Path, device: torch.device) -> None:
    """Says, before it is loaded, what a model of over 2B parameters costs on a CPU without bfloat16 arithmetic."""
    if device.type != "cpu" or has_bfloat16():
        return
    count = parameter_count(folder)
    if count > LARGE:
        log.warning(
            "the %s %s has %.1fB parameters and this CPU has no bfloat16 arithmetic: in float32 they take %.0f GB of "
            "memory, and every token reads all of them: expect seconds for each. A GPU is faster, and so are quantised "
            "weights in llama.cpp (llm.backend=gguf, docs/gguf.md)",
            *(role, name, count / 1e9, 4 * count / 1e9),
        )


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers itself (AVX-512 BF16 or AMX, Arm's BF16)."""
    flags = _cpu_flags()
    if flags is not None:
        return bool({"avx512_bf16", "amx_bf16", "bf16"} & flags)
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)


def parameter_count(folder: Path) -> int:
    """Numbers in the weight files of a folder, from their headers alone; files that cannot be read count nothing."""
    return sum(map(_numbers, sorted(folder.glob("*.safetensors"))))


def _numbers(path: Path) -> int:
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(size, 100_000_000)))
        return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return 0  # whoever loads it will say what is wrong with it


def _automatic() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@cache
def _log_device(name: str, automatic: bool) -> None:
    device = torch.device(name)
    what = {"cpu": f"{torch.get_num_threads()} threads", "mps": "Apple's GPU"}.get(device.type, "")
    if device.type == "cuda" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(device)
        what = f"{properties.name}, {properties.total_memory / 2**30:.0f} GB"
    log.info("device: %s%s%s", name, f" ({what})" if what else "", ", chosen by itself" if automatic else "")


def _cpu_flags() -> set[str] | None:
    """The features that Linux lists of the CPU; none where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()}
