"""How many requests are spoken at once, how many wait, and who is sent away.

Each request that speaks has one utterance in the engine at a time, so with no more requests than slots nobody waits
inside the engine, and no stream that was let in suffers from one that came later.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque

from audio_projection.server.errors import APIError

_MOST_RETRY = 60
_FORGET = 0.9
"""How much of the running mean of the time that a request takes stays when another one has ended."""


class Ticket:
    """The right to speak; `leave` gives it back, once."""

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission
        self._begun = time.monotonic()

    def leave(self) -> None:
        """Lets the next one in."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission._left(time.monotonic() - self._begun)


class Admission:
    """Lets in `streams` requests at once, in the order in which they came, while `queue` more wait.

    To be used from one event loop.
    """

    def __init__(self, streams: int, queue: int) -> None:
        self.streams, self.queue = streams, queue
        self.speaking = 0
        self.draining = False
        """Whether nobody new is let in, because the server is about to end."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._usual = 2.0  # seconds that a request takes

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    async def enter(self) -> Ticket:
        """Waits for its turn. Raises APIError: 429 when too many wait, 503 when the server is about to end."""
        if self.draining:
            raise APIError("the server is shutting down", 503, headers={"Retry-After": "5"})
        if self.speaking >= self.streams or self._waiting:
            await self._turn()
        else:
            self.speaking += 1
        return Ticket(self)

    async def _turn(self) -> None:
        if len(self._waiting) >= self.queue:
            raise APIError(
                f"{self.speaking} requests are being spoken and {len(self._waiting)} wait: try again later",
                429,
                code="rate_limit_exceeded",
                headers={"Retry-After": str(self._retry_after())},
            )
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._hand_on()  # its turn came as it went away
            else:
                self._waiting.remove(turn)
            raise

    def _retry_after(self) -> int:
        """Seconds until one that comes now would be let in, as requests went so far."""
        return max(1, min(_MOST_RETRY, math.ceil(self._usual * (len(self._waiting) + 1) / self.streams)))

    def _left(self, seconds: float) -> None:
        self._usual = _FORGET * self._usual + (1 - _FORGET) * seconds
        self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.speaking -= 1
