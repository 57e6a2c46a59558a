"""Sound written while it is made: WAV of unknown length, or raw samples."""

from __future__ import annotations

import struct
from typing import IO

import numpy as np

UNKNOWN = 0xFFFFFFFF
"""In the place of a length: players read on to the end of the stream."""
STREAM_FORMATS = ("wav", "pcm")


def pcm(samples: np.ndarray) -> bytes:
    """Samples (s,), float in [-1, 1] or clipped to it, as 16-bit little-endian integers."""
    return (np.clip(samples, -1.0, 1.0) * 32767.0).round().astype("<i2").tobytes()


def wav_header(rate: int, size: int | None = None) -> bytes:
    """The header of a mono 16-bit WAV file at `rate` Hz with `size` bytes of samples; None: not known yet."""
    riff, data = (UNKNOWN, UNKNOWN) if size is None else (size + 36, size)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + form + struct.pack("<4sI", b"data", data)


class SoundStream:
    """Writes sound into an open binary file, a pipe for example, chunk by chunk; each goes out at once."""

    def __init__(self, file: IO[bytes], rate: int, kind: str = "wav") -> None:
        """`kind`: one of STREAM_FORMATS; "pcm" has no header."""
        self._file = file
        self._header = wav_header(rate) if kind == "wav" else b""

    def write(self, samples: np.ndarray) -> None:
        """Samples (s,), float in [-1, 1]. Raises BrokenPipeError where nobody reads any more."""
        self._file.write(self._header + pcm(samples))
        self._file.flush()
        self._header = b""
