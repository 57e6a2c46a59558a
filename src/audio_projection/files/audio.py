"""Sound files: read as mono float32 at any sampling rate, written atomically."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import replacing

if TYPE_CHECKING:
    from soundfile import SoundFile

FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None)}
"""File suffix -> libsndfile's format and subtype."""

# libsndfile overflows its stack when the Vorbis encoder is given minutes of samples at once.
_BLOCK = 1 << 16
_PADDING = 0.1  # s


def read(path: str | Path, rate: int) -> np.ndarray:
    """The sound of a file as mono float32 samples (S,) in [-1, 1], resampled to `rate` Hz.

    Raises `AudioProjectionError` for a file that is missing, not a sound file, or empty.
    """
    samples, source_rate = decode(path)
    if not len(samples):
        raise AudioProjectionError(f"{path}: the sound file is empty")
    return resample(mix_down(samples), source_rate, rate)


def decode(path: str | Path) -> tuple[np.ndarray, int]:
    """The sound of a file, not resampled: float32 samples (S, channels) and their rate in Hz; S may be 0.

    Raises `AudioProjectionError` for a file that is missing, not a sound file, or breaks off.
    """
    import soundfile

    announced = duration(path)
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, ValueError, MemoryError) as error:  # memory: a header that lies
        raise AudioProjectionError(f"{path}: not a sound file that can be read ({error})") from None
    # an MP3's header may count the encoder's padding
    if announced - len(samples) / rate > _PADDING:
        raise AudioProjectionError(f"{path}: it breaks off after {len(samples) / rate:.2f} of {announced:.2f} s")
    return samples, rate


def mix_down(samples: np.ndarray) -> np.ndarray:
    """The mean (S,) over the channels of samples (S, channels)."""
    return samples.mean(axis=1, dtype=np.float32)


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Float32 samples (S,) at `rate` Hz -> float32 samples at `target` Hz."""
    import soxr

    return samples if rate == target else soxr.resample(samples, rate, target).astype(np.float32)


def duration(path: str | Path) -> float:
    """Seconds of a sound file, by its header; raises `AudioProjectionError` for what `decode` will not take."""
    import soundfile

    if not Path(path).is_file():
        raise AudioProjectionError(f"no sound file {path}")
    try:
        return soundfile.info(str(path)).duration
    except (soundfile.SoundFileError, OSError, ValueError, ZeroDivisionError) as error:
        raise AudioProjectionError(f"{path}: not a sound file that can be read ({error})") from None


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
