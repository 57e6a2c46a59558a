"""Tiny frozen models and pairs of text and codes, for tests of what trains the projector."""

from __future__ import annotations

import copy
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_projection.alignment.token_states import TokenStates
from audio_projection.config import Config
from audio_projection.data.pairs import Pair, PairFolder
from audio_projection.files import audio
from audio_projection.fit.assemble import new_projector
from audio_projection.models import Models
from audio_projection.training.teacher_forcing import TeacherForced, Utterance
from audio_projection.training.trainer import Outcome, Trainer
from audio_projection.tts.model import Qwen3TTS
from helpers import parity_kit
from helpers.paths import FIXTURES, SHARED
from helpers.tiny_llm import make_llm, make_model, make_tokenizer

WORDS = ["hello", "there", "the", "quick", "brown", "fox", "lazy", "dog", "said", "and", "good", "day", "jumps", "over"]


def parity_file(name: str) -> Path:
    """A file or folder of the parity kit: the committed one, or that of the optional test material."""
    if name in parity_kit.CHECKPOINTS:
        return parity_kit.checkpoint(name)
    for folder in (FIXTURES / "parity", SHARED / "parity"):
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
    sampled = [torch.randint(len(WORDS), (3 + i % 4,), generator=generator).tolist() for i in range(count)]
    return [" ".join([*(WORDS[word] for word in words), str(index)]) for index, words in enumerate(sampled)]


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


def make_models(config: Config, kind: str = "custom_voice") -> Models:
    llm, tts = make_llm(layers=[2, 4]), load_tts(kind)
    return Models(llm, new_projector(config, llm, tts), tts)


def train_until(trainer: Trainer, step: int) -> Outcome:
    """Resumes the run and stops it after a step, as SIGTERM would."""
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
    """A configuration by names, as the command reads it: a saved LLM, a parity checkpoint, 14 ready pairs."""
    PairFolder(folder / "pairs", {}).add(make_pairs(14))
    values = make_config(folder / "run", **train).model_dump(mode="json")
    values["llm"] |= {"name": str(llm), "layers": 2}
    values["tts"] |= {"name": str(parity_file("tiny_custom_voice"))}
    values["data"] |= {"source": "pairs", "path": str(folder / "pairs"), "min_seconds": 0.0, "held_out": 2}
    values["data"] |= {"texts": str(folder / "texts.txt")}
    values["fit"] |= {"held_out": 5, "ridges": [1e-3]}
    (folder / "texts.txt").write_text("\n".join(make_texts(60, seed=5)), encoding="utf-8")
    return values


def own_tts() -> Qwen3TTS:
    """A TTS of its own for a test that changes the talker; `load_tts` gives the shared one."""
    return Qwen3TTS.from_pretrained(parity_file("tiny_custom_voice"))


def tuned(folder: Path, kind: str, tts: Qwen3TTS | None = None, **train: Any) -> tuple[Config, Models]:
    """Configuration and models of a run with `tts.finetune` set to `kind`."""
    config = make_config(folder, **{"steps": 3, "checkpoint_every": 10, "eval_every": 10} | train)
    config.tts.finetune, config.tts.lora_rank = kind, 4  # type: ignore[assignment]
    config.tts.finetune_rate = 1.0
    tts, llm = tts or own_tts(), make_llm(layers=[2, 4])
    return config, Models(llm, new_projector(config, llm, tts), tts)


def forced(count: int, layout: str = "nonstreaming", noise: float = 0.0) -> TeacherForced:
    """Teacher-forced utterances with their own text embeddings, plus noise relative to the embeddings' deviation."""
    tts, generator = load_tts(), torch.Generator().manual_seed(4)
    utterances, embeddings = [], []
    for pair in make_pairs(count):
        ids = tts.tokenize(pair.text)[0]
        own = tts.text_embeddings(torch.tensor(ids))
        utterances.append(Utterance(TokenStates(ids, own[:, None], own), pair.codes, tts.prefix("ada", "english")))
        embeddings.append((own + noise * own.std() * torch.randn(own.shape, generator=generator)).requires_grad_())
    return TeacherForced(tts, utterances, embeddings, layout)


def spoken_config(folder: Path, texts: list[str]) -> Config:
    (folder / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    config = make_config(folder / "run")
    config.data.texts = folder / "texts.txt"
    config.data.min_seconds, config.data.held_out = 0.0, 2
    return config


def write_noise(path: Path, seconds: float, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * 24000)).astype(np.float32)
    audio.write(path, noise, 24000)
    return path


def manifest_config(folder: Path, lines: list[str], name: str = "list.tsv") -> Config:
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    config = make_config(folder / "run")
    config.data.source, config.data.path = "manifest", folder / name
    return config
