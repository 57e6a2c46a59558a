"""Where the checkout, its fixtures and the optional test material lie."""

from __future__ import annotations

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
REPOSITORY = TESTS.parent
FIXTURES = TESTS / "fixtures"
SHARED = Path(os.environ.get("AUDIO_PROJECTION_SHARED", REPOSITORY.parent / "shared"))
"""Real tokenizers, corpora and stored official outputs; tests that need it are skipped where it is absent."""
