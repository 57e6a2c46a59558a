"""One thread everywhere (two threads on a busy small machine are many times slower than one), and shared fixtures."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# No test may reach a real model hub by accident.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from pathlib import Path

import pytest

from helpers.paths import REPOSITORY, SHARED


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of optional test material: AUDIO_PROJECTION_SHARED, or `shared` beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"optional test material is absent: no folder {SHARED} (set AUDIO_PROJECTION_SHARED)")
    return SHARED


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`slow` tests run only when asked for by -m; `gpu` ones where a CUDA device is, `posix` ones not on Windows."""
    import torch

    if os.name == "nt":
        skip_posix = pytest.mark.skip(reason="forks, signals and permissions are not those of Windows")
        for item in items:
            if "posix" in item.keywords:
                item.add_marker(skip_posix)

    if not config.getoption("-m"):
        skip_slow = pytest.mark.skip(reason="slow: run with -m slow")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip_slow)
    if not torch.cuda.is_available():
        skip_gpu = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip_gpu)
