"""The true-shape benchmarks run at toy size and print their measurements."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from audio_projection.config import load_config
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.models import load_projector, load_tts
from helpers import parity_kit
from helpers.paths import REPOSITORY

random_models, fit_speed = parity_kit.script("random_models"), parity_kit.script("fit_speed")
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano's shapes with random weights, and a Llama of two layers."""
    folder, tts = tmp_path_factory.mktemp("models"), NANO_FOLDER / "tts"
    shutil.copyfile(NANO_FOLDER / "llm" / "tokenizer.json", folder / "tokenizer.json")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    patch = pytest.MonkeyPatch()
    patch.setattr(random_models, "LLAMA", random_models.LLAMA | SMALL | {"vocab_size": len(vocabulary) + 8})
    words = ["--tts-config", tts / "config.json", "--codec-config", tts / "speech_tokenizer" / "config.json"]
    words += ["--tts-tokenizer", tts, "--llm-tokenizer", folder, "--llm-layers", 2]
    random_models.main([str(word) for word in [folder, *words]])
    patch.undo()
    return folder


def test_the_models_have_the_layouts_that_everything_loads(models: Path) -> None:
    config, projector = load_config(models / "config.yaml"), load_projector(models / "projector")
    tts = load_tts(config)
    assert projector.info.tts_tokenizer_hash == tts.tokenizer_hash and projector.info.llm_size == 64
    before = (models / "tts" / "model.safetensors").stat().st_mtime_ns
    words = ["--tts-config", "x", "--codec-config", "x", "--tts-tokenizer", "x", "--llm-tokenizer", "x", "--no-llm"]
    random_models.main([str(models), *words])
    assert (models / "tts" / "model.safetensors").stat().st_mtime_ns == before, "what is there is kept"


def test_speed_of_a_gguf_folder(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")
    from audio_projection.export import Export

    folder = tmp_path / "exported"
    list(Export(load_config(models / "config.yaml"), str(models / "projector"), "F16", "F16").everything(folder))
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    speed = parity_kit.script("gguf_speed")
    assert speed.main([str(folder), "--threads", "1", "--frames", "2", "--runs", "1", "--layers", "1"]) == 0
    printed = capfd.readouterr().out
    assert re.search(r"^  all +[\d.]+ +[\d.]+ +[\d.]+$", printed, re.MULTILINE)
    assert "LLM prefill for layer 1: " in printed and "talker prefill" in printed and "GB resident" in printed


def test_speed_of_the_fit(capsys: pytest.CaptureFixture[str]) -> None:
    fit_speed.main(["--tokens", "3000", "--inputs", "32", "--outputs", "16", "--vocabulary", "200", "--threads", "1"])
    printed = capsys.readouterr().out
    assert "3,000 tokens, 32 -> 16" in printed and float(printed.split("R2 on new states ")[1]) > 0.5
