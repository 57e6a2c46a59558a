"""Sound files: read as mono float32 at any sampling rate, written atomically."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import replacing
from audio_projection.files.mp3 import MP3Frames, find_frames, with_length

if TYPE_CHECKING:
    from soundfile import SoundFile

FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", None),
}
"""File suffix -> libsndfile's format and subtype."""

# libsndfile overflows its stack when the Vorbis encoder is given minutes of samples at once.
_BLOCK = 1 << 16
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_PADDING = 0.1  # s
_PADDING_FRAMES = 5  # of an MP3: what encoders put before and after the sound
_UNKNOWN_LENGTH = 1 << 48  # samples; libsndfile gives 2**63 - 1 for a FLAC stream of unknown length


def read(path: str | Path, rate: int) -> np.ndarray:
    """The sound of a file as mono float32 samples (S,) in [-1, 1], resampled to `rate` Hz.

    Raises `AudioProjectionError` for a file that is missing, not a sound file, or empty.
    """
    samples, source_rate = decode(path)
    if not len(samples):
        raise AudioProjectionError(f"{path}: the sound file is empty")
    return resample(mix_down(samples), source_rate, rate)


def decode(path: str | Path, offset: float = 0.0, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """The sound of a file, not resampled: float32 samples (S, channels) and their rate in Hz; S may be 0.

    `offset` and `seconds` (None: to the end) cut a segment out of it. Raises `AudioProjectionError` for a file that is
    missing, not a sound file, breaks off, or ends before the segment does.
    """
    announced = duration(path)
    with _reading(path):
        samples, rate = _decode_whole(path) if _is_mp3(path) else _decode_segment(path, offset, seconds)
    if _is_mp3(path):
        samples = samples[_segment(offset, seconds, rate)]
    expected = max(0.0, announced - offset) if seconds is None else seconds
    # an MP3's header may count the encoder's padding, a manifest's seconds are rounded
    if expected - len(samples) / rate > _PADDING:
        end = offset + len(samples) / rate
        raise AudioProjectionError(f"{path}: it breaks off after {end:.2f} of {offset + expected:.2f} s")
    return samples, rate


def _decode_segment(path: str | Path, offset: float, seconds: float | None) -> tuple[np.ndarray, int]:
    import soundfile

    with soundfile.SoundFile(str(path)) as file:
        part = _segment(offset, seconds, file.samplerate)
        file.seek(min(part.start, file.frames))
        count = -1 if part.stop is None else part.stop - part.start
        return file.read(count, dtype="float32", always_2d=True), file.samplerate


def _segment(offset: float, seconds: float | None, rate: int) -> slice:
    first = round(offset * rate)
    return slice(first, None if seconds is None else first + round(seconds * rate))


def _decode_whole(path: str | Path) -> tuple[np.ndarray, int]:
    """All of an MP3. Where its length is not in it, or too small, libsndfile stops early: then it is written into it.

    Raises AudioProjectionError when libsndfile stops early all the same.
    """
    import soundfile

    data = Path(path).read_bytes()
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    frames = find_frames(data)
    missing = _missing_seconds(samples, frames)
    if missing <= 0:
        return samples, rate
    samples, rate = soundfile.read(io.BytesIO(with_length(data, frames)), dtype="float32", always_2d=True)
    if (missing := _missing_seconds(samples, frames)) > 0:
        raise AudioProjectionError(f"{path}: {missing:.2f} s at its end cannot be decoded; convert it to wav or flac")
    return samples, rate


def _missing_seconds(samples: np.ndarray, frames: MP3Frames) -> float:
    """Seconds of frames that were not decoded, beyond what encoders pad."""
    if not frames.sound:
        return 0.0
    lacking = frames.samples - len(samples)
    return lacking / frames.sound[0].rate if lacking > _PADDING_FRAMES * frames.sound[0].samples else 0.0


def _is_mp3(path: str | Path) -> bool:
    import soundfile

    return soundfile.info(str(path)).format == "MP3"


@contextlib.contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    import soundfile

    try:
        yield
    except AudioProjectionError:
        raise
    # memory: a header that lies
    except (soundfile.SoundFileError, OSError, ValueError, MemoryError, ZeroDivisionError) as error:
        raise AudioProjectionError(f"{path}: not a sound file that can be read ({error})") from None


def mix_down(samples: np.ndarray) -> np.ndarray:
    """The mean (S,) over the channels of samples (S, channels)."""
    return samples.mean(axis=1, dtype=np.float32)


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Float32 samples (S,) at `rate` Hz -> float32 samples at `target` Hz."""
    import soxr

    return samples if rate == target else soxr.resample(samples, rate, target).astype(np.float32)


def duration(path: str | Path) -> float:
    """Seconds of a sound file, by its header, or for an MP3 whose header does not say it by its frames.

    Raises `AudioProjectionError` for what `decode` will not take.
    """
    import soundfile

    if not Path(path).is_file():
        raise AudioProjectionError(f"no sound file {path}")
    with _reading(path):
        info = soundfile.info(str(path))
        if info.frames >= _UNKNOWN_LENGTH:
            raise AudioProjectionError(f"{path}: its header does not say how long it is; convert it again")
        if info.format != "MP3":
            return info.duration
        frames = find_frames(Path(path).read_bytes())
        counted = frames.samples / info.samplerate
        beyond = _PADDING_FRAMES * (frames.sound[0].samples if frames.sound else 0) / info.samplerate
        return info.duration if frames.announced and counted - info.duration <= beyond else counted


def check_readable(path: str | Path) -> None:
    """Checks, before long work, that `read` will take this file; raises `AudioProjectionError` when not."""
    duration(path)


def write(path: str | Path, samples: np.ndarray, rate: int) -> None:
    """Write mono float samples (S,) in the format of the suffix; an existing file is replaced only at the end.

    Samples beyond [-1, 1] are clipped. Raises `AudioProjectionError` when the path cannot be written.
    """
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise AudioProjectionError(f"nothing to write to {path}: the samples are empty or not finite")
    kind, subtype = _format(Path(path))
    if subtype == "OPUS" and rate not in _OPUS_RATES:
        samples, rate = resample(samples, rate, max(_OPUS_RATES)), max(_OPUS_RATES)
    clipped = np.clip(samples, -1.0, 1.0)
    with _os_errors_reported(path), replacing(_target(path)) as part, _open(part, rate, kind, subtype) as file:
        for start in range(0, len(clipped), _BLOCK):
            file.write(clipped[start : start + _BLOCK])


def _open(path: Path, rate: int, kind: str, subtype: str | None) -> SoundFile:
    from soundfile import SoundFile

    return SoundFile(str(path), "w", rate, 1, subtype, format=kind)


def check_writable(path: str | Path) -> None:
    """Checks, before long work, that `write` can write here; raises `AudioProjectionError` when not."""
    _format(Path(path))
    with _os_errors_reported(path):
        target = _target(path)
        with tempfile.NamedTemporaryFile(dir=target.parent):
            pass


def check_folder(folder: Path) -> None:
    """Checks, before long work, that a folder can be made and written into, and leaves nothing behind."""
    nearest = next(place for place in [folder.absolute(), *folder.absolute().parents] if place.exists())
    if not nearest.is_dir():
        raise AudioProjectionError(f"cannot make the folder {folder}: {nearest} is a file; choose another")
    check_writable(nearest / "0001.wav")


def _format(path: Path) -> tuple[str, str | None]:
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(FORMATS)
        raise AudioProjectionError(f"cannot write {path}: the name must end in one of {known}") from None


def _target(path: str | Path) -> Path:
    """The file behind any symbolic link; a directory or a device cannot be replaced."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise AudioProjectionError(f"cannot write {path}: there is no folder {target.parent}")
    # lstat also finds names that are too long for the file system.
    with contextlib.suppress(FileNotFoundError):
        target.lstat()
        if not target.is_file():
            raise AudioProjectionError(f"cannot write {path}: it is not a regular file")
    return target


@contextlib.contextmanager
def _os_errors_reported(path: str | Path) -> Iterator[None]:
    import soundfile

    try:
        yield
    except AudioProjectionError:
        raise
    except OSError as error:
        raise AudioProjectionError(f"cannot write {path}: {error.strerror or error}") from None
    except (soundfile.LibsndfileError, ValueError) as error:
        raise AudioProjectionError(f"cannot write {path}: {error}") from None
