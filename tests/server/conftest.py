"""The nano voice, served."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from audio_projection.config import ServerConfig
from audio_projection.inference import Voice
from helpers.serving import Running, serving


@pytest.fixture(scope="session")
def voice() -> Voice:
    """The shipped voice, whose answers are short."""
    return Voice.from_config("configs/nano.yaml", ["llm.max_new_tokens=24", "engine.slots=4"])


@pytest.fixture(scope="module")
def running(voice: Voice) -> Iterator[Running]:
    """A server without keys, with room for four streams and two that wait."""
    with serving({"linear": voice}, ServerConfig(port=0, queue=2)) as server:
        yield server
