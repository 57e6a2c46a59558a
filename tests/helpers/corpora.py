"""Small corpora of noise, work in killed processes, and checks of the files that they leave."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from safetensors import safe_open


def noise(seconds: float, rate: int = 16000, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Samples (S, channels) of noise at the level of speech."""
    return np.random.default_rng(seed).normal(0, 0.1, (round(seconds * rate), channels)).astype(np.float32)


def write_sound(path: Path, samples: np.ndarray, rate: int = 16000, **kind: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **kind)
    return path


def manifest(folder: Path, count: int) -> Path:
    """`count` recordings of about a second, every fourth one broken, and their manifest."""
    lines = []
    for number in range(count):
        name = f"{number:02d}.wav"
        if number % 4 == 3:
            (folder / name).write_text("no sound")
        else:
            write_sound(folder / name, noise(1 + number / 50, seed=number))
        lines.append(f"{name}\tthe quick brown fox {number}")
    (folder / "list.tsv").write_text("\n".join(lines) + "\n")
    return folder / "list.tsv"


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all finished files below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def assert_whole(folder: Path) -> None:
    """Asserts that every file that is not temporary can be read to its end."""
    for name, content in contents(folder).items():
        if name.endswith(".json"):
            json.loads(content)
        elif name.endswith(".gz"):
            gzip.decompress(content)
        elif name.endswith(".safetensors"):
            with safe_open(folder / name, "pt") as file:
                assert all(file.get_tensor(key) is not None for key in file.keys())  # noqa: SIM118


def finished(folder: Path, mark: str) -> dict[str, tuple[int, int]]:
    """The files that mark finished shards, with inode and time, which change when one is written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(folder.glob(mark))}


def run_killed(work: Callable[[], Any], folder: Path, mark: str, kills: int, seed: int) -> None:
    """Runs `work` in a process of its own until it ends by itself, SIGKILLed at `kills` random moments before.

    A moment is a random while after none, one or two more shards were finished. Nothing may be torn or made again.
    """
    draw, context = random.Random(seed), multiprocessing.get_context("fork")
    for number in range(kills + 1):
        before = finished(folder, mark)
        process = context.Process(target=work)
        process.start()
        if number < kills:
            wanted = len(before) + draw.choice((0, 0, 1, 2))
            while process.is_alive() and len(finished(folder, mark)) < wanted:
                time.sleep(0.0005)
            time.sleep(draw.uniform(0, 0.03))
            process.kill()
        process.join(120)
        assert number < kills or process.exitcode == 0
        assert_whole(folder)
        after = finished(folder, mark)
        assert before.items() <= after.items(), "a finished shard was made again"
