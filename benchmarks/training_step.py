"""Training step at true shape with random weights: cost of the code predictor's loss, memory and matrix rate.

    python benchmarks/training_step.py CONFIG_JSON [--dtype bfloat16] [--device cpu] [--runs 3] [--batch 2]

CONFIG_JSON: the config.json of a Qwen3-TTS, e.g. of the 1.7B. Random LLM states go through a linear projector and the
frozen talker; the gradient goes back to the projector. Three kinds of runs alternate: a step with codebook 0 alone, a
step with codebooks 1 and up on `--share` of the frames too, and a product of two large matrices of the same type, whose
rate is the machine's peak. Medians are compared. Floating-point operations are those of the frozen forward and the
backward to the activations (no gradients of frozen weights), counted as they run.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from audio_projection.projector import Projector, ProjectorInfo, build_projector
from audio_projection.training.losses import chosen_count, predictor_cross_entropy
from audio_projection.tts import Qwen3TTS
from audio_projection.tts.config import Qwen3TTSConfig

PREFIX = 8
SIDE = 4096


@dataclass(frozen=True)
class Shape:
    """Shape of a batch: utterances, and text tokens and frames of each."""

    batch: int
    tokens: int
    frames: int


def build(config: Qwen3TTSConfig, dtype: torch.dtype, device: str) -> Qwen3TTS:
    """A frozen model with random weights, created in its own dtype so that no wider copy takes memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        tts = Qwen3TTS.from_config(config)
    finally:
        torch.set_default_dtype(before)
    return tts.to(device).eval().requires_grad_(False)


class Step:
    """One training step: projected embeddings before the frames, the losses, and the projector's optimizer step."""

    def __init__(self, tts: Qwen3TTS, projector: Projector, shape: Shape) -> None:
        self.tts, self.projector, self.shape = tts, projector, shape
        self.optimizer = torch.optim.AdamW(projector.parameters(), 1e-4)
        device, groups = tts.device, tts.config.code_groups
        generator = torch.Generator().manual_seed(0)
        sizes = shape.batch, shape.tokens, 1, projector.info.llm_size
        self.states = torch.randn(sizes, generator=generator).to(device)
        codes = torch.randint(tts.config.predictor.vocab_size, (shape.batch, shape.frames, groups), generator=generator)
        self.codes = codes.to(device)
        self.prefix = torch.randn(shape.batch, PREFIX, tts.config.hidden_size, generator=generator).to(
            device, tts.dtype
        )

    def __call__(self, share: float) -> None:
        """`share` of the frames gets the code predictor's loss; 0: codebook 0 alone."""
        tts, shape = self.tts, self.shape
        plain = self.states.new_zeros(*self.states.shape[:2], tts.config.hidden_size)
        projected = torch.stack([self.projector(*each) for each in zip(self.states, plain, strict=True)])
        hidden = tts.talker(torch.cat((self.prefix, projected.to(tts.dtype), tts.frame_embedding(self.codes)), 1))
        before = hidden[:, -shape.frames - 1 : -1].flatten(0, 1)
        codes = self.codes.flatten(0, 1)
        loss = cross_entropy(tts.talker.logits(before).float(), codes[:, 0])
        if share:
            chosen = torch.randperm(len(codes))[: chosen_count(len(codes), share)]
            loss = loss + 0.3 * predictor_cross_entropy(tts.code_predictor, before[chosen], codes[chosen]) / len(chosen)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def operations(self, share: float) -> float:
        """Floating-point operations of one step."""
        counter = FlopCounterMode(display=False)
        with counter:
            self(share)
        return float(counter.get_total_flops())


def seconds(run: Callable[[], object], device: str) -> float:
    """Wall-clock time of one run."""
    began = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak_gigabytes(device: str) -> float:
    """Peak memory of the process so far, or of the GPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure(step: Step, share: float, runs: int) -> None:
    """Times the runs in turn; prints medians and ratios."""
    tts = step.tts
    device, dtype = str(tts.device), tts.dtype
    held = sum(weight.numel() * weight.element_size() for weight in tts.parameters()) / 1e9
    square = torch.randn(SIDE, SIDE).to(device, dtype)
    kinds: dict[str, tuple[Callable[[], object], float]] = {
        "codebook 0 alone": (lambda: step(0), step.operations(0)),
        f"predictor on {share:g} of the frames": (lambda: step(share), step.operations(share)),
        f"{SIDE} x {SIDE} matrices": (lambda: square @ square, 2.0 * SIDE**3),
    }
    peak = peak_gigabytes(device)
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(runs):
        for name, (run, _) in kinds.items():
            times[name].append(seconds(run, device))
    medians = {name: statistics.median(found) for name, found in times.items()}
    rates = {name: kinds[name][1] / medians[name] for name in kinds}
    alone, both, matrices = kinds
    positions = step.shape.batch * (PREFIX + step.shape.tokens + step.shape.frames)
    print(f"{positions} positions, {dtype}, {device}, {torch.get_num_threads()} threads, median of {runs} runs")
    for name in kinds:
        work = f"{kinds[name][1] / 1e12:.2f} T operations, {rates[name] / 1e9:.1f} G a second"
        print(f"{name}: {medians[name]:.2f} s, {work}")
    print(f"with the predictor / alone: {medians[both] / medians[alone]:.3f}")
    reached = [rates[name] / rates[matrices] for name in (alone, both)]
    print(f"share of the matrix rate: {reached[0]:.0%} alone, {reached[1]:.0%} with the predictor")
    print(f"peak memory {peak:.2f} GB, weights {held:.2f} GB, difference {peak - held:.2f} GB")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.125, help="share of the frames for the code predictor's loss")
    parser.add_argument("--batch", type=int, default=2, help="utterances")
    parser.add_argument("--tokens", type=int, default=32, help="text tokens of an utterance")
    parser.add_argument("--frames", type=int, default=120, help="frames of an utterance, 12.5 a second")
    parser.add_argument("--llm-size", type=int, default=4096)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args(words)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = Qwen3TTSConfig.from_dict(json.loads(arguments.config.read_text()))
    tts = build(config, getattr(torch, arguments.dtype), arguments.device)
    info = ProjectorInfo(kind="linear", llm_size=arguments.llm_size, tts_size=tts.config.hidden_size)
    projector = build_projector(info).to(arguments.device)
    step = Step(tts, projector, Shape(arguments.batch, arguments.tokens, arguments.frames))
    measure(step, arguments.share, arguments.runs)


if __name__ == "__main__":
    main()
