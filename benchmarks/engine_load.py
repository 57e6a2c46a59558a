"""The engine under load: throughput of one and of many streams, how many listeners it serves, and arrivals at random.

    python benchmarks/engine_load.py throughput [--slots 1 8] [--rounds 5]
    python benchmarks/engine_load.py capacity --streams 6 [--seconds 120]
    python benchmarks/engine_load.py arrivals --streams 6 [--share 0.7] [--arrivals 500]
    python benchmarks/engine_load.py first-sound [--calls 50]

Talker, code predictor and codec of the bundled nano (`--tts`: another folder), fed with held-out sentences as plain
text; no LLM. One thread computes (`--threads`).

throughput: seconds of sound for each second of processor time, the slots being in use all the time while utterances of
different lengths join and leave; talker and predictor alone, and with the codec. The numbers of slots take turns;
ratios are medians of the rounds.

capacity: so many listeners hear one sentence after another for so many seconds. Playback begins with the first chunk of
a sentence; an underrun is a chunk that comes after the end of those before it. Capacity is the largest number without
one.

arrivals: requests come by a Poisson process at a share of what so many streams would take, each is one sentence with a
listener of its own; the engine has as many slots as streams.

first-sound: milliseconds from the call to the first samples, nothing else being spoken.

The clock of the last three is this process's processor time, and where nothing is to be decoded it goes on to the next
request at once: they say what this processor does for one process, whatever else runs on it meanwhile.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

import torch

from audio_projection.files.locations import NANO_FOLDER
from audio_projection.sampling import derived_seed
from audio_projection.text.input_text import as_spoken
from audio_projection.tts import Qwen3TTS
from audio_projection.tts.engine.engine import Engine
from audio_projection.tts.engine.text import WholeText
from audio_projection.tts.engine.utterance import Request, Utterance
from audio_projection.tts.prompt import text_prompt

CHUNKS = (1, 2, 4, 8, 12)
SENTENCES = Path(__file__).with_name("heldout.txt")


class Requests:
    """Requests to speak the held-out sentences, again and again."""

    def __init__(self, tts: Qwen3TTS) -> None:
        self.tts = tts
        self.sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
        speaker = next(iter(tts.config.talker.speakers), None)
        language = "english" if "english" in tts.config.talker.languages else None
        self.prefix = tts.prefix(speaker, language)

    def request(self, number: int, chunks: Sequence[int] | None = CHUNKS) -> Request:
        sentence = as_spoken(self.sentences[number % len(self.sentences)])
        embeddings = self.tts.text_embeddings(torch.tensor(self.tts.tokenize(sentence)[0]))
        prompt = text_prompt(self.tts, self.prefix, embeddings, "streaming")
        return Request(prompt, WholeText(self.tts, prompt), derived_seed(0, number), chunks=chunks)


class Clock:
    """Processor time of this process; idle time is skipped."""

    def __init__(self) -> None:
        self._skipped = -time.process_time()

    def now(self) -> float:
        return time.process_time() + self._skipped

    def skip_to(self, when: float) -> None:
        self._skipped += max(0.0, when - self.now())


@dataclass
class Listener:
    """Hears an utterance from its first chunk on."""

    utterance: Utterance
    asked: float
    rate: int
    first: float | None = None
    """Seconds from the request to the first chunk."""
    ends: float = 0.0
    """When what came so far will have been heard."""
    gaps: list[float] = field(default_factory=list)
    sound: float = 0.0

    def take(self, now: float) -> bool:
        """Takes the chunks that have come; whether the utterance is over."""
        while self.utterance.chunks:
            seconds = len(next(self.utterance)) / self.rate
            if self.first is None:
                self.first, self.ends = now - self.asked, now
            elif now > self.ends:
                self.gaps.append(now - self.ends)
                self.ends = now
            self.ends, self.sound = self.ends + seconds, self.sound + seconds
        return self.utterance.over


class Hall:
    """Listeners of one engine, whose requests come at given times."""

    def __init__(self, requests: Requests, slots: int) -> None:
        self.requests, self.clock = requests, Clock()
        self.engine = Engine(requests.tts, slots=slots, clock=self.clock.now)
        self.coming: list[tuple[float, int]] = []  # a heap of times and numbers of requests
        self.listening: list[Listener] = []
        self.left: list[Listener] = []

    def hear(self, when_over: Callable[[Listener], None]) -> None:
        """Until no request is coming and all are over; `when_over` may add to those that come."""
        while self.coming or self.listening:
            while self.coming and self.coming[0][0] <= self.clock.now():
                asked, number = heapq.heappop(self.coming)
                request = self.requests.request(number)
                self.listening.append(Listener(self.engine.submit(request), asked, self.requests.tts.sample_rate))
            if not self.engine.step() and not self.listening and self.coming:
                self.clock.skip_to(self.coming[0][0])
            now = self.clock.now()
            for listener in [one for one in self.listening if one.take(now)]:
                self.listening.remove(listener)
                self.left.append(listener)
                when_over(listener)

    def report(self) -> dict[str, object]:
        first = sorted(1000 * listener.first for listener in self.left if listener.first is not None)
        gaps = [1000 * gap for listener in self.left for gap in listener.gaps]
        return {
            "sentences": len(self.left),
            "seconds of sound": round(sum(listener.sound for listener in self.left), 1),
            "underruns": len(gaps),
            "longest gap, ms": round(max(gaps, default=0.0), 1),
            "first sound, ms": {
                "median": round(statistics.median(first), 1),
                "95 %": round(first[int(0.95 * (len(first) - 1))], 1),
                "longest": round(first[-1], 1),
            },
        }


def capacity(requests: Requests, streams: int, seconds: float) -> dict[str, object]:
    """So many listeners, each hearing sentence after sentence."""
    hall, numbers = Hall(requests, streams), count()
    for _ in range(streams):  # they begin at different times
        number = next(numbers)
        heapq.heappush(hall.coming, (2 * random.Random(number).random(), number))

    def again(listener: Listener) -> None:
        if listener.ends < seconds:
            heapq.heappush(hall.coming, (listener.ends, next(numbers)))

    hall.hear(again)
    return {"streams": streams, "seconds": seconds} | hall.report()


def arrivals(requests: Requests, streams: int, share: float, number: int) -> dict[str, object]:
    """Requests at random times."""
    frames = [one.frames for _, one in Engine(requests.tts).run(requests.request(each, None) for each in range(32))]
    rate = share * streams / (statistics.mean(frames) / requests.tts.frame_rate)
    hall, draw, due = Hall(requests, streams), random.Random(0), 0.0
    for each in range(number):
        due += draw.expovariate(rate)
        heapq.heappush(hall.coming, (due, each))
    hall.hear(lambda _: None)
    return {"streams": streams, "share": share, "arrivals a second": round(rate, 2)} | hall.report()


def sound_a_second(requests: Requests, slots: int, chunks: Sequence[int] | None, frames: int) -> float:
    """Seconds of sound for each second of processor time: until so many frames are decoded, all slots being in use."""
    engine, running, left = Engine(requests.tts, slots=slots), list[Utterance](), 0
    prepared = (requests.request(number, chunks) for number in count())
    coming = list(islice(prepared, slots + frames // 16))
    began = time.process_time()
    while left + sum(utterance.frames for utterance in running) < frames:
        while len(running) < slots:
            running.append(engine.submit(coming.pop() if coming else next(prepared)))
        engine.step()
        for utterance in running:
            utterance.chunks.clear()
        left += sum(utterance.frames for utterance in running if utterance.over)
        running = [utterance for utterance in running if not utterance.over]
    taken = time.process_time() - began
    decoded = left + sum(utterance.frames for utterance in running)
    for utterance in running:
        utterance.cancel()
    return decoded / requests.tts.frame_rate / taken


def throughput(requests: Requests, slots: Sequence[int], rounds: int, frames: int) -> dict[str, object]:
    """Speeds in turns, and their ratios to that of the first number of slots."""
    parts = {"talker and predictor": None, "with the codec": CHUNKS}
    speeds: dict[tuple[str, int], list[float]] = {(part, size): [] for part in parts for size in slots}
    for chunks in parts.values():
        sound_a_second(requests, max(slots), chunks, frames // 10)  # warm up
    for _ in range(rounds):
        for (part, size), found in speeds.items():
            found.append(sound_a_second(requests, size, parts[part], frames))
    results: dict[str, object] = {}
    for (part, size), found in speeds.items():
        one = speeds[part, slots[0]]
        ratio = statistics.median(many / single for many, single in zip(found, one, strict=True))
        results[f"{part}, {size} slots"] = (
            f"{statistics.median(found):.1f} s of sound a second, "
            f"{statistics.median(found) * requests.tts.frame_rate:.0f} frames/s, {ratio:.2f} times one"
        )
    return results


def first_sound(requests: Requests, calls: int) -> dict[str, object]:
    """The first chunk of single utterances, after three to warm up."""
    hall = Hall(requests, 8)
    for number in range(calls + 3):
        hall.coming.append((hall.clock.now(), number))
        hall.hear(lambda _: None)
    del hall.left[:3]
    return hall.report()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("throughput", "capacity", "arrivals", "first-sound"))
    parser.add_argument("--tts", type=Path, default=NANO_FOLDER / "tts")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=600, help="of each measurement of throughput")
    parser.add_argument("--streams", type=int, nargs="+", default=[4])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--share", type=float, default=0.7)
    parser.add_argument("--arrivals", type=int, default=500)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    requests = Requests(Qwen3TTS.from_pretrained(given.tts))
    if given.what == "throughput":
        print(json.dumps(throughput(requests, given.slots, given.rounds, given.frames), indent=1))
    elif given.what == "first-sound":
        print(json.dumps(first_sound(requests, given.calls)))
    for streams in given.streams:
        if given.what == "capacity":
            print(json.dumps(capacity(requests, streams, given.seconds)), flush=True)
        elif given.what == "arrivals":
            print(json.dumps(arrivals(requests, streams, given.share, given.arrivals)), flush=True)


if __name__ == "__main__":
    main()
