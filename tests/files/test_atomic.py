"""Files are written whole or not at all, and leave nothing beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import write_bytes, write_json
from audio_projection.files.json_reader import read_json
from audio_projection.files.tensors import read_tensors, write_tensors


@pytest.mark.posix
def test_files_are_replaced_whole_and_leave_nothing_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "neuer ordner" / "a.json"
    write_json(path, {"ü": [1, 2.5, None]})
    write_json(path, {"ü": 2})
    assert read_json(path) == {"ü": 2}
    write_tensors(path.with_suffix(".safetensors"), {"x": torch.arange(6).reshape(2, 3).T})
    assert torch.equal(read_tensors(path.with_suffix(".safetensors"))["x"], torch.arange(6).reshape(2, 3).T)
    assert sorted(item.name for item in path.parent.iterdir()) == ["a.json", "a.safetensors"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AudioProjectionError, match="No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AudioProjectionError, match="cannot write"):
        write_bytes(tmp_path / "file" / "a", b"")
