"""Utterances in the engine: what is asked for, its limits, the chunks that come of it, and where its time went."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.sampling import Sampling
from audio_projection.tts.codec.codec import BLOCK_FRAMES, CodecStream
from audio_projection.tts.engine.text import Text
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import Prompt

log = logging.getLogger(__name__)

FIRST_SOUND = 0.1
"""Seconds from the request within which a first chunk is wanted, when others need theirs as well."""


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
    sampling: Sampling | None = None
    """None: the engine's."""
    ahead: int | None = None
    """Most finished chunks that wait for the listener; the utterance stalls while there are so many. None: any number.
    """

    def check(self) -> None:
        """AudioProjectionError for chunks or a bound below 1."""
        if self.chunks is not None and (not self.chunks or min(self.chunks) < 1):
            raise AudioProjectionError(f"chunks must have at least 1 frame, not {list(self.chunks)}")
        if self.ahead is not None and self.ahead < 1:
            raise AudioProjectionError(f"{self.ahead} finished chunks may wait for the listener, must be at least 1")


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
    unheard: float = 0.0
    """Waiting for the listener to take finished chunks, of which only so many may wait (`Request.ahead`)."""
    frames: float = 0.0
    """Talker and code predictor; the whole step counts for each utterance in it."""
    codec: float = 0.0
    other: float = 0.0
    """Work for other utterances, and waiting for a listener, who drives the engine by taking chunks."""
    first_sound: float | None = None
    """From the request to the first chunk."""
    total: float = 0.0
    """From the request to the end of the utterance."""

    begun: float = field(default_factory=time.perf_counter, repr=False)
    _last: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self._last = self.begun

    def lap(self, part: str) -> None:
        """What passed since the last lap belongs to `part`."""
        now = time.perf_counter()
        setattr(self, part, getattr(self, part) + now - self._last)
        self._last = now

    @property
    def sounding(self) -> float:
        """Seconds since the first chunk; 0 before it."""
        return 0.0 if self.first_sound is None else time.perf_counter() - self.begun - self.first_sound

    def delivered(self) -> None:
        if self.first_sound is None:
            self.first_sound = time.perf_counter() - self.begun

    def ended(self) -> None:
        self.lap("other")
        self.total = self._last - self.begun

    def parts(self) -> dict[str, float]:
        """The parts by name."""
        names = ("queue", "prefill", "text", "stalled", "unheard", "frames", "codec", "other")
        return {name: getattr(self, name) for name in names}


class Listening(Protocol):
    """What an utterance needs of its engine."""

    def next_chunk(self, utterance: Utterance) -> Tensor:
        """The utterance's next chunk; StopIteration at its end."""

    def cancel(self, utterance: Utterance) -> None:
        """Stops the utterance and frees what it holds."""


class Utterance(Iterator[Tensor]):
    """One utterance in the engine: an iterator over its chunks of samples (s,), or its frames of codes (G,).

    `timing` says where its time went. Any thread may take chunks or cancel.
    """

    def __init__(
        self, engine: Listening, tts: Qwen3TTS, request: Request, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.request = request
        self.timing = Timing()
        self.frames = 0
        """Frames of speech so far."""
        self.guard = LengthGuard(tts, request.max_frames)
        self.read = 0
        """How many positions of the prompt the talker has read."""
        self.before = [] if request.before is None else list(request.before.split(BLOCK_FRAMES))
        """Blocks of codes that the codec has still to read first."""
        self.started = False
        """Whether the prompt is read and frames follow."""
        self.waits_for: str | None = None
        """What it waited for when a frame was last decoded: "unheard" or "stalled", as in `Timing`."""
        self.codes: list[Tensor] = []
        """Frames that are not yet sound, or not yet delivered."""
        self.chunks: deque[Tensor] = deque()
        """Finished chunks that wait for the listener."""
        self.error: BaseException | None = None
        """What the listener gets after the chunks that wait."""
        self.spoken = False
        """Whether all of its frames are decoded; its slot is free."""
        self.over = False
        """Whether nothing more is done for it; finished chunks may still be waiting."""
        self.cancelled = False
        self.cut = False
        """Whether it was stopped at its limit of frames."""
        self._engine = engine
        self._codec = tts.codec.stream() if request.chunks else None
        self._sizes = iter(request.chunks or ())
        self.size = next(self._sizes, 1)
        """Frames of its next chunk."""
        self._frame_seconds = 1 / tts.frame_rate
        self._clock = clock
        self._lasts_until = clock() + FIRST_SOUND

    def __next__(self) -> Tensor:
        return self._engine.next_chunk(self)

    def cancel(self) -> None:
        """Stops the utterance and frees all that it holds; chunks that were not taken are lost."""
        self._engine.cancel(self)

    @property
    def codec(self) -> CodecStream:
        """The codec's state; only of an utterance that becomes sound and is not over."""
        assert self._codec is not None, "only an utterance with chunks has sound"
        return self._codec

    @property
    def due(self) -> bool:
        """Whether a chunk of codes waits for the codec."""
        return bool(self.codes) and (self.spoken or len(self.codes) >= self.size)

    @property
    def unheard(self) -> bool:
        """Whether as many chunks wait for the listener as may."""
        return self.request.ahead is not None and len(self.chunks) >= self.request.ahead

    @property
    def deadline(self) -> float:
        """When a listener who plays from the first chunk on will have heard all that is finished; before the first one,
        `FIRST_SOUND` after the request. On the engine's clock."""
        return self._lasts_until

    def take_codes(self) -> list[Tensor]:
        """The frames of the next chunk, which are then no longer in `codes`."""
        taken, self.codes = self.codes[: self.size], self.codes[self.size :]
        self.size = next(self._sizes, self.size)
        return taken

    def delivered(self, frames: int) -> None:
        """A chunk of so many frames is finished."""
        now = self._clock()
        begun = now if self.timing.first_sound is None else self._lasts_until
        self._lasts_until = begun + frames * self._frame_seconds
        self.timing.delivered()

    def end(self) -> None:
        """Nothing more is done: frees the codec's state."""
        self.over, self._codec = True, None
        self.codes.clear()
        self.timing.ended()
