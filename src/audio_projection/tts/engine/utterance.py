"""Utterances for the engine: their text, their limits, the chunks of sound that they become, and their times."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Protocol

import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import Prompt, special_embeddings

log = logging.getLogger(__name__)


class Text(Protocol):
    """The text embeddings of an utterance after its prompt: one (H,) a frame, then padding without end."""

    @property
    def count(self) -> int:
        """Text embeddings so far, those of the prompt included; the length guard counts them."""

    def ready(self) -> bool:
        """Whether `take` gives an embedding at once. An utterance whose text is not ready waits."""

    def take(self) -> Tensor:
        """The next embedding (H,)."""

    def close(self) -> None:
        """No more embeddings will be taken."""


class WholeText:
    """The text of a prompt that has all of it."""

    def __init__(self, tts: Qwen3TTS, prompt: Prompt) -> None:
        self.count = prompt.text_length
        self._embeddings = chain(prompt.text_embeddings, repeat(special_embeddings(tts).pad))

    def ready(self) -> bool:
        return True

    def take(self) -> Tensor:
        return next(self._embeddings)

    def close(self) -> None:
        self._embeddings = iter(())  # type: ignore[assignment]


class PulledText:
    """Text embeddings (H,) pulled from an iterable, one for each frame, never ahead; then the end of text once, then
    padding. Blocks as long as the iterable does."""

    def __init__(self, tts: Qwen3TTS, embeddings: Iterable[Tensor]) -> None:
        self.count = 0
        self._special = special_embeddings(tts)
        self._source = embeddings
        self._remaining: Iterator[Tensor] | None = iter(embeddings)

    def ready(self) -> bool:
        return True

    def rest(self) -> Tensor:
        """All that are still to come, (N, H); afterwards there is padding only."""
        embeddings = [_checked(embedding, self._special.pad) for embedding in self._remaining or ()]
        self._remaining, self.count = None, len(embeddings)
        pad = self._special.pad
        return torch.stack(embeddings) if embeddings else pad.new_empty(0, len(pad))

    def take(self) -> Tensor:
        if self._remaining is None:
            return self._special.pad
        embedding = next(self._remaining, None)
        if embedding is not None:
            self.count += 1
            return _checked(embedding, self._special.pad)
        if not self.count:
            raise AudioProjectionError("there is no text to speak: no text embedding was given")
        self._remaining = None
        return self._special.eos

    def close(self) -> None:
        closing = getattr(self._remaining, "close", None)
        self._remaining = None
        if closing is not None:
            closing()


class FedText:
    """A bounded queue of text embeddings (H,) that another thread fills: an LLM's answer while it is generated.

    The producer blocks in `put` while `size` embeddings wait; the utterance waits while there is none.
    """

    def __init__(self, tts: Qwen3TTS, size: int = 32) -> None:
        self.count = 0
        self._special = special_embeddings(tts)
        self._size = size
        self._queue: deque[Tensor] = deque()
        self._changed = threading.Condition()
        self._finished = self._closed = self._padding = False
        self._error: BaseException | None = None
        self.wake: Callable[[], None] = lambda: None
        """Called when `ready` may have become true."""

    def put(self, embedding: Tensor) -> bool:
        """Adds an embedding, waiting for room; False when the utterance is over and takes no more."""
        checked = _checked(embedding, self._special.pad)
        with self._changed:
            self._changed.wait_for(lambda: len(self._queue) < self._size or self._closed)
            if self._closed:
                return False
            self._queue.append(checked)
        self.wake()
        return True

    def finish(self, error: BaseException | None = None) -> None:
        """The text is complete, or ends in an error, which the listener gets."""
        with self._changed:
            self._finished, self._error = True, error
        self.wake()

    def ready(self) -> bool:
        return bool(self._queue) or self._finished

    def take(self) -> Tensor:
        with self._changed:
            if self._queue:
                self.count += 1
                self._changed.notify_all()
                return self._queue.popleft()
            if self._error is not None:
                raise self._error
        if not self.count:
            raise AudioProjectionError("there is no text to speak: no text embedding was given")
        if self._padding:
            return self._special.pad
        self._padding = True
        return self._special.eos

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()


def _checked(embedding: Tensor, pad: Tensor) -> Tensor:
    if embedding.shape != pad.shape:
        raise AudioProjectionError(f"a text embedding has shape {tuple(embedding.shape)}, need {tuple(pad.shape)}")
    return embedding.to(pad)


class LengthGuard:
    """Stops an utterance at `max_frames` or, without it, with a warning when it is far too long for its text.

    Speech of 6 s and 1.28 s more a text token is a missed end: slow speech takes about a quarter of that (0.2 to 0.4 s
    a token).
    """

    SECONDS = 6.0
    SECONDS_PER_TOKEN = 1.28

    def __init__(self, tts: Qwen3TTS, max_frames: int | None) -> None:
        if max_frames is not None and max_frames < 1:
            raise AudioProjectionError(f"max_frames is {max_frames}, must be at least 1")
        self.max_frames = max_frames
        self.frame_rate = tts.frame_rate
        self.longest = max(1, int(tts.generation.get("max_new_tokens", 8192)) - 1)

    def limit(self, text_length: int) -> int:
        """The most frames that a text of `text_length` tokens may take."""
        if self.max_frames is not None:
            return self.max_frames
        return min(self.longest, round((self.SECONDS + self.SECONDS_PER_TOKEN * text_length) * self.frame_rate))

    def reached(self, frames: int, text_length: int) -> bool:
        """Whether to stop after so many frames."""
        if frames < self.limit(text_length):
            return False
        if self.max_frames is None:
            log.warning(
                "no end of speech after %.1f s for %d text tokens: stopped there; another seed may do better",
                frames / self.frame_rate,
                text_length,
            )
        return True


@dataclass(frozen=True)
class Request:
    """What is to be spoken, and how it is delivered."""

    prompt: Prompt
    text: Text
    seed: int = 0
    """Of sampling; unused when decoding greedily."""
    max_frames: int | None = None
    """None: a limit by the length of the text (`LengthGuard`)."""
    chunks: Sequence[int] | None = None
    """Frames that the codec decodes at once, the last size for all that follow; None: frames of codes are delivered."""
    before: Tensor | None = None
    """Codes (T, G) that the utterance continues: the codec decodes them first and drops their samples."""


@dataclass
class Timing:
    """Where the time of an utterance went, in seconds; the parts add up to `total`."""

    queue: float = 0.0
    """Until a slot was free."""
    prefill: float = 0.0
    """Of the talker, and of the codec for a voice that is cloned."""
    text: float = 0.0
    """Getting text embeddings that had to be pulled: LLM and projector, where they run in the same thread."""
    stalled: float = 0.0
    """Waiting for text embeddings from another thread."""
    frames: float = 0.0
    """Talker and code predictor; the whole step counts for each utterance in it."""
    codec: float = 0.0
    other: float = 0.0
    """Work for other utterances, and waiting for the listener, who drives the engine by taking chunks."""
    first_sound: float | None = None
    """From the request to the first chunk."""
    total: float = 0.0
    """From the request to the end of the utterance."""

    _begun: float = field(default_factory=time.perf_counter, repr=False)
    _last: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self._last = self._begun

    def lap(self, part: str) -> None:
        """What passed since the last lap belongs to `part`."""
        now = time.perf_counter()
        setattr(self, part, getattr(self, part) + now - self._last)
        self._last = now

    @property
    def sounding(self) -> float:
        """Seconds since the first chunk; 0 before it."""
        return 0.0 if self.first_sound is None else time.perf_counter() - self._begun - self.first_sound

    def delivered(self) -> None:
        if self.first_sound is None:
            self.first_sound = time.perf_counter() - self._begun

    def ended(self) -> None:
        self.lap("other")
        self.total = self._last - self._begun

    def parts(self) -> dict[str, float]:
        """The parts by name."""
        names = ("queue", "prefill", "text", "stalled", "frames", "codec", "other")
        return {name: getattr(self, name) for name in names}
