"""Which models and voices a request can name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from audio_projection.server.errors import APIError

if TYPE_CHECKING:
    from audio_projection.inference import Voice

OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"),
    *("marin", "nova", "onyx", "sage", "shimmer", "verse"),
)
"""They mean the default voice."""
DEFAULT = "default"
_OPENAI_MODELS = ("tts-1", "gpt-")
"""How the names of OpenAI's speech, chat and realtime models begin; they mean the first model."""


class Catalogue:
    """The loaded voices by the name of their projector, which is what a request calls the model."""

    def __init__(self, voices: Mapping[str, Voice]) -> None:
        self._voices = dict(voices)
        self._first = next(iter(voices.values()))

    @property
    def models(self) -> list[str]:
        """Names of the models."""
        return list(self._voices)

    @property
    def voices(self) -> list[str]:
        """Names of the voices: those of the TTS, and the default one."""
        return [DEFAULT, *self._first.tts.config.talker.speakers]

    @property
    def languages(self) -> list[str]:
        """Languages of the TTS."""
        return list(self._first.tts.config.language_names)

    def model(self, name: str) -> Voice:
        """The model of this name. APIError (404) lists those that there are."""
        if name in self._voices:
            return self._voices[name]
        if name == DEFAULT or name.startswith(_OPENAI_MODELS):
            return self._first
        raise APIError(
            f"no model {name!r}; there are {', '.join(self.models)}", 404, param="model", code="model_not_found"
        )

    def speaker(self, name: str) -> str | None:
        """The speaker of this name, None for the default one. APIError lists the voices."""
        known = {each.lower(): each for each in self.voices[1:]}
        if name.lower() in known:
            return known[name.lower()]
        if name == DEFAULT or name.lower() in OPENAI_VOICES:
            return None
        raise APIError(
            f"no voice {name!r}; there are {', '.join(self.voices)} (OpenAI's names, such as alloy, mean the default)",
            param="voice",
            code="voice_not_found",
        )
