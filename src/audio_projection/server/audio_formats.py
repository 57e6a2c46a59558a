"""Samples into the bytes of a sound format while they are made; the first bytes come with the first samples.

WAV and PCM are written here; FLAC, MP3 and Opus by libsndfile; AAC by PyAV where it is installed. Everything is mono
at 24 kHz, which OpenAI's PCM is, and Qwen3-TTS.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from audio_projection.files.playback.sound_stream import pcm, wav_header
from audio_projection.server.errors import APIError

RATE = 24_000
_OPUS_PAGE_MS = 20.0
_SET_OGG_PAGE_LATENCY_MS = 0x1302  # a command of sndfile.h, which the soundfile package has no name for
_MP3 = {"bitrate_mode": "CONSTANT", "compression_level": 0.6}
"""64 kbit/s, constant: players take the length from the first frame, for the header never learns it."""


class Encoder(Protocol):
    """Encodes one stream of samples."""

    def encode(self, samples: np.ndarray) -> bytes:
        """The bytes that are ready after these samples (s,), float32 in [-1, 1]; there may be none."""

    def finish(self) -> bytes:
        """The last bytes."""


class PCM:
    """16-bit little-endian samples without a header."""

    def encode(self, samples: np.ndarray) -> bytes:
        return pcm(samples)

    def finish(self) -> bytes:
        return b""


class WAV(PCM):
    """PCM after a header that leaves the length open."""

    def __init__(self) -> None:
        self._header = wav_header(RATE)

    def encode(self, samples: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + super().encode(samples)


class _Outbox:
    """What libsndfile takes for a file: bytes that were taken away stay as they are, a later header is dropped."""

    def __init__(self) -> None:
        self._taken, self._bytes, self._place = 0, bytearray(), 0

    def write(self, data: Any) -> int:
        data = bytes(data)
        start = self._place - self._taken
        if start >= 0:
            self._bytes[start : start + len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._taken + len(self._bytes))[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def take(self) -> bytes:
        data = bytes(self._bytes)
        self._taken += len(data)
        self._bytes.clear()
        return data


class Libsndfile:
    """FLAC, MP3 or Ogg Opus."""

    def __init__(self, kind: str, subtype: str, **options: Any) -> None:
        import soundfile

        self._outbox = _Outbox()
        self._file = soundfile.SoundFile(self._outbox, "w", RATE, 1, subtype, format=kind, **options)
        if subtype == "OPUS":  # or its first page waits for a second of sound
            latency = soundfile._ffi.new("double *", _OPUS_PAGE_MS)
            soundfile._snd.sf_command(self._file._file, _SET_OGG_PAGE_LATENCY_MS, latency, 8)

    def encode(self, samples: np.ndarray) -> bytes:
        self._file.write(np.clip(samples, -1.0, 1.0))
        return self._outbox.take()

    def finish(self) -> bytes:
        self._file.close()
        return self._outbox.take()


class AAC:
    """AAC in ADTS frames, by PyAV."""

    def __init__(self) -> None:
        import av

        self._codec: Any = av.CodecContext.create("aac", "w")
        self._codec.sample_rate, self._codec.layout, self._codec.format = RATE, "mono", "fltp"
        self._codec.bit_rate = 64_000
        self._frames, self._frame = av.AudioFifo(), av.AudioFrame
        self._written = 0

    def encode(self, samples: np.ndarray) -> bytes:
        frame = self._frame.from_ndarray(np.clip(samples, -1.0, 1.0)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, self._written
        self._written += len(samples)
        self._frames.write(frame)
        ready = self._frames.read_many(1024)
        return b"".join(_adts(packet) for each in ready for packet in self._codec.encode(each))

    def finish(self) -> bytes:
        rest = self._frames.read(partial=True)
        frames = [None] if rest is None else [rest, None]
        return b"".join(_adts(packet) for frame in frames for packet in self._codec.encode(frame))


def _adts(packet: Any) -> bytes:
    """An AAC frame with its ADTS header (ISO/IEC 13818-7): AAC-LC, 24 kHz, one channel."""
    data = bytes(packet)
    size, rate_index, channels = len(data) + 7, 6, 1
    header = (0xFFF1 << 40) | (1 << 38) | (rate_index << 34) | (channels << 30) | (size << 13) | (0x7FF << 2)
    return header.to_bytes(7, "big") + data


ENCODERS: dict[str, tuple[str, Callable[[], Encoder]]] = {
    "wav": ("audio/wav", WAV),
    "mp3": ("audio/mpeg", lambda: Libsndfile("MP3", "MPEG_LAYER_III", **_MP3)),
    "opus": ("audio/ogg", lambda: Libsndfile("OGG", "OPUS")),
    "aac": ("audio/aac", AAC),
    "flac": ("audio/flac", lambda: Libsndfile("FLAC", "PCM_16")),
    "pcm": ("audio/pcm", PCM),
    "pcm16": ("audio/pcm", PCM),
}
"""Name -> media type and encoder; OpenAI's chat calls PCM pcm16."""


def media_type(name: str) -> str:
    """The media type of a format."""
    return ENCODERS[name][0]


class Recoder:
    """An encoder for samples of any rate."""

    def __init__(self, name: str, rate: int) -> None:
        """Raises APIError for AAC without PyAV."""
        if name == "aac" and importlib.util.find_spec("av") is None:
            raise APIError("aac is not available here (the server lacks the package av); ask for mp3 or opus")
        self._encoder = ENCODERS[name][1]()
        self._resampler: Any = None
        if rate != RATE:
            import soxr

            self._resampler = soxr.ResampleStream(rate, RATE, 1, dtype="float32")

    def encode(self, samples: np.ndarray) -> bytes:
        """The bytes that are ready after these samples (s,), float32."""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        return self._encoder.encode(samples) if len(samples) else b""

    def finish(self) -> bytes:
        """The last bytes."""
        rest = b""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            rest = self._encoder.encode(samples) if len(samples) else b""
        return rest + self._encoder.finish()


def complete(name: str, data: bytes) -> bytes:
    """A whole stream as a file: a WAV header gets its length."""
    if name != "wav":
        return data
    header = len(wav_header(RATE))
    return wav_header(RATE, len(data) - header) + data[header:]
