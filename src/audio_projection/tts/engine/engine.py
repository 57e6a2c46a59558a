"""Continuous batching: utterances join and leave between frames, and each gets what it would get alone.

    engine = Engine(tts, slots=8)
    utterance = engine.submit(Request(prompt, WholeText(tts, prompt), seed=1, chunks=(1, 2, 4, 8, 12)))
    for samples in utterance:          # (s,) float32
        play(samples)
    utterance.timing

Whoever takes chunks drives the engine for all utterances; there is no thread of its own. Any number of threads may
submit, listen and cancel: one of them decodes at a time, the others wait for their chunks, and when the one that
decodes has its own it hands over to the one that has waited longest. One frame of all utterances is the unit of work:
utterances join, leave and are cancelled between two frames.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.sampling import Sampling
from audio_projection.tts.engine.slots import Slots
from audio_projection.tts.engine.sound import FRAMES_A_STEP, Sound
from audio_projection.tts.engine.text import FedText
from audio_projection.tts.engine.utterance import Request, Utterance
from audio_projection.tts.model import Qwen3TTS

SLOTS = 8
"""Utterances that are decoded at once, unless told otherwise."""


class Engine:
    """Decodes up to `slots` utterances at once; more wait until one ends.

    `sampling`: that of all requests that bring none; the checkpoint's unless given. `graphs`: capture the steps as CUDA
    graphs (CUDA only). `clock`: seconds by which listeners hear.
    """

    def __init__(
        self,
        tts: Qwen3TTS,
        sampling: Sampling | None = None,
        slots: int = SLOTS,
        graphs: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if slots < 1:
            raise AudioProjectionError(f"the engine has {slots} slots, must have at least 1")
        if graphs and tts.device.type != "cuda":
            raise AudioProjectionError(f"engine.graphs needs a CUDA device, the TTS is on {tts.device.type}")
        self.tts, self.slots, self.sampling = tts, slots, sampling or tts.sampling
        self.graphs, self._clock = graphs, clock
        # The lock is held for moments: to hand over chunks, requests and the turn. What is decoded belongs to the
        # thread that has the turn. Reentrant, because a stream that is dropped may be cancelled in any line.
        self._lock = threading.RLock()
        self._decoding = False  # whether a thread has the turn
        self._listeners: list[threading.Condition] = []  # of threads that wait for their chunks, longest first
        self._to_do = threading.Condition(self._lock)  # the thread that has the turn waits here when it can do nothing
        self._heard: dict[Utterance, threading.Condition] = {}  # where the listener of each utterance waits
        self._waiting: deque[Utterance] = deque()
        self._cancelled: list[Utterance] = []
        self._in_slots = Slots(tts, self.sampling, slots, graphs)
        self._sounding: list[Utterance] = []  # with frames that are not yet sound, in a slot or not
        self._sound: Sound | None = None

    @property
    def active(self) -> int:
        """Slots in use."""
        return len(self._in_slots)

    @property
    def free(self) -> int:
        """Slots that a request could take at once."""
        with self._lock:
            return max(0, self.slots - self.active - len(self._waiting))

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        with self._lock:
            return max(0, len(self._waiting) - max(0, self.slots - self.active))

    def submit(self, request: Request) -> Utterance:
        """Queues an utterance. AudioProjectionError for limits, chunks or bounds below 1."""
        return self._enter(request, threading.Condition(self._lock))

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[int, Utterance]]:
        """Decodes many requests: (number, utterance) of each as it ends, with all its chunks.

        A request is taken from the iterable when a slot is free for it.
        """
        source, running, news = enumerate(requests), dict[int, Utterance](), threading.Condition(self._lock)
        try:
            while True:
                while len(running) < self.slots:
                    following = next(source, None)
                    if following is None:
                        break
                    number, request = following
                    running[number] = self._enter(request, news)
                if not running:
                    return
                self._decode_until(news, lambda: any(utterance.over for utterance in running.values()))
                for number in [number for number, utterance in running.items() if utterance.over]:
                    yield number, running.pop(number)
        finally:
            for utterance in running.values():
                utterance.cancel()

    def next_chunk(self, utterance: Utterance) -> Tensor:
        """The utterance's next chunk, decoding until there is one; StopIteration at its end."""
        with self._lock:
            news = self._heard.get(utterance, self._to_do)
        self._decode_until(news, lambda: bool(utterance.chunks) or utterance.over or utterance.cancelled)
        with self._lock:
            if utterance.chunks:
                self._to_do.notify_all()  # it may have stalled for want of room
                return utterance.chunks.popleft()
            if utterance.error is not None:
                error, utterance.error = utterance.error, None
                raise error
            raise StopIteration

    def cancel(self, utterance: Utterance) -> None:
        """Frees the utterance's slot and memory: at once, or where another thread is decoding, after its frame."""
        with self._lock:
            utterance.cancelled = True
            utterance.chunks.clear()
            if utterance.over:
                return
            self._cancelled.append(utterance)
            self._tell(utterance)
            if self._decoding:
                self._to_do.notify_all()
                return
            self._decoding = True  # the lock is reentrant, the turn is not
            try:
                self._sweep()
            finally:
                self._hand_over()

    def step(self) -> bool:
        """One frame of every utterance whose text is there, a piece of a prompt and some chunks of sound; False when
        all of them wait for their text or their listeners, or there are none."""
        news = threading.Condition(self._lock)
        with self._turn(news, lambda: False):
            return self._step()

    def _enter(self, request: Request, news: threading.Condition) -> Utterance:
        request.check()
        utterance = Utterance(self, self.tts, request, self._clock)
        if isinstance(request.text, FedText):
            request.text.wake = self._wake
        with self._lock:
            self._heard[utterance] = news
            self._waiting.append(utterance)
            self._to_do.notify_all()
        return utterance

    def _decode_until(self, news: threading.Condition, done: Callable[[], bool]) -> None:
        """Decodes until `done()`; waits while another thread decodes, which tells `news`."""
        while not done():
            with self._turn(news, done) as mine:
                if not mine:
                    return
                while True:
                    worked = self._step()
                    with self._lock:
                        if done():
                            return
                        if not worked and not self._can_work():
                            self._to_do.wait()

    @contextmanager
    def _turn(self, news: threading.Condition, done: Callable[[], bool]) -> Iterator[bool]:
        """Waits for the turn to decode, or until `done()`; gives whether it has the turn."""
        with self._lock:
            try:
                while self._decoding and not done():
                    self._listeners.append(news)
                    try:
                        news.wait()
                    finally:
                        self._listeners.remove(news)
                mine = not self._decoding and not done()
                self._decoding |= mine
            finally:
                self._offer_turn()  # it may have been offered to this thread, which does not take it
        if not mine:
            yield False
            return
        try:
            yield True
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            self._sweep()  # what was cancelled during the last frame, which nobody may step after
            self._decoding = False
            self._offer_turn()

    def _offer_turn(self) -> None:
        """Wakes the thread that has waited longest, unless one has the turn; the lock is held."""
        if self._listeners and not self._decoding:
            self._listeners[0].notify()

    def _wake(self) -> None:
        with self._lock:
            self._to_do.notify_all()

    def _tell(self, utterance: Utterance) -> None:
        """Wakes the utterance's listener; the lock is held."""
        news = self._heard.get(utterance)
        if news is not None:
            news.notify_all()

    def _can_work(self) -> bool:
        """Whether a step could do something; the lock is held."""
        if self._cancelled or self._sounding_due() or (self._waiting and self.active < self.slots):
            return True
        return any(map(self._can_go_on, self._in_slots.utterances))

    @staticmethod
    def _can_go_on(utterance: Utterance) -> bool:
        """Whether its prompt or a frame of it can be decoded."""
        return not utterance.started or (not utterance.unheard and utterance.request.text.ready())

    def _step(self) -> bool:
        try:
            with self._lock:
                self._sweep()
                self._admit()
            worked = self._in_slots.prepare() | self._in_slots.frame()
            if self._in_slots.must_read or not worked:
                self._receive(self._in_slots.read())
            return self._decode_chunks(until=self._next_frame_wanted() if worked else math.inf) or worked
        except BaseException as error:
            self._abandon(error)
            raise

    def _sweep(self) -> None:
        """Frees what cancelled utterances hold; the lock is held."""
        for utterance in self._cancelled:
            if not utterance.over:
                if utterance in self._waiting:
                    self._waiting.remove(utterance)
                self._in_slots.leave(utterance)
                self._end(utterance)
        self._cancelled.clear()

    def _admit(self) -> None:
        while self._waiting and self.active < self.slots:
            self._in_slots.admit(self._waiting[0], len(self._waiting))
            self._waiting.popleft()

    def _receive(self, utterances: Iterable[Utterance]) -> None:
        """Takes the new frames of utterances: to become sound, or as they are."""
        for utterance in utterances:
            if utterance.request.chunks is None:
                frames, utterance.codes = utterance.codes, []
                self._deliver(utterance, frames)
            elif utterance not in self._sounding:
                self._sounding.append(utterance)
        self._end_spoken()

    def _next_frame_wanted(self) -> float:
        """The soonest deadline of the utterances that need more frames for their next chunk."""
        going = [each for each in self._in_slots.utterances if not each.due and self._can_go_on(each)]
        return min((each.deadline for each in going), default=math.inf)

    def _decode_chunks(self, until: float) -> bool:
        """Chunks that are due and needed before `until`: as many as the codec may decode before the next frame."""
        decoded, most = 0, max(FRAMES_A_STEP, self.active)
        while decoded < most and (due := [each for each in self._sounding_due() if each.deadline <= until]):
            self._sound = self._sound or Sound(self.tts.codec)
            group = self._sound.next_group(due)
            for utterance, samples in zip(group, self._sound.decode(group), strict=True):
                decoded += len(samples) // self.tts.codec.samples_per_frame
                self._deliver(utterance, [samples])
        self._end_spoken()
        return decoded > 0

    def _sounding_due(self) -> list[Utterance]:
        return [utterance for utterance in self._sounding if utterance.due]

    def _deliver(self, utterance: Utterance, chunks: list[Tensor]) -> None:
        with self._lock:
            if not utterance.cancelled:
                utterance.chunks.extend(chunks)
            self._tell(utterance)

    def _end_spoken(self) -> None:
        """Ends the utterances of which nothing is left to be done."""
        with self._lock:
            for utterance in [each for each in self._heard if each.spoken and not each.codes]:
                self._end(utterance)

    def _end(self, utterance: Utterance) -> None:
        """Frees all that the utterance holds; the lock is held."""
        utterance.end()
        if utterance in self._sounding:
            self._sounding.remove(utterance)
        self._tell(utterance)
        self._heard.pop(utterance, None)

    def _abandon(self, error: BaseException) -> None:
        """A step broke off: the decoder's state is unknown, so every utterance ends with an error."""
        if not isinstance(error, Exception):  # Ctrl-C, which is the decoding thread's alone
            error = AudioProjectionError(f"decoding was interrupted by {type(error).__name__}")
        with self._lock:
            self._in_slots.abandon()
            self._waiting.clear()
            self._cancelled.clear()
            for utterance in list(self._heard):
                utterance.error = error
                utterance.request.text.close()
                self._end(utterance)
