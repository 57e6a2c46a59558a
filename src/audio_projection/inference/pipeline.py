"""From the LLM's thread through the engine to chunks of sound, in order."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from weakref import WeakSet

import numpy as np
from torch import Tensor

from audio_projection.inference.channel import Channel, Item, stop_threads
from audio_projection.inference.timing import LLM_PARTS, AnswerTiming, shared
from audio_projection.inference.words import SpokenSentence
from audio_projection.tts.engine.engine import Engine
from audio_projection.tts.engine.utterance import Timing, Utterance

AT_ONCE = 2
"""Sentences of one stream that are decoded at once."""
AHEAD = 1.0
"""Seconds by which the sound of a sentence must be ahead of its playback before the next one is begun beside it."""
CHUNKS_AHEAD = 4
"""Finished chunks of a sentence that wait for a slow listener at most; its slot stalls then."""
_PARTS = {"queue": "queue", "prefill": "talker_prefill", "frames": "frames", "codec": "codec", "text": "text"}


class Pipeline:
    """Speaks what a channel brings: the next sentence is begun while one is decoded, and its chunks follow.

    One thread takes chunks by `next`; any thread may `cancel`.
    """

    def __init__(self, engine: Engine, produce: Callable[[Channel], None], room: int) -> None:
        """`room`: how many sentences may be made before the first one is heard; then one more for each that is."""
        self.sentences: list[SpokenSentence] = []
        """Those that were begun, in their order."""
        self.timings: list[Timing] = []
        """Where the time of each utterance went."""
        self.timing = AnswerTiming()
        self._engine, self._produce = engine, produce
        self._channel = Channel(room)
        self._running: deque[tuple[Utterance, SpokenSentence]] = deque()
        self._counted: dict[str, float] = {}  # what is counted already of the time of the first running one
        self._lock = threading.Lock()
        self._started = self._cancelled = False
        _close_at_exit().add(self)
        self._first = False  # whether the last chunk was the first one of its sentence

    def next(self) -> np.ndarray | None:
        """The next chunk (s,), float32; None at the end. Raises what the LLM's thread or the engine raises."""
        if not self._started:
            self._started, self.timing = True, AnswerTiming()
            self._channel.start(self._produce)
            del self._produce  # its thread alone keeps the LLM's memory
        if self._first:  # the listener comes back for more: now one sentence more may be made
            self._first = False
            self._channel.allow()
        try:
            samples = self._next()
        except BaseException:
            self.cancel()
            raise
        clock = self._channel.clock
        self.timing.lap(clock.tokens, clock.seconds()["llm_tokens"], sounds=samples is not None)
        return samples

    @property
    def seconds(self) -> float:
        """Seconds of sound that were delivered."""
        return sum(each.seconds for each in self.sentences)

    def cancel(self) -> None:
        """Stops the LLM at its next token, frees the slots and all memory; `next` gives None from now on."""
        with self._lock:
            self._cancelled = True
            running = list(self._running)
        self._channel.cancel()
        for utterance, _ in running:
            utterance.cancel()

    def _next(self) -> np.ndarray | None:
        while True:
            self._begin_more()
            if not self._running:
                return None
            utterance, spoken = self._running[0]
            chunk = self._chunk(utterance)
            self._channel.sounds()
            if chunk is not None:
                self._first = not spoken.seconds
                if self._first:
                    spoken.start = self.seconds
                samples = chunk.cpu().numpy()
                spoken.add(samples, self._engine.tts.sample_rate)
                return samples
            spoken.ended = not self._cancelled
            with self._lock:
                self._running.popleft()
            self._counted = self._running[0][0].timing.parts() if self._running else {}

    def _chunk(self, utterance: Utterance) -> Tensor | None:
        """The first running utterance's next chunk; None at its end. Counts the time that it takes."""
        clock = self._channel.clock
        before = clock.seconds()
        try:
            return next(utterance, None)
        finally:
            parts = utterance.timing.parts()
            spent = {part: seconds - self._counted.get(part, 0.0) for part, seconds in parts.items()}
            self._counted = parts
            self.timing.add({_PARTS[part]: seconds for part, seconds in spent.items() if part in _PARTS})
            self.timing.add(shared(spent["stalled"], before, clock.seconds()))

    def _begin_more(self) -> None:
        """Submits sentences that are there; waits for one where nothing is spoken."""
        while len(self._running) < AT_ONCE and (not self._running or self._is_ahead(self._running[-1][0])):
            item = self._wait_for_item() if not self._running else self._channel.get(wait=False)
            if item is None:
                return
            with self._lock:
                if self._cancelled:
                    item.request.text.close()
                    return
                utterance = self._engine.submit(replace(item.request, ahead=CHUNKS_AHEAD))
                self._running.append((utterance, SpokenSentence(item.sentence)))
            self.sentences.append(self._running[-1][1])
            self.timings.append(utterance.timing)

    def _wait_for_item(self) -> Item | None:
        clock, began = self._channel.clock, time.perf_counter()
        before = clock.seconds() if self.sentences else dict.fromkeys(LLM_PARTS, 0.0)
        item = self._channel.get(wait=True)
        self.timing.add(shared(time.perf_counter() - began, before, clock.seconds()))
        return item

    def _is_ahead(self, utterance: Utterance) -> bool:
        """Whether so much of the utterance is there that the next one can be decoded beside it without a gap in it."""
        if not self._engine.free:
            return False  # no other listener waits for this one's next sentence
        if utterance.over:
            return True
        sounding = utterance.timing.sounding
        return sounding > 0 and utterance.frames / self._engine.tts.frame_rate - sounding >= AHEAD


@cache
def _close_at_exit() -> WeakSet[Pipeline]:
    """Pipelines that are cancelled at the end of the program: before torch and llama.cpp are taken apart, which would
    break whatever runs in them, and so that a stream that somebody forgot does not keep the program from ending."""
    pipelines = WeakSet[Pipeline]()
    atexit.register(_close_all, pipelines)
    return pipelines


def _close_all(pipelines: WeakSet[Pipeline]) -> None:
    for pipeline in list(pipelines):
        pipeline.cancel()
    stop_threads()
