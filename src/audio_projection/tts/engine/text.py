"""The text of an utterance as the engine takes it: one embedding a frame, whole, pulled, or fed by another thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from typing import Protocol

import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import Prompt, special_embeddings


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
