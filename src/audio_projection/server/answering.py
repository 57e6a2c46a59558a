"""What a client asks the language model, as the voice takes it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from audio_projection.llm.language_model import Message

if TYPE_CHECKING:
    from audio_projection.inference import Answer, Voice
    from audio_projection.sampling import Choice


@dataclass(frozen=True)
class Asked:
    """A conversation to be answered, and how."""

    messages: Sequence[Message]
    speaker: str | None = None
    language: str | None = None
    seed: int | None = None
    temperature: float | None = None
    """Of the language model's tokens; 0: the most likely ones."""
    top_p: float | None = None
    tokens: int | None = None
    """Most tokens of the answer; never more than the server's own limit."""


def answer_stream(voice: Voice, asked: Asked) -> Answer:
    """The spoken answer. Raises AudioProjectionError as `Voice.chat_stream` does."""
    chosen = limited(voice, asked.tokens)
    return chosen.chat_stream(asked.messages, asked.speaker, asked.language, asked.seed, sampling(voice, asked))


def limited(voice: Voice, tokens: int | None) -> Voice:
    """The same voice, whose answers have at most so many tokens."""
    if tokens is None or tokens >= voice.defaults.max_new_tokens:
        return voice
    other = copy.copy(voice)
    other.defaults = replace(voice.defaults, max_new_tokens=tokens)
    return other


def sampling(voice: Voice, asked: Asked) -> Choice | None:
    """How tokens are chosen: as the model's generation configuration says, but for what was asked."""
    if asked.temperature is None and asked.top_p is None:
        return None
    usual = voice.llm.sampling
    if asked.temperature == 0:
        return replace(usual, greedy=True)
    warmth = usual.temperature if asked.temperature is None else asked.temperature
    top_p = usual.top_p if asked.top_p is None else asked.top_p
    return replace(usual, greedy=False, temperature=warmth, top_p=top_p)
