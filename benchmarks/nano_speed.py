"""Speed of the bundled nano models: cold start, and real-time factor of speaking once they are loaded.

    python benchmarks/nano_speed.py [--config configs/nano.yaml] [--sentences 10] [--starts 3] [--threads 1]

Cold start: a new process that loads everything and speaks "Hello world" into a file; as a control, in turns, a
process that only imports torch and transformers' Llama. Speaking: LLM, projector, talker, code predictor and codec,
one sentence at a time, then all of them several at once, as `evaluate` and `--text-file` do. Medians of wall-clock time
and of processor time, which depends less on other work on the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SENTENCES = ROOT / "benchmarks" / "heldout.txt"


@dataclass(frozen=True)
class Timing:
    """Seconds of wall-clock time and of processor time, and the seconds of speech that were made in it."""

    clock: float
    processor: float
    speech: float = 0.0


def cold_start(config: Path, threads: int) -> Timing:
    """Runs the command that speaks "Hello world"."""
    with tempfile.TemporaryDirectory() as folder:
        command = [ROOT / "src" / "inference.py", "--config", config, "--text", "Hello world"]
        return process([*command, "--output", Path(folder) / "hello.wav", "--threads", threads])


def imports() -> Timing:
    """Runs a process that only imports the libraries of a cold start."""
    return process(["-c", "import torch; from transformers import LlamaForCausalLM"])


def process(arguments: Sequence[object]) -> Timing:
    """Runs Python with `arguments`; ends this program with its error when it fails."""
    start, before = time.perf_counter(), os.times()
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)
    clock, after = time.perf_counter() - start, os.times()
    if done.returncode:
        sys.exit(f"nano_speed: the command failed: {done.stderr.strip()}")
    processor = after.children_user - before.children_user + after.children_system - before.children_system
    return Timing(clock, processor)


def speaking(config: Path, threads: int, sentences: Sequence[str]) -> tuple[float, list[Timing], Timing]:
    """Frames in a second of speech, the time that each sentence took, after one to warm up, and the time of all of them
    at once."""
    from audio_projection import Voice

    voice = Voice.from_config(config, [f"threads={threads}"])
    voice.speak(sentences[0])
    timings = []
    for sentence in sentences:
        start, before = time.perf_counter(), time.process_time()
        speech = voice.speak(sentence)
        clock, processor = time.perf_counter() - start, time.process_time() - before
        timings.append(Timing(clock, processor, len(speech.samples) / speech.sample_rate))
    start, before = time.perf_counter(), time.process_time()
    seconds = sum(len(speech.samples) / speech.sample_rate for speech in voice.speak_all(sentences))
    together = Timing(time.perf_counter() - start, time.process_time() - before, seconds)
    return voice.tts.frame_rate, timings, together


def report(what: str, speeds: Sequence[float], frame_rate: float) -> None:
    """Prints how many times faster than real time the speech was made: median and range."""
    middle = statistics.median(speeds)
    print(
        f"speaking, {what}: {middle:.1f} x real time, {middle * frame_rate:.0f} frames/s "
        f"(from {min(speeds):.1f} to {max(speeds):.1f} x)"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nano.yaml")
    parser.add_argument("--sentences", type=int, default=10, help="how many of the held-out ones; 0: no speaking")
    parser.add_argument("--starts", type=int, default=3, help="cold starts; 0: none")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    starts = [(cold_start(given.config, given.threads), imports()) for _ in range(given.starts)]
    if starts:
        names = ('cold start, "Hello world"', "of torch and transformers' Llama, the imports alone")
        for what, timings in zip(names, zip(*starts, strict=True), strict=True):
            clock, processor = (statistics.median(getattr(one, of) for one in timings) for of in ("clock", "processor"))
            print(f"{what}: {clock:.2f} s ({processor:.2f} s of processor time)", flush=True)
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()[: given.sentences]
    if sentences:
        frame_rate, timings, together = speaking(given.config, given.threads, sentences)
        report("on the clock", [one.speech / one.clock for one in timings], frame_rate)
        report("by processor time", [one.speech / one.processor for one in timings], frame_rate)
        report("several at once, on the clock", [together.speech / together.clock], frame_rate)
        report("several at once, by processor time", [together.speech / together.processor], frame_rate)


if __name__ == "__main__":
    main()
