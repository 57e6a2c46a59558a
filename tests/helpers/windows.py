"""What Windows refuses of files, emulated on Linux.

- `os.fsync` of a handle that is open for reading alone, and opening a folder at all.
- Renaming, replacing or deleting a file that is open or mapped into memory, or a folder with such a file in it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def windows_rules(within: Path) -> Iterator[None]:
    """Inside, files below `within` obey Windows' rules."""
    root = str(within.resolve())
    with pytest.MonkeyPatch.context() as patch:
        fsync, opened = os.fsync, os.open

        def checked_fsync(handle: Any) -> None:
            number = handle if isinstance(handle, int) else handle.fileno()
            if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(9, "Bad file descriptor")
            fsync(number)

        def checked_open(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if not options.get("dir_fd") and os.path.isdir(path) and _below(path, root):
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, flags, *rest, **options)

        def guarded(work: Any, places: int) -> Any:
            def checked(*paths: Any, **options: Any) -> Any:
                if options.get("dir_fd") is None and options.get("src_dir_fd") is None:
                    for path in paths[:places]:
                        _refuse_open(path, root)
                return work(*paths, **options)

            return checked

        patch.setattr(os, "fsync", checked_fsync)
        patch.setattr(os, "open", checked_open)
        for name, places in {"replace": 2, "rename": 2, "unlink": 1, "remove": 1, "rmdir": 1}.items():
            patch.setattr(os, name, guarded(getattr(os, name), places))
        # as on Windows, whole folders are removed by their paths
        patch.setattr("shutil._use_fd_functions", False)
        yield


def _below(path: Any, root: str) -> bool:
    return isinstance(path, str | os.PathLike) and os.path.realpath(path).startswith(root)


def _refuse_open(path: Any, root: str) -> None:
    if not _below(path, root):
        return
    place = os.path.realpath(path)
    for used in _in_use():
        if used == place or used.startswith(place + os.sep):
            raise PermissionError(32, "The process cannot access the file because it is being used", str(path))


def _in_use() -> set[str]:
    """Files that this process has open or mapped."""
    opened = set()
    for entry in os.listdir("/proc/self/fd"):
        try:
            opened.add(os.readlink(f"/proc/self/fd/{entry}"))
        except OSError:
            continue
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        opened |= {line.rstrip("\n").split(maxsplit=5)[5] for line in lines if line.count("/")}
    return opened
