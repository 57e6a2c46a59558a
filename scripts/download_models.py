"""Bring the models and data that a configuration needs; the same as `audio-projection download`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from audio_projection.cli import launch  # noqa: E402

launch("download")
