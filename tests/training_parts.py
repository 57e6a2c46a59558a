"""Tiny frozen models and pairs of text and codes, for tests of what trains the projector."""

from __future__ import annotations

import copy
import os
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

import parity_kit
from audio_projection.config import Config
from audio_projection.data.pairs import Pair, PairFolder
from audio_projection.fit.assemble import new_projector
from audio_projection.models import Models
from audio_projection.training.trainer import Outcome, Trainer
from audio_projection.tts.model import Qwen3TTS
from tiny_llm import make_llm, make_model, make_tokenizer

TESTS = Path(__file__).resolve().parent
WORDS = ["hello", "there", "the", "quick", "brown", "fox", "lazy", "dog", "said", "and", "good", "day", "jumps", "over"]


def parity_file(name: str) -> Path:
    """A file or folder of the parity kit: the committed one, or that of the optional test material."""
    if name in parity_kit.CHECKPOINTS:
        return parity_kit.checkpoint(name)
    shared = Path(os.environ.get("AUDIO_PROJECTION_SHARED", TESTS.parents[1] / "shared"))
    for folder in (TESTS / "fixtures" / "parity", shared / "parity"):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"no {name} of the parity kit (set AUDIO_PROJECTION_SHARED)")


@lru_cache(maxsize=3)
def load_tts(kind: str = "custom_voice") -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(parity_file(f"tiny_{kind}"))


def save_llm(folder: Path) -> Path:
    """The tiny LLM as a folder, for what loads models by name.

    Its embeddings are scaled up, so that its layers leave the token recognisable as those of a trained LLM do.
    """
    model = copy.deepcopy(make_model())
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(30)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_texts(count: int, seed: int = 0) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(len(WORDS), (3 + i % 4,), generator=generator).tolist() for i in range(count)]
    return [" ".join([*(WORDS[word] for word in words), str(index)]) for index, words in enumerate(drawn)]


def make_pairs(count: int, voice: Any = "ada", seed: int = 0) -> list[Pair]:
    """Random codes of 5 to 12 frames for the tiny checkpoints (16 groups of 64)."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Pair(f"pair {index}", text, torch.randint(64, (5 + index % 8, 16), generator=generator), voice)
        for index, text in enumerate(make_texts(count, seed))
    ]


def make_config(folder: Path, **train: Any) -> Config:
    """A short run on the CPU; `train` overrides its training settings."""
    settings = {"steps": 6, "batch": 3, "warmup": 2, "learning_rate": 1e-2, "checkpoint_every": 2, "eval_every": 3}
    return Config.model_validate(
        {
            "tts": {"speaker": "ada", "layout": "nonstreaming", "language": "english"},
            "train": settings | train,
            "output_dir": folder,
            "device": "cpu",
            "threads": 1,
        }
    )


def make_parts(config: Config, kind: str = "custom_voice") -> Models:
    llm, tts = make_llm(layers=[2, 4]), load_tts(kind)
    return Models(llm, new_projector(config, llm, tts), tts)


def train_until(trainer: Trainer, step: int) -> Outcome:
    """The run taken up and stopped at a step, as SIGTERM would stop it."""
    terminated = threading.Event()
    trainer.resume()
    take_step = trainer.optimization.take_step

    def counted(*arguments: Any) -> dict[str, float]:
        record = take_step(*arguments)
        if trainer.step + 1 == step:
            terminated.set()
        return record

    trainer.optimization.take_step = counted  # type: ignore[method-assign]
    return trainer.train(terminated)


def pairs_config(folder: Path, llm: Path, **train: Any) -> dict[str, Any]:
    """A configuration by names, as the command reads it: a saved LLM, a parity checkpoint, 14 shipped pairs."""
    PairFolder(folder / "pairs", {}).add(make_pairs(14))
    values = make_config(folder / "run", **train).model_dump(mode="json")
    values["llm"] |= {"name": str(llm), "layers": 2}
    values["tts"] |= {"name": str(parity_file("tiny_custom_voice"))}
    values["data"] |= {"source": "pairs", "path": str(folder / "pairs"), "min_seconds": 0.0, "held_out": 2}
    values["data"] |= {"texts": str(folder / "texts.txt")}
    values["fit"] |= {"held_out": 5, "ridges": [1e-3]}
    (folder / "texts.txt").write_text("\n".join(make_texts(60, seed=5)), encoding="utf-8")
    return values
