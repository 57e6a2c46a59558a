"""A lock on a folder, so that two runs do not write into it at once."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import make_folder

NAME = ".lock"


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is made; it goes with the process, however that ends.

    Raises AudioProjectionError when another process holds it. File systems without locks are used without.
    """
    with (make_folder(folder) / NAME).open("a+", encoding="utf-8") as file:
        try:
            _lock(file)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "?"
            raise AudioProjectionError(
                f"another run (process {owner}) writes into {folder}: wait for its end, stop it, or choose another "
                "folder"
            ) from None
        except OSError:
            yield
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _lock(file: IO[str]) -> None:
    """Raises BlockingIOError when another process holds the lock, OSError when there are none here."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 30)  # bytes beyond the text, which others may then read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError from None
        return
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
