"""A short hash of the weights of a module or a file, to check later what something was made with."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch


def fingerprint(module: torch.nn.Module) -> str:
    """16 hexadecimal digits from the names, shapes and first values of all tensors."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """16 hexadecimal digits from the size of a weight file and its first and last MiB."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(f"{size} ".encode() + file.read(2**20))
        file.seek(max(0, size - 2**20))
        digest.update(file.read())
    return digest.hexdigest()[:16]
