"""Decoding speed in frames a second, beside the official package's, on the same checkpoint in one run.

    python benchmarks/decode_speed.py MODEL_DIR [--official-python PYTHON] [--runs 5] [--frames 40]

Talker and code predictor only (no codec), greedy, one utterance, one thread. Each implementation runs in a process of
its own that stays alive; runs alternate and medians are compared, so that a busy machine slows both alike. The official
package (qwen-tts, which needs another transformers release) is looked for in PYTHON, by default this interpreter. The
codes of both must be equal. The exit code is 0 also when the official package is absent, which is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

TEXT = "hello there the quick brown fox"
Run = Callable[[int], list[list[int]]]


def own_run(model: str) -> Run:
    """Decoding by this package: number of frames -> codes."""
    import torch

    from audio_projection.tts import Qwen3TTS, Sampling, generate

    tts = Qwen3TTS.from_pretrained(model)
    speaker = next(iter(tts.config.talker.speakers), None)
    prefix, embeddings = tts.prefix(speaker), tts.text_embeddings(torch.tensor(tts.tokenize(TEXT)[0]))

    def run(frames: int) -> list[list[int]]:
        return generate(tts, [(prefix, embeddings)], sampling=Sampling.greedy(), max_frames=frames)[0].tolist()

    return run


def official_run(model: str) -> Run:
    """Decoding by the official package: number of frames -> codes."""
    from official_reference import load  # beside this file, where the process that serves it looks first

    wrapper = load(model)
    speakers = list(wrapper.model.config.talker_config.spk_id or {})[:1] or [None]
    ids = wrapper._tokenize_texts([wrapper._build_assistant_text(TEXT)])

    def run(frames: int) -> list[list[int]]:
        codes, _ = wrapper.model.generate(
            input_ids=ids,
            languages=["Auto"],
            speakers=speakers,
            max_new_tokens=frames + 1,
            do_sample=False,
            subtalker_dosample=False,
        )
        return codes[0].tolist()

    return run


SIDES: dict[str, Callable[[str], Run]] = {"own": own_run, "official": official_run}


def serve(load: Callable[[], Run], threads: int) -> None:
    """Answers each line of standard input, a number of frames, with a line of JSON: seconds and codes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    import torch

    torch.set_num_threads(threads)
    run = load()
    for line in sys.stdin:
        start = time.perf_counter()
        codes = run(int(line))
        print(json.dumps({"seconds": time.perf_counter() - start, "codes": codes}), file=answers, flush=True)


class Side:
    """A process that stays alive and decodes for one implementation; it answers in lines of JSON."""

    def __init__(self, command: Sequence[str], threads: int) -> None:
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        environment = os.environ | counts | {"TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, frames: int) -> dict[str, Any]:
        """Decodes so many frames: their codes and the seconds that it took."""
        requests = _pipe(self.process.stdin)
        requests.write(f"{frames}\n")
        requests.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line of its output."""
        answer = _pipe(self.process.stdout).readline()
        if not answer:
            sys.exit(f"a side stopped with exit code {self.process.wait()}; its error is above")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        _pipe(self.process.stdin).close()
        self.process.wait()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def measure(sides: dict[str, Side], frames: int, runs: int) -> dict[str, list[float]]:
    """Frames a second of each run of each side, alternating, after a warm-up run; the codes must agree."""
    codes = {name: side.run(frames)["codes"] for name, side in sides.items()}
    if any(one != codes["own"] for one in codes.values()):
        sys.exit("decode_speed: the two sides do not give the same codes, so their speeds say nothing")
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            answer = side.run(frames)
            speeds[name].append(len(answer["codes"]) / answer["seconds"])
    return speeds


def official_is_in(python: str) -> bool:
    """Whether the interpreter has the official package installed."""
    found = "import importlib.util, sys; sys.exit(importlib.util.find_spec('qwen_tts') is None)"
    return subprocess.run([python, "-c", found], capture_output=True).returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path, help="checkpoint folder in the official layout")
    parser.add_argument("--official-python", default=sys.executable, help="interpreter that has qwen-tts installed")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        serve(lambda: SIDES[given.serve](str(given.model)), 1)
        return 0
    command = [str(Path(__file__).resolve()), str(given.model.resolve()), "--serve"]
    sides = {"own": Side([sys.executable, *command, "own"], 1)}
    if official_is_in(given.official_python):
        sides["official"] = Side([given.official_python, *command, "official"], 1)
    speeds = measure(sides, given.frames, given.runs)
    for name, values in speeds.items():
        print(f"{name:<9} {statistics.median(values):8.1f} frames/s (from {min(values):.1f} to {max(values):.1f})")
    for side in sides.values():
        side.close()
    if "official" in speeds:
        ratios = [own / official for own, official in zip(speeds["own"], speeds["official"], strict=True)]
        print(f"ratio     {statistics.median(ratios):8.2f} (median of {given.runs} pairs), same codes")
    else:
        print("skipped: the official package is not installed here; give its interpreter by --official-python")
    return 0


if __name__ == "__main__":
    sys.exit(main())
