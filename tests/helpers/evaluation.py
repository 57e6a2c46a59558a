"""Tiny models that speak, and speech-like sounds, for the tests of the evaluations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from audio_projection.config import PROJECTOR_KINDS, Config
from audio_projection.fit.assemble import new_projector
from audio_projection.models import load_llm, load_tts
from helpers.training import parity_file, save_llm

RATE = 16_000


def save_tiny(folder: Path, context: str = "raw") -> Config:
    """Random tiny models that speak a second at most, and an untrained projector of each kind."""
    shutil.copytree(parity_file("tiny_custom_voice"), folder / "tts", copy_function=shutil.copy)
    (folder / "tts").chmod(0o755)
    generation = folder / "tts" / "generation_config.json"
    settings = json.loads(generation.read_text())
    generation.unlink()
    generation.write_text(json.dumps(settings | {"max_new_tokens": 12}))
    config = Config.model_validate(
        {
            "llm": {"name": str(save_llm(folder / "llm")), "context": context},
            "tts": {"name": str(folder / "tts"), "speaker": "ada"},
            "output_dir": folder / "runs",
            "device": "cpu",
        }
    )
    llm, tts = load_llm(config), load_tts(config)
    for kind in PROJECTOR_KINDS:
        settings = config.model_copy(update={"projector": config.projector.model_copy(update={"kind": kind})})
        new_projector(settings, llm, tts).save_pretrained(settings.trained_projector)
    return config


def babble(sounds: int, seed: int = 0, seconds: float = 0.1) -> list[np.ndarray]:
    """Sounds of `seconds` at 16 kHz, each a noise with three random resonances, as a speaker's sounds are."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(sounds):
        resonances = np.sort(random.uniform([250, 900, 2300], [900, 2300, 3600]))
        widths = random.uniform(60, 150, 3)
        length = round(seconds * RATE)
        hertz = np.fft.rfftfreq(length, 1 / RATE)[:, None]
        shape = (1 / (1 + ((hertz - resonances) / widths) ** 2)).sum(1)
        sound = np.fft.irfft(np.fft.rfft(random.normal(0, 1, length)) * shape, length)
        made.append((0.1 * sound / sound.std()).astype(np.float32))
    return made
