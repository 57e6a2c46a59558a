"""What the endpoints share, and the way of a request: its turn, its sound made in a thread, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from audio_projection.config import ServerConfig
from audio_projection.errors import AudioProjectionError
from audio_projection.server.admission import Admission
from audio_projection.server.audio_formats import Recoder
from audio_projection.server.catalogue import Catalogue
from audio_projection.server.errors import APIError, as_api_error
from audio_projection.server.made_in_thread import MadeInThread
from audio_projection.server.operation.metrics import Metrics

if TYPE_CHECKING:
    from audio_projection.inference import SpeechStream, Voice, Word

log = logging.getLogger(__name__)

STALLED_SECONDS = 60.0
"""A client that takes nothing for so long has gone away."""


@dataclass(frozen=True)
class Piece:
    """Some sound on its way to a client."""

    data: bytes
    """In the wanted format; there may be none yet."""
    seconds: float
    """Of sound in the samples that it was made of."""
    text: str
    """All that was given to the TTS so far."""
    words: tuple[Word, ...]
    """Those that were delivered since the last piece, placed in the sound."""
    timing: Mapping[str, float] | None = None
    """Of the first piece: where the time since the request went, in seconds."""


class Service:
    """The loaded voices, the limits, and the counters."""

    def __init__(self, voices: Mapping[str, Voice], settings: ServerConfig) -> None:
        slots = next(iter(voices.values())).defaults.slots
        self.settings = settings
        self.catalogue = Catalogue(voices)
        self.admission = Admission(settings.streams or slots, settings.queue)
        self.metrics = Metrics(self.admission)
        self._threads = ThreadPoolExecutor(self.admission.streams, "speaking")

    def check_text(self, text: str, param: str) -> None:
        """APIError for a text that is longer than the limit."""
        if len(text) > self.settings.text:
            raise APIError(
                f"{param} has {len(text)} characters; this server takes at most {self.settings.text}", param=param
            )

    async def speak(self, endpoint: str, rate: int, kind: str, make: Callable[[], SpeechStream]) -> MadeInThread[Piece]:
        """The sound of a stream, from its first piece on; waits for its turn. Raises what `make` raises."""
        begun = time.perf_counter()
        recoder = Recoder(kind, rate)
        ticket = await self.admission.enter()
        waited = time.perf_counter() - begun

        streams: list[SpeechStream] = []

        def make_pieces() -> Generator[Piece, None, None]:
            streams.append(make())
            pieces = self._pieces(streams[0], recoder, rate)
            yield replace(next(pieces), timing=first_timing(streams[0], begun, waited))
            yield from pieces

        def cancel() -> None:
            for stream in streams:
                stream.cancel()

        try:
            made = MadeInThread(self._threads, make_pieces, cancel, ticket.leave)
        except BaseException:
            ticket.leave()
            raise
        try:
            await made.begin()
        except BaseException:
            made.close()
            raise
        self.metrics.first_sound.labels(endpoint).observe(time.perf_counter() - begun)
        return made

    @property
    def _lead(self) -> float:
        """Seconds of sound that a listener gets at first: while others are spoken too, some in hand."""
        return self.settings.lead if self.admission.speaking > 1 else 0.0

    def _pieces(self, stream: SpeechStream, recoder: Recoder, rate: int) -> Generator[Piece, None, None]:
        """The stream in its format; the first piece is the first that has bytes."""
        playback = Playback()
        data, held, told = b"", 0.0, 0
        try:
            for samples in stream:
                seconds = len(samples) / rate
                self.metrics.sound.inc(seconds)
                data += recoder.encode(samples)
                held += seconds
                if not data or (not playback.seconds and held < self._lead):
                    continue
                self.metrics.underruns.inc(playback.add(held))
                if playback.seconds > self.settings.seconds:
                    raise AudioProjectionError(
                        f"the speech is longer than {self.settings.seconds} s, the most that this server speaks at once"
                    )
                words = stream.words
                yield Piece(data, held, stream.text, tuple(words[told:]))
                data, held, told = b"", 0.0, max(told, len(words))
            yield Piece(data + recoder.finish(), held, stream.text, tuple(stream.words[told:]))
        finally:
            stream.cancel()
            self.metrics.add_timings(stream.timings)


def first_timing(stream: SpeechStream, begun: float, waited: float) -> dict[str, float]:
    """Where the time from the request to its first sound went: waiting for its turn, the parts of `AnswerTiming`, and
    the rest, which is the server's own."""
    parts = {"waiting": waited, **stream.timing.parts()}
    rest = time.perf_counter() - begun - sum(parts.values())
    return {name: round(seconds, 4) for name, seconds in {**parts, "server": max(0.0, rest)}.items()}


class Playback:
    """A listener who plays from the first chunk on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """Seconds of sound so far."""
        self._ends = 0.0

    def add(self, seconds: float) -> int:
        """A chunk came: 1 if the listener has been waiting for it, else 0."""
        now = time.perf_counter()
        late = bool(self.seconds) and now > self._ends
        self._ends = (now if late or not self.seconds else self._ends) + seconds
        self.seconds += seconds
        return int(late)


async def unless_gone(request: Request, service: Service, work: Any) -> Any:
    """The result of an awaitable, which is cancelled when the client goes away before it is there."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            service.metrics.gone.inc()
            raise APIError("the client went away", 499)
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class SpokenResponse(StreamingResponse):
    """A response whose sound is closed however it ends: sent, broken off, or never begun."""

    def __init__(self, service: Service, made: MadeInThread[Piece], content: AsyncIterator[bytes], kind: str) -> None:
        super().__init__(content, media_type=kind, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._service, self._made = service, made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        complete = False

        async def send_in_time(message: Message) -> None:
            nonlocal complete
            await asyncio.wait_for(send(message), STALLED_SECONDS)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await super().__call__(scope, receive, send_in_time)
        except Exception as error:  # the status is long sent: the connection is closed before the end of the response
            log.warning("a response broke off: %s", as_api_error(error))
        finally:
            self._made.close()
            if not complete:
                self._service.metrics.gone.inc()
