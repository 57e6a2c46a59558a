"""Answers that the LLM is made to give, with the states that it has of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from audio_projection.inference import Voice
from audio_projection.llm.language_model import GeneratedToken, Message

QUESTION = [{"role": "user", "content": "hello dog"}]


def scripted(
    voice: Voice, monkeypatch: pytest.MonkeyPatch, answer: str, before: Callable[[int], object] = lambda number: None
) -> list[int]:
    """Makes the LLM give this answer; returns the growing list of generated ids.

    `before` is called, in the LLM's thread, before each token with its number.
    """
    generated: list[int] = []

    def generate(messages: Sequence[Message], *_: Any) -> Iterator[GeneratedToken]:
        head, ids = voice.llm.chat_ids(messages), voice.llm.tokenize(answer)
        states = voice.llm.read([head + ids])[0][len(head) :]
        for number, (token, state) in enumerate(zip(ids, states, strict=True)):
            before(number)
            generated.append(token)
            yield GeneratedToken(token, voice.llm.tokenizer.decode([token]).encode(), state)

    monkeypatch.setattr(voice.llm, "generate", generate)
    return generated
