"""Continuous batching: utterances join and leave between frames, and each gets what it would get alone.

    engine = Engine(tts, slots=8)
    utterance = engine.submit(Request(prompt, WholeText(tts, prompt), seed=1, chunks=(1, 2, 4, 8, 12)))
    for samples in utterance:          # (s,) float32
        play(samples)
    utterance.timing

Whoever takes chunks drives the engine for all utterances; there is no thread of its own, and several threads may listen
at once. One frame of all utterances is the unit of work: utterances join, leave and are cancelled between two frames.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, takewhile

import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.sampling import Sampling
from audio_projection.tts.codec.codec import BLOCK_FRAMES, CodecStream
from audio_projection.tts.engine.decoder import Decoder
from audio_projection.tts.engine.utterance import FedText, LengthGuard, Request, Timing
from audio_projection.tts.model import Qwen3TTS

PREFILL_PIECE = 128
"""Positions of a prompt that are read at once, so that the utterances that are being spoken wait no longer than that.
The pieces do not depend on whether others are spoken, so neither does the result."""
SLOTS = 8
"""Utterances that are decoded at once, unless told otherwise."""


class Utterance(Iterator[Tensor]):
    """One utterance in the engine: an iterator over its chunks of samples (s,), or its frames of codes (G,).

    `timing` says where its time went.
    """

    def __init__(self, engine: Engine, request: Request) -> None:
        self.request = request
        self.timing = Timing()
        self.frames = 0
        """Frames of speech so far."""
        self._engine = engine
        self._guard = LengthGuard(engine.tts, request.max_frames)
        self.read = 0
        """How many positions of the prompt the talker has read."""
        self.before = [] if request.before is None else list(request.before.split(BLOCK_FRAMES))
        """Blocks of codes that the codec has still to read first."""
        self.started = False
        self.codec = engine.tts.codec.stream() if request.chunks else None
        self._sizes = iter(request.chunks or ())
        self._size = next(self._sizes, 1)
        self._codes: list[Tensor] = []
        self._chunks: deque[Tensor] = deque()
        self._error: BaseException | None = None
        self.over = False
        """Whether nothing more is decoded; chunks may still be waiting."""
        self.cut = False
        """Whether it was stopped at its limit of frames."""

    def __next__(self) -> Tensor:
        return self._engine.next_chunk(self)

    def cancel(self) -> None:
        """Stops the utterance and frees all that it holds; chunks that were not taken are lost."""
        self._engine.cancel(self)

    @property
    def due(self) -> bool:
        """Whether a chunk of codes waits for the codec."""
        return bool(self._codes) and (self.over or len(self._codes) >= self._size)


class Engine:
    """Decodes up to `slots` utterances at once; more wait until one ends.

    `graphs`: capture the steps as CUDA graphs (CUDA only). All utterances share one `sampling`, the checkpoint's unless
    given.
    """

    def __init__(
        self, tts: Qwen3TTS, sampling: Sampling | None = None, slots: int = SLOTS, graphs: bool = False
    ) -> None:
        if slots < 1:
            raise AudioProjectionError(f"the engine has {slots} slots, must have at least 1")
        if graphs and tts.device.type != "cuda":
            raise AudioProjectionError(f"engine.graphs needs a CUDA device, the TTS is on {tts.device.type}")
        self.tts, self.slots, self.sampling = tts, slots, sampling or tts.sampling
        self.graphs = graphs
        self._decoder: Decoder | None = None
        self._waiting: deque[Utterance] = deque()
        self._slots: list[Utterance] = []  # the utterance in each of the decoder's slots
        self._unread: list[tuple[list[Utterance], Tensor, Tensor]] = []  # frames whose ends the host does not know
        self._news = threading.Condition(threading.RLock())
        # On a CPU there is nothing to wait for: ends are read at once, so that no frame is decoded in vain. The codec
        # decodes each utterance by itself, so that its samples do not depend on neighbours at all; together, only the
        # short first chunks would be faster.
        self._on_cpu = tts.device.type == "cpu"

    @property
    def active(self) -> int:
        """Slots in use."""
        return len(self._slots)

    def submit(self, request: Request) -> Utterance:
        """Queues an utterance. AudioProjectionError for limits or chunks below 1."""
        if request.chunks is not None and (not request.chunks or min(request.chunks) < 1):
            raise AudioProjectionError(f"chunks must have at least 1 frame, not {list(request.chunks)}")
        utterance = Utterance(self, request)
        if isinstance(request.text, FedText):
            request.text.wake = self._wake
        with self._news:
            self._waiting.append(utterance)
        return utterance

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[int, Utterance]]:
        """Decodes many requests: (number, utterance) of each as it ends, with all its chunks.

        A request is taken from the iterable when a slot is free for it.
        """
        source, running, number = enumerate(requests), dict[int, Utterance](), 0
        try:
            while True:
                while len(running) < self.slots:
                    following = next(source, None)
                    if following is None:
                        break
                    number, request = following
                    running[number] = self.submit(request)
                if not running:
                    return
                ended = [number for number, utterance in running.items() if utterance.over]
                for number in ended:
                    yield number, running.pop(number)
                if not ended:
                    self._work()
        finally:
            for utterance in running.values():
                utterance.cancel()

    def next_chunk(self, utterance: Utterance) -> Tensor:
        """The utterance's next chunk, decoding until there is one; StopIteration at its end."""
        while True:
            with self._news:
                if utterance._chunks:
                    return utterance._chunks.popleft()
                if utterance._error is not None:
                    error, utterance._error = utterance._error, None
                    raise error
                if utterance.over:
                    raise StopIteration
            self._work()

    def cancel(self, utterance: Utterance) -> None:
        """Frees the utterance's slot and memory at once."""
        with self._news:
            utterance._chunks.clear()
            utterance._codes.clear()
            if not utterance.over:
                self._leave(utterance)
                utterance._codes.clear()
            utterance.codec = None
            self._news.notify_all()

    def step(self) -> bool:
        """One frame of every utterance whose text is there, and a piece of a prompt; False when all of them wait for
        their text, or there are none."""
        with self._news:
            try:
                self._admit()
                return self._prepare() | self._frame()
            except BaseException as error:
                self._abandon(error)
                raise

    def _work(self) -> None:
        with self._news:
            if not self.step() and (self._slots or self._waiting) and not self._any_ready():
                self._news.wait()

    def _any_ready(self) -> bool:
        return any(utterance.request.text.ready() for utterance in self._slots)

    def _wake(self) -> None:
        with self._news:
            self._news.notify_all()

    def _admit(self) -> None:
        while self._waiting and len(self._slots) < self.slots:
            if self._decoder is None:
                slots = self.slots if self.graphs else min(self.slots, len(self._waiting))
                self._decoder = Decoder(self.tts, (), self.sampling, graphs=self.graphs, slots=slots)
            self._decoder.open(self._waiting[0].request.seed)
            utterance = self._waiting.popleft()
            utterance.timing.lap("queue")
            self._slots.append(utterance)

    def _prepare(self) -> bool:
        """Reads one piece of a prompt; the whole of all prompts, several at once, where nobody waits for a frame."""
        worked = False
        while True:
            first = next((slot for slot, utterance in enumerate(self._slots) if not utterance.started), None)
            if first is None:
                return worked
            speaking = any(utterance.started for utterance in self._slots)
            self._prepare_piece(first, self._slots[first : first + 1] if speaking else self._alike(first))
            worked = True
            if speaking:
                return worked

    def _alike(self, first: int) -> list[Utterance]:
        """The utterances from slot `first` on of whose prompts as much has been read as of the first one's."""
        read = self._slots[first].read
        return list(takewhile(lambda each: not each.started and each.read == read, self._slots[first:]))

    def _prepare_piece(self, first: int, utterances: list[Utterance]) -> None:
        """The next piece of the prompts of utterances in neighbouring slots, of which as much has been read before; or
        of the codes that the first of them continues."""
        decoder, one = self._decoder, utterances[0]
        assert decoder is not None
        for utterance in utterances:
            utterance.timing.lap("other")
        if one.read < len(one.request.prompt.embeds):
            start = one.read
            pieces = [each.request.prompt.embeds[start : start + PREFILL_PIECE] for each in utterances]
            decoder.prefill(first, pieces)
            for utterance, piece in zip(utterances, pieces, strict=True):
                utterance.read += len(piece)
        elif one.before:
            _stream_of(one).decode(one.before.pop(0)[None])
        for slot, utterance in enumerate(utterances, first):
            if utterance.read == len(utterance.request.prompt.embeds) and not utterance.before:
                decoder.start(slot, utterance.request.prompt.last)
                utterance.started = True
            utterance.timing.lap("prefill")

    def _frame(self) -> bool:
        """One frame of each utterance that can go on."""
        texts: dict[Utterance, Tensor] = {}
        for utterance in list(self._slots):
            if not utterance.started:
                continue
            if not utterance.request.text.ready():
                utterance.timing.lap("stalled")
                continue
            utterance.timing.lap("other")
            try:
                texts[utterance] = utterance.request.text.take()
            except Exception as error:  # its own producer's: no other utterance has to do with it
                self._fail(utterance, error)
            utterance.timing.lap("text")
        if not texts:
            self._decode_chunks(self._read())
            return False
        self._move_to_front(texts)
        ready, decoder = self._slots[: len(texts)], self._decoder
        assert decoder is not None
        for utterance in ready:
            utterance.timing.lap("other")
        codes, ended = decoder.step(torch.stack([texts[utterance] for utterance in ready]))
        self._unread.append((ready, codes.clone(), ended.clone()))
        for utterance in ready:
            utterance.timing.lap("frames")
        if self._on_cpu or any(self._will_be_due(utterance) for utterance in ready):
            self._decode_chunks(self._read())
        return True

    def _move_to_front(self, wanted: Iterable[Utterance]) -> None:
        """Swaps utterances so that the wanted ones have the first slots."""
        chosen, decoder = set(wanted), self._decoder
        assert decoder is not None
        behind = [slot for slot in range(len(chosen), len(self._slots)) if self._slots[slot] in chosen]
        for slot in range(len(chosen)):
            if self._slots[slot] not in chosen:
                other = behind.pop()
                decoder.swap(slot, other)
                self._slots[slot], self._slots[other] = self._slots[other], self._slots[slot]

    def _will_be_due(self, utterance: Utterance) -> bool:
        unread = sum(utterance in utterances for utterances, _, _ in self._unread)
        limit = utterance._guard.limit(utterance.request.text.count)
        return len(utterance._codes) + unread >= utterance._size or utterance.frames + unread >= limit

    def _read(self) -> list[Utterance]:
        """Brings the ends of the frames since the last time to the host, and the codes to their utterances; gives those
        of which a chunk is due."""
        blocks, self._unread = self._unread, []
        if not blocks:
            return []
        flags = iter(torch.cat([ended for _, _, ended in blocks]).tolist())
        for utterances, codes, _ in blocks:
            for utterance, frame, end in zip(utterances, codes, flags, strict=False):
                if utterance.over:
                    continue
                if end:
                    self._leave(utterance)
                    continue
                utterance.frames += 1
                utterance._codes.append(frame)
                if utterance._guard.reached(utterance.frames, utterance.request.text.count):
                    utterance.cut = True
                    self._leave(utterance)
        read = dict.fromkeys(chain.from_iterable(utterances for utterances, _, _ in blocks))
        return [utterance for utterance in read if utterance.due]

    def _decode_chunks(self, utterances: list[Utterance]) -> None:
        """Codec for all chunks that are due; on a GPU, those of one length are decoded together."""
        groups: dict[tuple[int, int], list[Utterance]] = {}
        for number, utterance in enumerate(utterances):
            if utterance.request.chunks is None:
                utterance._chunks.extend(utterance._codes)
                utterance._codes = []
            else:
                size = min(len(utterance._codes), utterance._size)
                groups.setdefault((size, number if self._on_cpu else 0), []).append(utterance)
        for (size, _), members in groups.items():
            codes = torch.stack([torch.stack(utterance._codes[:size]) for utterance in members])
            streams = [_stream_of(utterance) for utterance in members]
            for utterance in members:
                utterance.timing.lap("other")
            samples = self.tts.codec.decode_together(streams, codes)
            for utterance, wave in zip(members, samples, strict=True):
                utterance._codes = utterance._codes[size:]
                utterance._size = next(utterance._sizes, utterance._size)
                utterance._chunks.append(wave)
                utterance.timing.lap("codec")
                utterance.timing.delivered()
        for utterance in utterances:
            if utterance.over:
                utterance.codec = None
                utterance.timing.ended()

    def _leave(self, utterance: Utterance) -> None:
        """Ends an utterance and gives its slot to the next."""
        utterance.over = True
        utterance.request.text.close()
        if not utterance._codes:
            utterance.codec = None
        if utterance in self._slots:
            slot, decoder = self._slots.index(utterance), self._decoder
            assert decoder is not None
            decoder.close(slot)
            self._slots[slot] = self._slots[-1]
            self._slots.pop()
            if not self._slots and not self.graphs:
                self._decoder = None  # its memory is free while nobody speaks, and weights may change
        else:
            self._waiting.remove(utterance)
        utterance.timing.ended()

    def _fail(self, utterance: Utterance, error: BaseException) -> None:
        self._leave(utterance)
        utterance._error = error

    def _abandon(self, error: BaseException) -> None:
        """A step broke off: the decoder's state is unknown, so every utterance ends with the error."""
        for utterance in (*self._slots, *self._waiting):
            utterance.over, utterance._error = True, error
            utterance.request.text.close()
        self._slots, self._unread, self._decoder = [], [], None
        self._waiting.clear()


def _stream_of(utterance: Utterance) -> CodecStream:
    assert utterance.codec is not None, "only an utterance with chunks has sound"
    return utterance.codec
