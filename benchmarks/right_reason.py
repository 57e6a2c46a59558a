"""Does the held-out loss fall because of the words? Trains on matching texts, and on texts permuted among the codes.

    python benchmarks/right_reason.py

Two runs of a few steps on nano, from one untrained linear projector: one on pairs of text and codes as they belong
together, one on the same texts and codes with the texts permuted among the pairs. Both are measured on the same
held-out pairs, with their right texts and with permuted ones, beside the TTS fed with plain text. What a projector
learns about the voice, pauses and phonotactics helps with any text; what it learns about the words helps only with the
right ones.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from audio_projection.config import Config, load_config
from audio_projection.data.pairs import Pair
from audio_projection.data_loader import load_pairs, split_held_out
from audio_projection.fit.assemble import new_projector
from audio_projection.models import Models, load_llm, load_tts
from audio_projection.train import train_projector
from audio_projection.training.examples import Examples
from audio_projection.training.objective import Objective
from audio_projection.training.validation import Validation


@dataclass(frozen=True)
class HeldOutLosses:
    """Held-out cross-entropy of codebook 0, nats, with the right texts and with permuted ones."""

    right: float
    permuted: float


def permuted(pairs: Sequence[Pair]) -> list[Pair]:
    """The same texts and codes, each text with the codes of the pair before it."""
    texts = [pair.text for pair in pairs]
    moved = texts[1:] + texts[:1]
    if any(text == other for text, other in zip(texts, moved, strict=True)):
        raise SystemExit("error: two neighbouring pairs have the same text; give another --seed")
    return [replace(pair, text=text) for pair, text in zip(pairs, moved, strict=True)]


def configuration(folder: Path, steps: int, pairs: int, seed: int) -> Config:
    """nano with short utterances, the talker's loss alone, and no checkpoints or validation on the way."""
    words = [f"train.steps={steps}", f"data.limit={pairs}", "data.held_out=24", f"seed={seed}"]
    words += ["llm.layers=1", "data.max_seconds=5", "train.max_minutes=null", "train.eval_every=1000000"]
    words += ["train.loss.predictor=0", "train.learning_rate=3e-3", f"data.cache={folder / 'codes'}"]
    return load_config("configs/nano.yaml", [*words, "train.checkpoint_every=1000000", f"output_dir={folder}"])


def measured(config: Config, models: Models, pairs: Sequence[Pair]) -> tuple[float, float]:
    """Cross-entropy of codebook 0 on these pairs, with projected embeddings and with plain text."""
    objective = Objective(config.train, config.tts.layout, models.projector, models.tts)
    examples = Examples(models, pairs, config.train, config.tts)
    validation = Validation(objective, objective, examples, config.train.batch)
    return validation.projected()["talker"], validation.plain()["talker"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="steps of each run, 8 pairs each (60)")
    parser.add_argument("--pairs", type=int, default=160, help="pairs that the text-fed TTS speaks, 24 held out (160)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        losses = compared(configuration(Path(place), arguments.steps, arguments.pairs, arguments.seed))
    table = Table("trained on", "held out: right texts", "held out: permuted texts", "difference")
    for name, loss in losses.items():
        table.add_row(name, f"{loss.right:.3f}", f"{loss.permuted:.3f}", f"{loss.permuted - loss.right:+.3f}")
    Console().print(table)


def compared(config: Config) -> dict[str, HeldOutLosses]:
    """Losses by training data: none, right texts, permuted texts; and those of plain text, which needs no projector."""
    tts, llm = load_tts(config), load_llm(config)
    training, held_out = split_held_out(load_pairs(config, tts), config.data.held_out, config.seed)
    examined = held_out, permuted(held_out)
    losses: dict[str, HeldOutLosses] = {}
    for name, pairs in {"nothing": [], "right texts": training, "permuted texts": permuted(training)}.items():
        run = config.model_copy(update={"output_dir": config.output_dir / name.replace(" ", "-")})
        models = Models(llm, new_projector(run, llm, tts), tts)
        if pairs:
            train_projector(run, models, pairs, [])
        found = [measured(run, models, each) for each in examined]
        losses.setdefault("(plain text)", HeldOutLosses(*(plain for _, plain in found)))
        losses[name] = HeldOutLosses(*(projected for projected, _ in found))
    return losses


if __name__ == "__main__":
    main()
