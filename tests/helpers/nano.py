"""What the bundled voice is, read from its own folder."""

from __future__ import annotations

import json

from audio_projection.files.locations import NANO_FOLDER
from audio_projection.text.characters import read_characters

TTS = NANO_FOLDER / "tts"
(SPEAKER,) = json.loads((TTS / "config.json").read_text(encoding="utf-8"))["talker_config"]["spk_id"]
"""Its only speaker."""
CHARACTERS = read_characters(TTS) or frozenset()
"""What it has learned to speak."""
