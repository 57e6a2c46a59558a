"""Memory of a fit and of training steps, beside what `train --dry-run` says of them.

    python benchmarks/training_memory.py TTS_CONFIG.json [--talker-layers 6] [--llm-layers 8] [--llm-hidden 1024]
        [--batch 4] [--device cpu]

TTS_CONFIG.json: the config.json of a Qwen3-TTS, e.g. of the 0.6B; widths stay the true ones, the talker gets fewer
layers, and the LLM is a random Llama. Everything has random weights; texts are nano's, codes are random and as long as
`data.max_seconds` allows. On a CPU memory is the process's resident set above that before the models were made, sampled
a hundred times a second, in float32; on CUDA what the allocator held at most, in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from audio_projection.config import Config
from audio_projection.data.pairs import Pair
from audio_projection.data_loader import NANO_TEXTS
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.fit.assemble import new_projector
from audio_projection.fit.closed_form import fit_projector
from audio_projection.llm.language_model import LanguageModel
from audio_projection.models import Models
from audio_projection.training.estimates.dry_run import estimate_run, peaks_of
from audio_projection.training.estimates.flops import PREFIX
from audio_projection.training.estimates.memory import Batch
from audio_projection.training.trainer import Trainer
from audio_projection.tts.config import Qwen3TTSConfig
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.tokenizer import TextTokenizer

TOKENS = 70
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "1"}
"""So that glibc gives back what is freed; else what the fit left behind would be counted with the training."""


def settings(folder: Path, options: argparse.Namespace) -> Config:
    """A run on the two configurations in `folder`; the LLM reads every batch anew."""
    dtype = "float32" if options.device == "cpu" else "bfloat16"
    return Config.model_validate(
        {
            "llm": {"name": str(folder / "llm"), "layers": options.llm_layers - 1, "dtype": dtype},
            "tts": {"name": str(folder / "tts"), "dtype": dtype, "language": "english"},
            "data": {"max_seconds": 20, "held_out": 1, "source": "manifest", "path": str(folder / "none.tsv")},
            "fit": {"tokens": 20_000, "held_out": 100, "ridges": [1e-3]},
            "train": {
                **{"steps": 2, "batch": options.batch, "predictor_share": 0.25, "states_memory": 0.0},
                "precision": "no" if options.device == "cpu" else "bf16",
            },
            "output_dir": str(folder / "run"),
            "device": options.device,
            "seed": 0,
        }
    )


def write_configurations(folder: Path, options: argparse.Namespace) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(NANO_FOLDER / "llm"))
    LlamaConfig(
        hidden_size=options.llm_hidden,
        intermediate_size=7 * options.llm_hidden // 2,
        num_hidden_layers=options.llm_layers,
        num_attention_heads=options.llm_hidden // 128,
        num_key_value_heads=max(1, options.llm_hidden // 512),
        vocab_size=32_768,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder / "llm")
    tokenizer.save_pretrained(folder / "llm")
    values = json.loads(options.tts_config.read_text(encoding="utf-8"))
    values["talker_config"]["num_hidden_layers"] = options.talker_layers
    (folder / "tts").mkdir()
    (folder / "tts" / "config.json").write_text(json.dumps(values), encoding="utf-8")


def random_models(config: Config) -> Models:
    """The models of the configurations with random weights, each made in its own type."""
    dtype = torch.float32 if config.device == "cpu" else torch.bfloat16
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        tts = Qwen3TTS.from_config(
            Qwen3TTSConfig.from_folder(Path(config.tts.name)), tokenizer=TextTokenizer.from_folder(NANO_FOLDER / "tts")
        )
        model: Any = LlamaForCausalLM(LlamaConfig.from_pretrained(config.llm.name))
    finally:
        torch.set_default_dtype(before)
    tts = tts.to(config.device).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(config.llm.name)
    llm = LanguageModel(model, tokenizer, "random", layers=config.llm.layers)  # type: ignore[arg-type]
    llm.keep_reading_only().to(config.device)
    return Models(llm, new_projector(config, llm, tts), tts)


def random_pairs(config: Config, tts: Qwen3TTS, count: int) -> list[Pair]:
    """Pairs of the greatest length: `TOKENS` text tokens and all frames of `data.max_seconds`."""
    frames, generator = round(config.data.max_seconds * 12.5), torch.Generator().manual_seed(0)
    word = "hello "
    text = word * max(1, TOKENS // len(tts.tokenize(word * 10)[0]) * 10)
    shape = (frames, tts.config.code_groups)
    speaker = next(iter(tts.config.talker.speakers), None)
    return [
        Pair(str(index), f"{text}{index}", torch.randint(2048, shape, generator=generator), speaker)
        for index in range(count)
    ]


class Meter:
    """The most memory since `reset`, in bytes."""

    def __init__(self, device: str) -> None:
        self.cuda, self.peak, self._ended = device != "cpu", 0, threading.Event()
        if not self.cuda:
            threading.Thread(target=self._sample, daemon=True).start()

    def reset(self) -> None:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        self.peak = 0

    def highest(self) -> int:
        return torch.cuda.max_memory_allocated() if self.cuda else self.peak

    def _sample(self) -> None:
        while not self._ended.wait(0.01):
            self.peak = max(self.peak, resident())


def resident() -> int:
    """Bytes of this process in memory, under Linux."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise SystemExit("/proc/self/status tells no RssAnon: run this under Linux or on CUDA")


@contextmanager
def measured(meter: Meter, base: int, name: str, told: float) -> Iterator[None]:
    meter.reset()
    began = time.perf_counter()
    yield
    found = meter.highest() - base
    print(
        f"{name}: {found / 1e9:.2f} GB measured, {told / 1e9:.2f} GB by the plan, ratio {found / told:.3f} "
        f"({time.perf_counter() - began:.0f} s)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tts_config", type=Path)
    parser.add_argument("--talker-layers", type=int, default=6)
    parser.add_argument("--llm-layers", type=int, default=8)
    parser.add_argument("--llm-hidden", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.device == "cpu" and MALLOC.items() - os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | MALLOC)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_configurations(folder, options)
        config = settings(folder, options)
        run(config, options)


def run(config: Config, options: argparse.Namespace) -> None:
    meter = Meter(options.device)
    torch.randn(512, 512) @ torch.randn(512, 512)  # the libraries' own buffers
    base = 0 if meter.cuda else resident()
    models = random_models(config)
    pairs = random_pairs(config, models.tts, 2 * options.batch + 1)
    tokens, frames = len(models.tts.tokenize(pairs[0].text)[0]), len(pairs[0].codes)
    estimate = estimate_run(config)
    peaks = peaks_of(config, estimate, Batch(options.batch, tokens, frames, tokens + frames + PREFIX))
    texts = NANO_TEXTS.read_text(encoding="utf-8").splitlines()
    steps: dict[str, tuple[float, Callable[[], Any]]] = {
        "fit": (
            sum(peaks.fitting.values()),
            lambda: fit_projector(config.fit, models.llm, models.tts, models.projector, texts),
        ),
        "training": (sum(peaks.training.values()), lambda: train(config, models, pairs)),
    }
    for name, (told, work) in steps.items():
        with measured(meter, base, name, told):
            work()
    for name, parts in (("fit", peaks.fitting), ("training", peaks.training)):
        print(f"{name}: " + ", ".join(f"{part} {size / 1e9:.2f}" for part, size in parts.items()))


def train(config: Config, models: Models, pairs: list[Pair]) -> None:
    trainer = Trainer(config, models, pairs[:-1], pairs[-1:])
    trainer.resume()
    trainer.train(threading.Event())


if __name__ == "__main__":
    main()
