"""SmolLM2, a real LLM out of a Python package, spoken by the bundled TTS: configs/smollm2.yaml."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from audio_projection.config import Config, load_config
from audio_projection.files.locations import package_folder
from audio_projection.gguf.llm_file import check_llm
from audio_projection.models import load_reading_llm
from helpers.smollm2 import smollm2_file


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models (`models_dir`) that `audio-projection download` would fill."""
    pytest.importorskip("gguf", reason="the gguf package is not installed")
    folder, package = tmp_path_factory.mktemp("models"), load_config("smollm2").llm.package
    assert package is not None
    smollm2_file(package_folder(package, folder))
    return folder


def smollm2(models: Path, *words: str) -> Config:
    return load_config("smollm2", words, {"models_dir": models})


def test_the_package_has_the_model_that_the_configuration_names(models: Path) -> None:
    config = smollm2(models, "llm.backend=transformers", "llm.layers=1")
    (file,) = models.rglob("*.gguf")
    found = check_llm(file)
    sizes = [found.whole(f"llama.{name}") for name in ("embedding_length", "block_count", "vocab_size")]
    assert sizes == [576, 30, 49_152]
    llm = load_reading_llm(config)
    text = "The sea is never quiet."
    (read,) = llm.states([text])
    assert read.states.shape[1:] == (1, 576) and bool(torch.isfinite(read.states).all())
    assert read.spans[-1][1] == len(text) and len(read.spans) == len(read.states)
    assert llm.name == "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.mark.slow
def test_it_is_fitted_from_text_and_answers_aloud(models: Path, tmp_path: Path) -> None:
    """What `make smollm2` does, with fewer texts."""
    from audio_projection.cli.app import app

    places = [f"models_dir={models}", f"output_dir={tmp_path / 'run'}"]
    fit = ["fit", "--config", "smollm2", *places, "fit.tokens=8000", "fit.held_out=40", "data.limit=600"]
    assert CliRunner().invoke(app, fit, catch_exceptions=False).exit_code == 0
    info = json.loads((tmp_path / "run/linear/projector/projector.json").read_text(encoding="utf-8"))
    assert info["llm_size"] == 576 and info["measurements"]["compatibility"]
    answer = tmp_path / "answer.wav"
    speak = ["speak", "--config", "smollm2", *places, "llm.max_new_tokens=12", "--output", str(answer)]
    spoken = CliRunner().invoke(app, [*speak, "--chat", "What is the capital of France?"], catch_exceptions=False)
    assert spoken.exit_code == 0 and "Paris" in spoken.stdout
    samples, rate = soundfile.read(answer)
    assert len(samples) > rate / 2 and np.abs(samples).max() > 0.01
