"""Atomic writes of files and folders: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audio_projection.errors import AudioProjectionError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` that replaces it when the block succeeds, and is deleted when it fails.

    Folders on the way are made; a symbolic link stays one. Raises AudioProjectionError when the place cannot be
    written.
    """
    target = Path(os.path.realpath(path))
    if not Path(path).name or target.is_dir():
        raise AudioProjectionError(f"cannot write {path}: that is a folder; give the name of a file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_beside(target) as temporary:
            yield temporary
            publish(temporary, target)
    except OSError as error:
        raise AudioProjectionError(
            f"cannot write {path}: {error.strerror or f'the disk may be full ({error})'}; "
            "choose a folder with space that you may write to"
        ) from error


def publish(finished: Path, target: Path) -> None:
    """Flushes a finished file to the disk and renames it to `target`, in one step; OSError when that fails."""
    with finished.open("rb+") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())
    os.replace(finished, target)
    _sync_folder(target.parent)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replaces `path` by `data` in one step; the old file stays untouched when anything fails.

    Raises AudioProjectionError when the folder cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode())


def write_folder(target: Path, payloads: Mapping[str, bytes]) -> None:
    """Writes a folder of files by name; it gets its own name only when each of its files is on the disk."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    for name, data in payloads.items():
        write_bytes(temporary / name, data)
    if target.exists():
        shutil.rmtree(target)
    os.replace(temporary, target)
    _sync_folder(target.parent)


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Removes the temporary files that killed processes left in `folder` for files whose names begin with `name`.

    No process may be writing there.
    """
    for stale in folder.glob(f".{name}*.tmp"):
        stale.unlink(missing_ok=True)


def make_folder(folder: Path) -> Path:
    """Makes the folder and those above it; AudioProjectionError when that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioProjectionError(f"cannot make the folder {folder}: {error.strerror}; choose another") from None
    return folder


@contextlib.contextmanager
def _temporary_beside(target: Path) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", suffix=".tmp", dir=target.parent)
    os.close(descriptor)
    try:
        os.chmod(name, _permissions(target))
        yield Path(name)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)


def _permissions(target: Path) -> int:
    """Those of the file that is replaced, else what a plain open() gives: mkstemp makes private files."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable; some file systems cannot sync a folder, and need not."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
