"""Speech as a stream of chunks, to be iterated or iterated asynchronously."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from audio_projection.inference.channel import Channel
from audio_projection.inference.pipeline import Pipeline
from audio_projection.inference.timing import AnswerTiming
from audio_projection.inference.words import Word, spoken_until
from audio_projection.tts.engine.engine import Engine
from audio_projection.tts.engine.utterance import Timing


class SpeechStream(Iterator[np.ndarray], AsyncIterator[np.ndarray]):
    """Chunks of samples (s,), float32, while they are made: `for chunk in stream`, or `async for chunk in stream`.

    The work begins with the first chunk that is asked for. A stream that is dropped is cancelled.
    """

    def __init__(self, engine: Engine, produce: Callable[[Channel], None], room: int = 1) -> None:
        self._pipeline = Pipeline(engine, produce, room)
        self._executor: ThreadPoolExecutor | None = None
        weakref.finalize(self, self._pipeline.cancel).atexit = False  # the pipeline sees to that itself

    def __next__(self) -> np.ndarray:
        samples = self._pipeline.next()
        if samples is None:
            raise StopIteration
        return samples

    def __aiter__(self) -> AsyncIterator[np.ndarray]:
        return self

    async def __anext__(self) -> np.ndarray:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "audio-projection-stream")
        loop = asyncio.get_running_loop()
        try:
            samples = await loop.run_in_executor(self._executor, self._pipeline.next)
        except asyncio.CancelledError:
            loop.run_in_executor(None, self.cancel)
            raise
        if samples is None:
            raise StopAsyncIteration
        return samples

    def cancel(self) -> None:
        """Stops speaking, from any thread: no more chunks come, and slot and memory are free within a frame."""
        self._pipeline.cancel()

    def close(self) -> None:
        """As `cancel`; for `contextlib.closing`."""
        self.cancel()

    async def aclose(self) -> None:
        """As `cancel`, without blocking the event loop; for `contextlib.aclosing`."""
        await asyncio.to_thread(self.cancel)

    @property
    def text(self) -> str:
        """The text that was given to the TTS so far, in the words that are spoken."""
        return " ".join(" ".join(each.sentence.text for each in self._pipeline.sentences).split())

    @property
    def seconds(self) -> float:
        """Seconds of sound that were delivered."""
        return self._pipeline.seconds

    @property
    def words(self) -> list[Word]:
        """The words that were delivered, placed in the sound: see `Word`."""
        return [word for each in self._pipeline.sentences for word in each.words()]

    @property
    def heard(self) -> str:
        """The words whose sound was delivered."""
        return self.heard_until(self.seconds)

    def heard_until(self, seconds: float) -> str:
        """The words that end within the first seconds of the sound that was delivered."""
        return spoken_until(self._pipeline.sentences, min(seconds, self.seconds))[0]

    @property
    def timing(self) -> AnswerTiming:
        """Where the time went so far, as the listener waited for it."""
        return self._pipeline.timing

    @property
    def timings(self) -> list[Timing]:
        """Where the time of each utterance (each sentence) went in the engine."""
        return self._pipeline.timings


class Answer(SpeechStream):
    """A spoken answer: chunks of samples (s,), float32, while the LLM writes it.

    `text` is what was given to the TTS so far, `heard` what was delivered of it.
    """

    def written_until(self, seconds: float) -> str:
        """What was delivered within the first seconds of sound, as the LLM wrote it: figures are figures."""
        return spoken_until(self._pipeline.sentences, min(seconds, self.seconds))[1]
