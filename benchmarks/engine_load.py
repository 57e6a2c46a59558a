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
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from audio_projection.files.locations import NANO_FOLDER
from audio_projection.sampling import derived_seed
from audio_projection.text.input_text import as_spoken
from audio_projection.tts import Qwen3TTS
from audio_projection.tts.engine.engine import Engine
from audio_projection.tts.engine.text import WholeText
from audio_projection.tts.engine.utterance import Request
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


@dataclass
class Heard:
    """What listeners heard: seconds to the first chunk of each sentence, gaps in playback, and seconds of sound."""

    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    sound: float = 0.0
    errors: list[str] = field(default_factory=list)

    def report(self) -> dict[str, object]:
        ordered = sorted(self.first)
        return {
            "sentences": len(self.first),
            "underruns": len(self.gaps),
            "longest gap, ms": round(1000 * max(self.gaps, default=0.0), 1),
            "first sound, ms: median": round(1000 * statistics.median(ordered), 1),
            "95 %": round(1000 * ordered[int(0.95 * (len(ordered) - 1))], 1),
            "longest": round(1000 * ordered[-1], 1),
            "seconds of sound": round(self.sound, 1),
            **({"errors": self.errors} if self.errors else {}),
        }


def listen(engine: Engine, request: Request, heard: Heard, lock: threading.Lock) -> float:
    """Takes an utterance's chunks as they come; gives when its playback ends."""
    began = time.perf_counter()
    ends, gaps, first, sound = 0.0, [], 0.0, 0.0
    for samples in engine.submit(request):
        now = time.perf_counter()
        if not ends:
            first, ends = now - began, now
        elif now > ends:
            gaps.append(now - ends)
            ends = now
        seconds = len(samples) / engine.tts.sample_rate
        ends, sound = ends + seconds, sound + seconds
    with lock:
        heard.first.append(first)
        heard.gaps.extend(gaps)
        heard.sound += sound
    return ends


def in_threads(works: Iterator[Callable[[], object]], heard: Heard) -> None:
    """Starts each of the works in a thread of its own as it comes; waits for all."""

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            heard.errors.append(str(error))

    threads = []
    for work in works:
        threads.append(threading.Thread(target=guarded, args=(work,), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join()


def capacity(requests: Requests, streams: int, seconds: float) -> dict[str, object]:
    """So many listeners, each hearing sentence after sentence."""
    engine, heard, lock = Engine(requests.tts, slots=streams), Heard(), threading.Lock()
    until = time.perf_counter() + seconds

    def listener(number: int) -> None:
        time.sleep(random.Random(number).random() * 2)  # they begin at different times
        while time.perf_counter() < until:
            ends = listen(engine, requests.request(number), heard, lock)
            number += streams
            time.sleep(max(0.0, ends - time.perf_counter()))

    in_threads((lambda number=number: listener(number) for number in range(streams)), heard)  # type: ignore[misc]
    return {"streams": streams, "seconds": seconds} | heard.report()


def arrivals(requests: Requests, streams: int, share: float, count: int) -> dict[str, object]:
    """Requests at random times."""
    engine, heard, lock, draw = Engine(requests.tts, slots=streams), Heard(), threading.Lock(), random.Random(0)
    lengths = [
        sum(len(one) for one in utterance) / requests.tts.sample_rate
        for _, utterance in Engine(requests.tts).run(requests.request(number) for number in range(24))
    ]
    rate = share * streams / statistics.mean(lengths)
    began = time.perf_counter()

    def coming() -> Iterator[Callable[[], object]]:
        due = time.perf_counter()
        for number in range(count):
            due += draw.expovariate(rate)
            time.sleep(max(0.0, due - time.perf_counter()))
            request = requests.request(number)
            yield lambda request=request: listen(engine, request, heard, lock)  # type: ignore[misc]

    in_threads(coming(), heard)
    taken = round(time.perf_counter() - began, 1)
    return {"streams": streams, "share": share, "arrivals a second": round(rate, 2), "seconds": taken} | heard.report()


def sound_a_second(requests: Requests, slots: int, chunks: Sequence[int] | None, utterances: int) -> float:
    """Seconds of sound for each second of processor time."""
    engine, frames, began = Engine(requests.tts, slots=slots), 0, time.process_time()
    for _, utterance in engine.run(requests.request(number, chunks) for number in range(utterances)):
        frames += utterance.frames
    return frames / requests.tts.frame_rate / (time.process_time() - began)


def throughput(requests: Requests, slots: Sequence[int], rounds: int, utterances: int) -> dict[str, object]:
    """Speeds in turns, and their ratios to that of the first number of slots."""
    parts = {"talker and predictor": None, "with the codec": CHUNKS}
    speeds: dict[tuple[str, int], list[float]] = {(part, count): [] for part in parts for count in slots}
    for chunks in parts.values():
        sound_a_second(requests, max(slots), chunks, max(slots))  # warm up
    for _ in range(rounds):
        for (part, count), found in speeds.items():
            found.append(sound_a_second(requests, count, parts[part], utterances))
    results: dict[str, object] = {}
    for (part, count), found in speeds.items():
        one = speeds[part, slots[0]]
        ratio = statistics.median(many / single for many, single in zip(found, one, strict=True))
        results[f"{part}, {count} slots"] = (
            f"{statistics.median(found):.1f} s of sound a second, "
            f"{statistics.median(found) * requests.tts.frame_rate:.0f} frames/s, {ratio:.2f} times one"
        )
    return results


def first_sound(requests: Requests, calls: int) -> dict[str, object]:
    """The first chunk of single utterances."""
    engine, heard, lock = Engine(requests.tts), Heard(), threading.Lock()
    for number in range(calls + 3):
        listen(engine, requests.request(number), heard, lock)
    heard.first = heard.first[3:]
    return heard.report()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("throughput", "capacity", "arrivals", "first-sound"))
    parser.add_argument("--tts", type=Path, default=NANO_FOLDER / "tts")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--utterances", type=int, default=24, help="of a round of throughput")
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
        print(json.dumps(throughput(requests, given.slots, given.rounds, given.utterances), indent=1))
    elif given.what == "first-sound":
        print(json.dumps(first_sound(requests, given.calls)))
    for streams in given.streams:
        if given.what == "capacity":
            print(json.dumps(capacity(requests, streams, given.seconds)), flush=True)
        elif given.what == "arrivals":
            print(json.dumps(arrivals(requests, streams, given.share, given.arrivals)), flush=True)


if __name__ == "__main__":
    main()
