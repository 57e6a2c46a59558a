"""Load on a speech server with OpenAI's interface: when the first sound comes, and whether playback ever waits.

    python benchmarks/serve_load.py http://127.0.0.1:8000 --one 50                   # one listener after another
    python benchmarks/serve_load.py http://127.0.0.1:8000 --one 50 --chat            # answers instead of texts
    python benchmarks/serve_load.py http://127.0.0.1:8000 --capacity 1 2 3 4 6 8     # so many listeners at once
    python benchmarks/serve_load.py http://127.0.0.1:8000 --rate 1.5 --requests 1000 # open loop, Poisson arrivals
    python benchmarks/serve_load.py http://127.0.0.1:8000 --at-once 8 --minutes 30 --drop 0.1 --cancel 0.05 --pid PID

Any server will do that speaks PCM at 24 kHz (`--model`, `--voice`, OPENAI_API_KEY). The first playable chunk is the
first one with a sample. An underrun is a moment at which a listener who plays from the first chunk on has played all
that came. The real-time factor is the time from the first chunk to the last, divided by the seconds of sound. Whoever
drops closes the connection after the first chunk; whoever cancels says so in a realtime session. Arrivals of the open
loop do not depend on how the server fares; 429 counts as refused, and is not tried again.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

RATE = 24_000
SENTENCES = Path(__file__).with_name("heldout.txt")
QUESTIONS = ("Tell me about the river.", "Who are you?", "What did the king say?", "Where is the old house?")


@dataclass
class Heard:
    """What one listener heard."""

    outcome: str = "complete"
    """complete, refused (429), dropped, cancelled, or the kind of an error."""
    begun: float = field(default_factory=time.perf_counter)
    first: float | None = None
    """Seconds until the first sample."""
    seconds: float = 0.0
    """Of sound."""
    underruns: int = 0
    waited: float = 0.0
    """Seconds of silence by underruns."""
    last: float = 0.0
    """Seconds until the last sample."""
    retry_after: str | None = None

    def take(self, data: bytes) -> None:
        """Some bytes of sound came."""
        if not data:
            return
        now = time.perf_counter() - self.begun
        if self.first is None:
            self.first = now
        late = now - (self.first + self.waited + self.seconds)
        if late > 0 and self.seconds:
            self.underruns += 1
            self.waited += late
        self.seconds += len(data) / (2 * RATE)
        self.last = now


class Listeners:
    """Clients of one server."""

    def __init__(self, address: str, model: str, voice: str, chat: bool, seed: int) -> None:
        key = os.environ.get("OPENAI_API_KEY", "none")
        self._client = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=600)
        self._model, self._voice, self._chat = model, voice, chat
        self._random = random.Random(seed)
        texts = QUESTIONS if chat else SENTENCES.read_text(encoding="utf-8").split("\n")
        self._texts = itertools.cycle([text for text in texts if text.strip()])

    async def listen(self, drop: bool = False) -> Heard:
        """One request, heard to its end, or (`drop`) until a little after its first sound."""
        heard, text = Heard(), next(self._texts)
        try:
            async for data in self._answer(text) if self._chat else self._speech(text):
                heard.take(data)
                if drop and heard.first is not None:
                    heard.outcome = "dropped"
                    break
        except openai.RateLimitError as error:
            heard.outcome, heard.retry_after = "refused", error.response.headers.get("retry-after")
        except Exception as error:
            heard.outcome = f"{type(error).__name__}: {str(error)[:80]}"
        return heard

    async def cancel(self) -> Heard:
        """A realtime session that cancels its answer after the first sound."""
        heard = Heard()
        try:
            async with self._client.realtime.connect(model=self._model) as connection:
                part: Any = {"type": "input_text", "text": self._random.choice(QUESTIONS)}
                await connection.conversation.item.create(item={"type": "message", "role": "user", "content": [part]})
                await connection.response.create()
                async for event in connection:
                    if event.type == "response.output_audio.delta" and heard.first is None:
                        heard.take(base64.b64decode(event.delta))
                        await connection.response.cancel()
                    if event.type == "response.done":
                        error = event.response.status_details.error if event.response.status_details else None
                        refused = error is not None and error.code == "rate_limit_exceeded"
                        heard.outcome = "refused" if refused else f"failed {error}" if error else "cancelled"
                        break
        except Exception as error:
            heard.outcome = f"{type(error).__name__}: {str(error)[:80]}"
        return heard

    async def _speech(self, text: str) -> AsyncIterator[bytes]:
        request = self._client.audio.speech.with_streaming_response.create(
            model=self._model, voice=self._voice, input=text, response_format="pcm"
        )
        async with request as answer:
            async for data in answer.iter_bytes():
                yield data

    async def _answer(self, text: str) -> AsyncIterator[bytes]:
        stream = await self._client.chat.completions.create(
            model=self._model,
            messages=[{"role": "user", "content": text}],
            modalities=["text", "audio"],
            audio={"voice": self._voice, "format": "pcm16"},
            stream=True,
        )
        async for chunk in stream:
            for choice in chunk.choices:
                audio: Any = choice.model_dump().get("delta", {}).get("audio") or {}
                yield base64.b64decode(audio.get("data") or "")


async def closed_loop(ask: Callable[[], Awaitable[Heard]], at_once: int, over: Callable[[int], bool]) -> list[Heard]:
    """So many listeners, each beginning again when it has heard its request; `over` is told how many were begun."""
    heard: list[Heard] = []
    begun = itertools.count(1)

    async def go_on() -> None:
        while not over(next(begun)):
            heard.append(await ask())

    await asyncio.gather(*(go_on() for _ in range(at_once)))
    return heard


async def open_loop(ask: Callable[[], Awaitable[Heard]], rate: float, requests: int, seed: int) -> list[Heard]:
    """Requests that arrive as a Poisson process, however the server fares."""
    arrivals = random.Random(seed)
    running, due = [], time.perf_counter()
    for _ in range(requests):
        due += arrivals.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.append(asyncio.create_task(ask()))  # type: ignore[arg-type]
    return list(await asyncio.gather(*running))


def percentiles(values: Sequence[float]) -> str:
    """p50 / p95 / p99."""
    if not values:
        return "-"
    ordered = sorted(values)
    return " / ".join(f"{ordered[min(len(ordered) - 1, int(len(ordered) * share))]:.3g}" for share in (0.5, 0.95, 0.99))


HEADING = (
    "| load | requests | complete | refused | other | first chunk, ms, p50 / p95 / p99 | underruns (streams) "
    "| real-time factor, p50 / p95 / p99 | sound, s/s | complete /s |\n|---|---|---|---|---|---|---|---|---|---|"
)


def row(name: str, heard: Sequence[Heard], took: float) -> str:
    """One line of the table."""
    complete = [each for each in heard if each.outcome == "complete"]
    refused = sum(each.outcome == "refused" for each in heard)
    firsts = [1000 * each.first for each in complete if each.first is not None]
    factors = [(each.last - (each.first or 0)) / each.seconds for each in complete if each.seconds]
    underruns = f"{sum(each.underruns for each in heard)} ({sum(each.underruns > 0 for each in heard)})"
    sound = sum(each.seconds for each in heard) / took
    others = len(heard) - len(complete) - refused
    cells = [name, len(heard), len(complete), refused, others, percentiles(firsts), underruns, percentiles(factors)]
    return "| " + " | ".join(map(str, cells)) + f" | {sound:.2f} | {len(complete) / took:.2f} |"


class Memory:
    """Resident memory of the server's process, sampled while it is loaded."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self.samples: list[float] = []

    async def watch(self) -> None:
        """Takes a sample a second until it is cancelled."""
        import psutil

        while self._pid is not None:
            self.samples.append(psutil.Process(self._pid).memory_info().rss / 2**20)
            await asyncio.sleep(1)

    def __str__(self) -> str:
        if len(self.samples) < 8:
            return "resident memory: too few samples"
        tenth = len(self.samples) // 8
        warm, end = statistics.median(self.samples[tenth : 2 * tenth]), statistics.median(self.samples[-tenth:])
        return (
            f"resident memory: {warm:.0f} MB after warm-up, {end:.0f} MB at the end ({100 * (end / warm - 1):+.1f} %)"
        )


async def run(given: argparse.Namespace) -> None:
    listeners = Listeners(given.address, given.model, given.voice, given.chat, given.seed)
    chance = random.Random(given.seed)
    memory = Memory(given.pid)
    watching = asyncio.create_task(memory.watch())

    async def ask() -> Heard:
        lot = chance.random()
        if lot < given.cancel:
            return await listeners.cancel()
        return await listeners.listen(drop=lot < given.cancel + given.drop)

    print(HEADING, flush=True)
    every: list[Heard] = []

    async def measure(name: str, load: Awaitable[list[Heard]]) -> None:
        begun = time.perf_counter()
        heard = await load
        print(row(name, heard, time.perf_counter() - begun), flush=True)
        every.extend(heard)

    for _ in range(2):
        await listeners.listen()
    if given.one:
        await measure("one listener", closed_loop(ask, 1, lambda begun: begun > given.one))
    for count in given.capacity:
        await measure(f"{count} at once", closed_loop(ask, count, lambda begun, most=8 * count: begun > most))
    if given.rate:
        await measure(f"{given.rate:g} a second", open_loop(ask, given.rate, given.requests, given.seed))
    if given.at_once:
        ends = time.perf_counter() + 60 * given.minutes
        name = f"{given.at_once} at once, {given.minutes:g} minutes"
        await measure(name, closed_loop(ask, given.at_once, lambda _: time.perf_counter() > ends))
    watching.cancel()
    print("\n" + json.dumps(Counter(each.outcome for each in every)))
    refused = [each.retry_after for each in every if each.outcome == "refused"]
    if refused:
        print(f"Retry-After of the {len(refused)} refused: {Counter(refused).most_common(5)}")
    if given.pid is not None:
        print(memory)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("address", help="http://HOST:PORT of the server")
    options.add_argument("--model", default="tts-1")
    options.add_argument("--voice", default="alloy")
    options.add_argument("--chat", action="store_true", help="answers instead of texts")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--one", type=int, default=0, help="so many requests, one after another")
    options.add_argument("--capacity", type=int, nargs="*", default=[], help="numbers of listeners at once")
    options.add_argument("--rate", type=float, default=0, help="requests a second of the open loop")
    options.add_argument("--requests", type=int, default=1000, help="of the open loop")
    options.add_argument("--at-once", type=int, default=0, help="listeners at once, for --minutes")
    options.add_argument("--minutes", type=float, default=30)
    options.add_argument("--drop", type=float, default=0, help="share of listeners who go away after the first sound")
    options.add_argument("--cancel", type=float, default=0, help="share of listeners who cancel, by realtime")
    options.add_argument("--pid", type=int, help="the server's process, to watch its memory")
    asyncio.run(run(options.parse_args()))


if __name__ == "__main__":
    main()
