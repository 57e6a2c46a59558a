"""Time to the first chunk of sound for one listener, in process and warm: of a text, and of the LLM's answer.

    python benchmarks/live_latency.py --config configs/nano.yaml            # medians of 50, a minute

Each text and each answer is cancelled after its first chunk. The median of each part of the time says what the listener
waited for; with --whole every answer is spoken to its end, and the parts of all of it are given too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence

from audio_projection.inference import SpeechStream, Voice

TEXTS = (
    "Good morning, how are you today?",
    "The river is long and very cold.",
    "She said that she was not afraid.",
    "They had to wait for the train.",
    "I do not know where he went.",
)
QUESTIONS = (
    "Tell me about the river.",
    "Who was the king?",
    "What did she say?",
    "Where is the school?",
    "Tell me about the war.",
)


def measure(
    begin: Callable[[str, int], SpeechStream], texts: Sequence[str], count: int, whole: bool
) -> dict[str, object]:
    """Milliseconds to the first chunk of `count` streams, and their parts."""
    seconds: list[float] = []
    processor: list[float] = []
    firsts: list[dict[str, float]] = []
    shares: list[float] = []
    for number in range(count):
        began, worked = time.perf_counter(), time.process_time()
        stream = begin(texts[number % len(texts)], number)
        next(stream)
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - worked)
        firsts.append(stream.timing.parts())
        if whole:
            for _ in stream:
                pass
            shares.append(stream.timing.other / stream.timing.total)
        stream.cancel()
    parts = {name: round(1000 * statistics.median(each[name] for each in firsts), 1) for name in firsts[0]}
    found: dict[str, object] = {
        "first chunk, ms": round(1000 * statistics.median(seconds), 1),
        "processor, ms": round(1000 * statistics.median(processor), 1),
        "of ten the slowest, ms": round(1000 * sorted(seconds)[int(0.9 * len(seconds))], 1),
        "parts, ms": parts,
    }
    return found | ({"share that is not accounted for, median": round(statistics.median(shares), 3)} if whole else {})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--config", default="configs/nano.yaml")
    options.add_argument("--count", type=int, default=50)
    options.add_argument("--whole", action="store_true", help="speak each to its end")
    given = options.parse_args()
    voice = Voice.from_config(given.config)

    def answer(question: str, seed: int) -> SpeechStream:
        return voice.chat_stream([{"role": "user", "content": question}], seed=seed)

    def text(words: str, seed: int) -> SpeechStream:
        return voice.stream(words, seed=seed)

    for warm in (text(TEXTS[0], 0), answer(QUESTIONS[0], 0)):
        list(warm)
    found = {
        "text": measure(text, TEXTS, given.count, given.whole),
        "chat": measure(answer, QUESTIONS, given.count, given.whole),
    }
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    print(json.dumps({**found, "processors": os.cpu_count(), "load": load}, indent=1))


if __name__ == "__main__":
    main()
