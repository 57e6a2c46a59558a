"""Data loading speed: batches of codes and cached LLM states against the time of nano's training step.

    python benchmarks/data_loading.py [--pairs 512] [--steps 20] [--workers 2] [--threads 1]

The pairs are the texts that ship with the package, random codes of plausible length, and the states of nano's LLM, in a
folder like that of `audio-projection data features --states`. They are loaded in the order of training, by this process
alone and by worker processes. The training step is that of `audio-projection train` on the same folder, which loads its
own batches. Wall clock: the median of the steps, the mean of the batches, each batch of the configuration's size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from audio_projection.alignment.token_states import TokenStates, chunks
from audio_projection.config import Config, load_config
from audio_projection.data import cached_states
from audio_projection.data.cached_states import CachedStates
from audio_projection.data.pairs import Pair, PairFolder
from audio_projection.data.speakers import named_speaker
from audio_projection.data_loader import BatchOrder, load_pairs, read_texts
from audio_projection.fit.assemble import assemble
from audio_projection.models import Models, load_tts
from audio_projection.train import run_training
from audio_projection.training.examples import StateSource
from audio_projection.training.run_log import read_metrics

LETTERS_A_FRAME = 1.2  # 15 letters a second


@dataclass(frozen=True)
class Batch:
    """The data of a training step."""

    codes: list[Tensor]  # (T, G) int64
    features: list[TokenStates]


class Batches(Dataset[Batch]):
    """The micro-batches of training as a torch Dataset, by their position."""

    def __init__(self, config: Config, models: Models, pairs: Sequence[Pair]) -> None:
        self.pairs, self.states = pairs, StateSource(models, pairs, config.train, config.tts.normalise)
        self.order = BatchOrder([len(pair.codes) for pair in pairs], config.train.batch, config.seed)

    def __len__(self) -> int:
        return self.order.per_epoch

    def __getitem__(self, position: int) -> Batch:
        indices = self.order.at(position)
        return Batch([self.pairs[index].codes.long() for index in indices], self.states.at(indices))


def write_features(config: Config, folder: Path, count: int) -> None:
    """Writes a folder like that of `data features --states` for `count` recordings."""
    tts = load_tts(config)
    texts = [text for text in read_texts(config.data, config.tts.normalise) if 20 <= len(text) <= 120][:count]
    llm = assemble(config, tts, texts).llm
    made_with = cached_states.conditions(llm, config.tts.normalise)
    voice, generator = named_speaker(config.tts, tts), torch.Generator().manual_seed(0)
    groups = list(chunks(texts, 64))
    out = PairFolder(folder, {"parts": len(groups), "states": made_with})
    for part, group in enumerate(groups):
        pairs = []
        for number, (text, states) in enumerate(zip(group, cached_states.compute(llm, group), strict=True)):
            frames = int(len(text) / LETTERS_A_FRAME)
            codes = torch.randint(256, (frames, tts.config.code_groups), generator=generator)
            pairs.append(Pair(f"{part}-{number}", text, codes, voice, None, CachedStates(states, made_with)))
        out.add(pairs, part)


def times(batches: Iterable[object]) -> Iterator[float]:
    """Seconds from one batch to the next."""
    before = time.perf_counter()
    for _ in batches:
        now = time.perf_counter()
        yield now - before
        before = now


def loading(batches: Batches, workers: int) -> float:
    """Mean seconds a batch over two epochs, without the first batches, during which the workers start."""
    positions = [*range(len(batches))] * 2
    loader = DataLoader(batches, batch_size=None, sampler=positions, num_workers=workers)
    return mean(list(times(loader))[2 * workers + 1 :])


def mean(seconds: Sequence[float]) -> float:
    """Not the median: workers deliver in bursts, and a median would see only the waits or only the ready batches."""
    return sum(seconds) / len(seconds)


def training(config: Config) -> float:
    """Median seconds of a training step."""
    run_training(config, resume=False)
    stamps = [record["seconds"] for record in read_metrics(config.run_dir / "metrics.jsonl") if "training" in record]
    return statistics.median(later - sooner for sooner, later in zip(stamps, islice(stamps, 1, None), strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/nano.yaml")
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        words = [f"threads={asked.threads}", "llm.layers=1", f"train.steps={asked.steps}", "train.max_minutes=null"]
        words += ["train.eval_every=1000", "train.checkpoint_every=1000", f"output_dir={folder}/run", "fit.tokens=5000"]
        config = load_config(asked.config, words)
        write_features(config, Path(folder) / "features", asked.pairs)
        config.data.source, config.data.path, config.data.limit = "pairs", Path(folder) / "features", None
        config.data.min_seconds, config.data.held_out = 0.0, 8
        step = training(config)
        tts = load_tts(config)
        pairs = load_pairs(config, tts)
        batches = Batches(config, assemble(config, tts, []), pairs)
        alone, together = loading(batches, 0), loading(batches, asked.workers)
    print(f"training step of {config.train.batch} utterances: {1000 * step:.1f} ms")
    for name, seconds in (("in the training process", alone), (f"by {asked.workers} workers", together)):
        print(f"loading a batch {name}: {1000 * seconds:.2f} ms, {step / seconds:.1f} times as fast as the step")


if __name__ == "__main__":
    main()
