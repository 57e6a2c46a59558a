"""The optional packages behind GGUF, and what to say where they are not installed."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

from audio_projection.errors import AudioProjectionError

BINDING = "0.3.36"
"""The one version of llama-cpp-python whose structs the calls here are laid out for."""
INSTALL = 'pip install "audio-projection[gguf]"  (in a checkout: pip install -e ".[gguf]")'


def gguf_package() -> Any:
    """The `gguf` package: types, block sizes and quantisers in plain numpy. AudioProjectionError without it."""
    package = _import("gguf")
    _import("gguf.quants")
    return package


@lru_cache(maxsize=1)
def binding() -> Any:
    """The low-level binding of llama.cpp; AudioProjectionError where it is absent or of another version."""
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
