"""Where the time of a spoken answer goes: in the thread of the LLM, and for its listener."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

LLM_PARTS = ("llm_prefill", "llm_tokens", "projector", "text")


class LLMClock:
    """Divides the time of the LLM's thread into parts: at each moment it does one thing.

    Parts: "llm_prefill", "llm_tokens", "projector", "text" (all else: alignment, normalisation), "waiting" (for room).
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys((*LLM_PARTS, "waiting"), 0.0)
        self._part, self._since = "text", time.perf_counter()
        self.tokens = 0
        """LLM tokens written so far."""

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Until the end of the block the thread does this."""
        before = self._switch(part)
        try:
            yield
        finally:
            self._switch(before)

    def move(self, seconds: float, source: str, target: str) -> None:
        """Some of what was counted as one part was another."""
        self._seconds[source] -= seconds
        self._seconds[target] += seconds

    def stop(self) -> None:
        """The thread ends: all that follows is "waiting"."""
        self._switch("waiting")

    def seconds(self) -> dict[str, float]:
        """Seconds of each part so far."""
        part, since, seconds = self._part, self._since, dict(self._seconds)
        seconds[part] += max(0.0, time.perf_counter() - since)
        return seconds

    def _switch(self, part: str) -> str:
        now, before = time.perf_counter(), self._part
        self._seconds[before] += now - self._since
        self._part, self._since = part, now
        return before


@dataclass
class AnswerTiming:
    """Where the time of a stream went, in seconds, as its listener waited for it; the parts add up to `total`.

    LLM, talker and codec work at the same time: each moment counts for what the listener waited for.
    """

    llm_prefill: float = 0.0
    """The LLM reading: the conversation of a chat; the sentences of a text."""
    llm_tokens: float = 0.0
    """The LLM writing tokens that the talker waited for."""
    projector: float = 0.0
    text: float = 0.0
    """Alignment, normalisation, and all else between LLM and talker."""
    queue: float = 0.0
    """Until a slot of the engine was free."""
    talker_prefill: float = 0.0
    frames: float = 0.0
    """Talker and code predictor."""
    codec: float = 0.0
    other: float = 0.0
    """Work for other utterances, and what the listener did between two chunks."""
    first_sound: float | None = None
    """From the beginning to the first chunk."""
    total: float = 0.0
    """From the beginning to the end, or to the last chunk so far."""
    tokens: int = 0
    """LLM tokens that were written."""
    per_token: float = 0.0
    """Mean seconds of the LLM for one of them."""
    _begun: float = field(default_factory=time.perf_counter, repr=False)

    def parts(self) -> dict[str, float]:
        """The parts by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)[:9]}

    def add(self, parts: Mapping[str, float]) -> None:
        """Adds seconds to parts by name."""
        for name, seconds in parts.items():
            setattr(self, name, getattr(self, name) + seconds)

    def lap(self, tokens: int, llm_seconds: float, sounds: bool) -> None:
        """A chunk was delivered, or the end was reached; the LLM has written so many tokens in so many seconds."""
        self.total = time.perf_counter() - self._begun
        self.other = 0.0
        self.other = self.total - sum(self.parts().values())
        self.tokens, self.per_token = tokens, llm_seconds / max(1, tokens)
        if sounds and self.first_sound is None:
            self.first_sound = self.total


def shared(seconds: float, before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Seconds of waiting for the LLM, divided into parts by what its thread did meanwhile."""
    done = {part: max(0.0, after[part] - before[part]) for part in LLM_PARTS}
    whole = sum(done.values())
    return {part: seconds * share / whole for part, share in done.items()} if whole > 0 else {"text": seconds}
