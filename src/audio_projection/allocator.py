"""How the C library deals with memory that is freed: a setting for processes that belong to this program."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 1 << 30
"""Bytes: blocks up to this size are kept and used again."""


def keep_freed_memory() -> bool:
    """Lets glibc use freed blocks again; whether it could be set.

    Otherwise large ones go back to the system and come again, page by page and zeroed, with every layer of the codec.
    Called by the commands; a program of its own may do so too. Nothing is done where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT)) and bool(mallopt(_MMAP_THRESHOLD, _KEPT))
