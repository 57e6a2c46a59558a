"""Speed and memory of a folder of `audio-projection export gguf --all`, for each of its models.

    python benchmarks/gguf_speed.py EXPORTED [--official TTS_FOLDER --official-python PYTHON] [--threads 2]

Four measurements, each in a process of its own:

- frame: milliseconds that talker, code predictor, codec and the rest take for one frame of speech (medians), beside
  the least that this machine could take (the floor): for the codec its floating-point operations over the rate of
  large matrix products, for the others the bytes of the weights that a frame reads over the memory bandwidth. Rate and
  bandwidth are measured between the frames;
- official package (with `--official`, in bfloat16 and in float32), on the folder that EXPORTED was made of: frames a
  second from text to sound, in turns with ours;
- LLM prefill: tokens a second and resident memory, for hidden states of the layers given with `--layers`: nothing
  above a layer is computed or, with mmap, read from the disk;
- latency: from a text to the first sound, by part, and the peak memory of the process.

True shapes without a download: random_models.py, then `audio-projection export gguf`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decode_speed import Side, serve

TEXT = "The old dog slept beside the warm stove."
CHUNK = 12
"""Frames that the codec decodes at once after the first chunks."""
SIDE = 2048  # of the square matrices that are multiplied
TYPES = ["bfloat16", "float32"]
REPEATS = 8
"""How many times the text is repeated for the measurement of the LLM's prefill."""


@dataclass
class Clock:
    """Wall-clock seconds of each call of named pieces of work."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            with self(name):
                return work(*given, **named)

        return run

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def loaded_tts(exported: Path, threads: int) -> Any:
    from audio_projection.config import load_config
    from audio_projection.models import load_tts

    return load_tts(load_config(exported / "config.yaml", [f"threads={threads}", "gguf.memory=copy"]))


def prompt_of(tts: Any) -> Any:
    import torch

    from audio_projection.tts.prompt import STREAMING, text_prompt

    speaker = next(iter(tts.config.talker.speakers), None)
    return text_prompt(tts, tts.prefix(speaker), tts.text_embeddings(torch.tensor(tts.tokenize(TEXT)[0])), STREAMING)


class Machine:
    """Memory bandwidth and matrix rate of this machine, measured between the frames because both vary with its load."""

    def __init__(self, clock: Clock) -> None:
        import torch

        block, square = torch.ones(1 << 26, dtype=torch.float32), torch.randn(SIDE, SIDE)
        self._clock, self._bytes = clock, 4 * block.numel()
        self.read, self.multiply = clock.timed("sum", block.sum), clock.timed("product", lambda: square @ square)

    @property
    def bandwidth(self) -> float:
        """Memory bandwidth in bytes a second: a sum over 256 MiB."""
        return self._bytes / self._clock.median("sum")

    @property
    def rate(self) -> float:
        """Floating-point operations a second of large float32 matrix products."""
        return 2 * SIDE**3 / self._clock.median("product")


def matrix_bytes(path: Path) -> int:
    """Bytes of weights that one decoding step reads of a talker's or predictor's file: all but the embedding tables."""
    from audio_projection.gguf.reader import read_gguf

    tables = ("token_embd.weight", "output.weight")  # inputs are embeddings, and the head is torch's
    return sum(info.size for info in read_gguf(path).tensors.values() if info.name not in tables)


def frame(exported: Path, threads: int, frames: int) -> dict[str, Any]:
    """Median milliseconds of a frame by part, with floors; `frames` are measured after two to warm up."""
    import torch

    torch.set_num_threads(threads)
    tts, clock = loaded_tts(exported, threads), Clock()
    machine = Machine(clock)
    codes = step_frames(tts, clock, machine, frames)
    operations = decode_chunks(tts, clock, machine, codes.clamp_max(tts.codec.config.decoder.codebook_size - 1))
    groups, bandwidth, rate = tts.config.code_groups, machine.bandwidth, machine.rate
    talker, predictor = (matrix_bytes(exported / f"{name}.gguf") for name in ("talker", "predictor"))
    heads = [tts.talker.codec_head.weight, tts.code_predictor.lm_head]
    heads += groups * list(tts.code_predictor.small_to_mtp_projection.parameters())  # read for each of its steps
    rest = sum(weight.numel() * weight.element_size() for weight in heads)
    seconds = {
        "talker": clock.median("talker"),
        "predictor": groups * clock.median("predictor"),
        "codec": clock.median("codec") / CHUNK,
    }
    seconds["heads, embeddings, choice"] = clock.median("step") - seconds["talker"] - seconds["predictor"]
    floors = {
        "talker": talker / bandwidth,
        "predictor": groups * predictor / bandwidth,
        "codec": operations / rate,
        "heads, embeddings, choice": rest / bandwidth,
    }
    return {
        "milliseconds": {name: 1000 * part for name, part in seconds.items()},
        "floors": {name: 1000 * part for name, part in floors.items()},
        "bandwidth, GB/s": bandwidth / 1e9,
        "matrix rate, GFLOP/s": rate / 1e9,
        "codec, GFLOP a frame": operations / 1e9,
    }


def step_frames(tts: Any, clock: Clock, machine: Machine, frames: int) -> Any:
    """Times `frames` steps of the decoding loop, and talker and predictor within them; the last codes (1, G)."""
    from audio_projection.sampling import Sampling
    from audio_projection.tts import Decoder

    decoder = Decoder(tts, [prompt_of(tts)], Sampling.greedy())
    pad = decoder.last.new_zeros(1, tts.config.hidden_size)
    for _ in range(2):
        decoder.step(pad)
    decoder.talker.step = clock.timed("talker", decoder.talker.step)  # type: ignore[method-assign]
    stepper = decoder.predictor.stepper
    stepper.step = clock.timed("predictor", stepper.step)  # type: ignore[method-assign]
    for number in range(frames):
        if number % 5 == 0:
            machine.read()  # empties the caches, but for one frame in five only: medians do not change
        with clock("step"):
            codes, _ = decoder.step(pad)
    return codes


def decode_chunks(tts: Any, clock: Clock, machine: Machine, codes: Any) -> float:
    """Times the codec on chunks that repeat `codes` (1, G); returns its floating-point operations a frame."""
    from torch.utils.flop_counter import FlopCounterMode

    block, stream = codes[:, None].repeat(1, CHUNK, 1), tts.codec.stream()
    stream.decode(block)
    for _ in range(7):
        machine.multiply()
        with clock("codec"):
            stream.decode(block)
    with FlopCounterMode(display=False) as counter:
        stream.decode(block)
    return counter.get_total_flops() / CHUNK


def latency(exported: Path, threads: int) -> dict[str, Any]:
    """Milliseconds from a text to the first sound with loaded models, by part, and gigabytes of memory."""
    from dataclasses import replace

    from audio_projection import Voice

    began = time.perf_counter()
    voice = Voice.from_config(exported / "config.yaml", [f"threads={threads}", "tts.layout=nonstreaming"])
    loaded, clock = time.perf_counter() - began, Clock()
    voice.defaults = replace(voice.defaults, max_frames=8)
    list(voice.stream("Good.", seed=0))  # warm-up: memory is allocated and pages are loaded
    voice.llm.read = clock.timed("LLM prefill", voice.llm.read)  # type: ignore[method-assign]
    voice.projector.forward = clock.timed("projector", voice.projector.forward)  # type: ignore[method-assign]
    stack = voice.tts.talker.transformer
    opened = stack.begin

    def begin(*given: Any) -> Any:
        stepper = opened(*given)
        stepper.prefill = clock.timed("talker prefill", stepper.prefill)
        return stepper

    stack.begin = begin  # type: ignore[method-assign]
    codec = voice.tts.codec.decoder
    codec.forward = clock.timed("codec", codec.forward)  # type: ignore[method-assign]
    with clock("first sound"):
        first = next(voice.stream(TEXT, seed=0))
    parts = {name: seconds[0] for name, seconds in clock.seconds.items()}
    frames = len(first) // voice.tts.samples_per_frame
    parts[f"{frames} frames"] = 2 * parts["first sound"] - sum(parts.values())
    return {
        "milliseconds": {name: 1000 * seconds for name, seconds in parts.items()},
        "tokens": len(voice.llm.tokenize(TEXT)),
        "seconds to load": loaded,
        "gigabytes": memory(),
    }


def memory() -> dict[str, float]:
    """Resident memory of this process in gigabytes: now and at its peak."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(fields[field].split()[0]) * 1024 / 1e9 for name, field in (("now", "VmRSS"), ("peak", "VmHWM"))}


def prefill(exported: Path, threads: int, layer: int) -> dict[str, Any]:
    """Tokens a second (median) of the LLM's prefill for the hidden states of one layer, and gigabytes of memory."""
    from audio_projection.config import load_config
    from audio_projection.models import load_llm

    config = load_config(exported / "config.yaml", [f"threads={threads}", f"llm.layers={layer}"])
    llm, clock = load_llm(config), Clock()
    ids = llm.tokenize(" ".join([TEXT] * REPEATS))
    llm.read([ids])
    for _ in range(3):
        with clock("read"):
            llm.read([ids])
    return {
        "tokens": len(ids),
        "speed": len(ids) / clock.median("read"),
        "gigabytes": memory(),
    }


def own_run(exported: str, threads: int) -> Callable[[int], list[list[int]]]:
    """Speaking by this package, from text to sound: frames wanted -> codes."""
    from audio_projection.tts import Sampling, decode

    tts = loaded_tts(Path(exported), threads)

    def run(frames: int) -> list[list[int]]:
        codes = decode(tts, [prompt_of(tts)], Sampling.greedy(), max_frames=frames)[0]
        tts.codec.decode(codes)
        return codes.tolist()

    return run


def official_run(folder: str, dtype: str) -> Callable[[int], list[list[int]]]:
    """Speaking by the official package, from text to sound: frames wanted -> codes."""
    import torch
    from official_reference import load

    wrapper = load(folder, getattr(torch, dtype))
    speakers = list(wrapper.model.config.talker_config.spk_id or {})[:1] or [None]
    ids = wrapper._tokenize_texts([wrapper._build_assistant_text(TEXT)])
    greedy = {"do_sample": False, "subtalker_dosample": False, "max_new_tokens": None}

    def run(frames: int) -> list[list[int]]:
        greedy["max_new_tokens"] = frames + 1
        codes, _ = wrapper.model.generate(input_ids=ids, languages=["Auto"], speakers=speakers, **greedy)
        wrapper.model.speech_tokenizer.decode([{"audio_codes": codes[0]}])
        return codes[0].tolist()

    return run


def compare(sides: dict[str, Side], frames: int, runs: int) -> dict[str, float]:
    """Frames a second of each side: the median of `runs`, in turns, after one to warm up."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(runs + 1):
        for name, side in sides.items():
            answer = side.run(frames)
            if number:
                speeds[name].append(len(answer["codes"]) / answer["seconds"])
    return {name: statistics.median(values) for name, values in speeds.items()}


def print_frame(result: dict[str, Any]) -> None:
    measured, floors = result["milliseconds"], result["floors"]
    print(f"{'a frame (80 ms of sound)':28} {'ms':>8} {'floor':>8} {'ratio':>6}")
    for name in (*measured, "all"):
        one, floor = (sum(part.values()) if name == "all" else part[name] for part in (measured, floors))
        print(f"  {name:26} {one:8.1f} {floor:8.1f} {one / floor:6.2f}")
    for name in ("bandwidth, GB/s", "matrix rate, GFLOP/s", "codec, GFLOP a frame"):
        print(f"  {name:26} {result[name]:8.1f}")


def print_latency(result: dict[str, Any]) -> None:
    print(f"from a text of {result['tokens']} LLM tokens to the first sound")
    for name, milliseconds in result["milliseconds"].items():
        print(f"  {name:26} {milliseconds:8.0f} ms")
    print(f"loading {result['seconds to load']:.1f} s; {in_words(result['gigabytes'])}")


def in_words(gigabytes: dict[str, float]) -> str:
    return f"{gigabytes['now']:.2f} GB resident, {gigabytes['peak']:.2f} GB at the peak"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("exported", type=Path, help="folder of `export gguf --all`")
    parser.add_argument(
        "--official", type=Path, help="the TTS folder it was made of: compare with the official package"
    )
    parser.add_argument("--official-python", default=sys.executable, help="interpreter that has qwen-tts installed")
    parser.add_argument("--official-types", nargs="+", choices=TYPES, default=TYPES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layers", nargs="*", type=int, default=[], help="measure the LLM's prefill for these layers")
    parser.add_argument("--no-start", action="store_true", help="skip the latency to the first sound: no LLM is loaded")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        return serve_as(given)
    command = [__file__, str(given.exported), "--threads", str(given.threads), "--frames", str(given.frames)]
    own = Side([sys.executable, *command, "--serve", "frame"], given.threads)
    print_frame(own.answer())
    own.close()
    if given.official:
        sides = {"own": Side([sys.executable, *command, "--serve", "own"], given.threads)}
        more = [*command, "--official", str(given.official)]
        for dtype in given.official_types:
            sides[dtype] = Side([given.official_python, *more, "--serve", dtype], given.threads)
        speeds = compare(sides, given.frames, given.runs)
        for name, speed in speeds.items():
            beside = "" if name == "own" else f", ours is {speeds['own'] / speed:.2f} times as fast"
            print(f"{name if name == 'own' else f'official, {name}':26} {speed:8.2f} frames a second{beside}")
        for side in sides.values():
            side.close()
    for layer in given.layers:
        side = Side([sys.executable, *command, "--layers", str(layer), "--serve", "prefill"], given.threads)
        result = side.answer()
        speed = f"{result['tokens']} tokens, {result['speed']:.1f} a second"
        print(f"LLM prefill for layer {layer}: {speed}; {in_words(result['gigabytes'])}")
        side.close()
    if not given.no_start:
        first_sound = Side([sys.executable, *command, "--serve", "latency"], given.threads)
        print_latency(first_sound.answer())
        first_sound.close()
    return 0


def serve_as(given: argparse.Namespace) -> int:
    """Runs one measurement, in a process that `main` has started."""
    once = {"frame": lambda: frame(given.exported, given.threads, given.frames)}
    once["prefill"] = lambda: prefill(given.exported, given.threads, given.layers[0])
    once["latency"] = lambda: latency(given.exported, given.threads)
    if given.serve in once:
        print(json.dumps(once[given.serve]()), flush=True)
    elif given.serve == "own":
        serve(lambda: own_run(str(given.exported), given.threads), given.threads)
    else:
        serve(lambda: official_run(str(given.official), given.serve), given.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
