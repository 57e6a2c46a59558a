"""Imports of the optional packages `gguf` and `llama_cpp`, with an error that says how to install them."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

from audio_projection.errors import AudioProjectionError

BINDING = "0.3.36"
"""The supported version of llama-cpp-python: its ctypes structs must have the layout of the llama.cpp built in."""
INSTALL = 'pip install "audio-projection[gguf]"  (in a checkout: pip install -e ".[gguf]")'


def gguf_package() -> Any:
    """The package `gguf`: types, block sizes and quantisation in numpy. Raises AudioProjectionError without it."""
    package = _import("gguf")
    _import("gguf.quants")
    return package


@lru_cache(maxsize=1)
def binding() -> Any:
    """The ctypes binding of llama.cpp. Raises AudioProjectionError where it is missing or of another version."""
    package = _import("llama_cpp")
    if package.__version__ != BINDING:
        raise AudioProjectionError(
            f"llama-cpp-python is {package.__version__}, GGUF needs exactly {BINDING}: "
            f"pip install llama-cpp-python=={BINDING}"
        )
    return package.llama_cpp


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise AudioProjectionError(f"GGUF needs packages that are not installed ({name}): {INSTALL}") from None
