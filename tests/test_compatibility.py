"""Files written before the package was moved into folders load, and give the numbers that the old code gave with them.

tests/fixtures/before_move/make.py wrote them, with the code of the commit before the move.
"""

from __future__ import annotations

import gzip
import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from audio_projection.config import load_config
from audio_projection.inference import Voice
from audio_projection.projector import Projector
from audio_projection.train import run_training
from audio_projection.tts import Sampling
from audio_projection.tts.codec.codec import CodecStream
from helpers import parity_kit
from helpers.paths import FIXTURES

STORED = FIXTURES / "before_move"
EXPECTED = load_file(STORED / "expected.safetensors")
TEXT = "hello there the quick brown fox"
RUNS = [("config", "linear"), ("lora", "lora")]
"""Configuration files, and the projectors that their training runs ended with."""


def one_layer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("one_layer", STORED / "one_layer.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stored files with the TTS that they were made with, as the working directory."""
    folder = tmp_path / "files"
    shutil.copytree(STORED, folder)
    parity_kit.assemble("tiny_base", tmp_path)
    one_layer().keep_one_layer(shutil.move(tmp_path / "tiny_base", folder / "tts"))
    monkeypatch.chdir(folder)
    return folder


def codes(voice: Voice, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The codes (T, G) of TEXT, greedily, at most 12 frames."""
    voice.defaults = replace(voice.defaults, sampling=Sampling.greedy(), max_frames=12)
    decode = voice.tts.codec.decode_together
    chunks: list[Tensor] = []

    def recorded(streams: Sequence[CodecStream], codes: Tensor) -> Tensor:
        chunks.append(codes[0])
        return decode(streams, codes)

    monkeypatch.setattr(voice.tts.codec, "decode_together", recorded)
    voice.speak(TEXT)
    return torch.cat(chunks)


def assert_same_weights(projector: Projector, expected: Path) -> None:
    """Equal up to another processor's rounding; a training step changes the weights by 0.01."""
    weights, wanted = projector.state_dict(), load_file(expected / "projector.safetensors")
    torch.testing.assert_close(projector.voice_vector, wanted.pop("voice"))
    assert list(weights) == list(Projector.from_pretrained(expected).state_dict()) and weights.keys() == wanted.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, wanted[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "residual", "lora"])
def test_projectors_give_the_same_embeddings(name: str) -> None:
    projector = Projector.from_pretrained(STORED / "projectors" / name)
    projected = projector(EXPECTED["states"], EXPECTED["embeddings"]).detach()
    torch.testing.assert_close(projected, EXPECTED[f"projected.{name}"])
    assert isinstance(projector.voice, Tensor)


@pytest.mark.parametrize(("config", "projector"), RUNS)
def test_projectors_speak_the_same_codes(
    folder: Path, config: str, projector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the talker's LoRA adapter, too."""
    if projector == "lora":
        pytest.importorskip("peft", reason="peft is not installed (audio-projection[finetune])")
    voice = Voice.from_config(f"{config}.yaml", projector=str(folder / "projectors" / projector))
    assert torch.equal(codes(voice, monkeypatch), EXPECTED[f"codes.{config}"])


@pytest.mark.parametrize(("config", "projector"), RUNS)
def test_training_resumes_on_its_pairs_and_reaches_the_same_weights(folder: Path, config: str, projector: str) -> None:
    """From the checkpoint of step 2 to step 4, on pairs with x-vectors and cached LLM states."""
    if projector == "lora":
        pytest.importorskip("peft", reason="peft is not installed (audio-projection[finetune])")
    outcome = run_training(load_config(f"{config}.yaml"))
    assert outcome.finished and outcome.step == 4
    stored = folder / "projectors" / projector
    assert_same_weights(Projector.from_pretrained(outcome.projector), stored)
    if projector == "lora":
        trained, wanted = (
            load_file(each / "adapter" / "adapter_model.safetensors") for each in (outcome.projector, stored)
        )
        assert list(trained) == list(wanted)
        for name, weight in trained.items():
            torch.testing.assert_close(weight, wanted[name], rtol=1e-3, atol=1e-5)


def test_a_gguf_projector_is_that_of_the_folder() -> None:
    pytest.importorskip("gguf", reason="the gguf package is not installed (audio-projection[gguf])")
    from audio_projection.gguf.projector_file import read_projector

    projector, stored = read_projector(STORED / "exported" / "projector.gguf"), STORED / "projectors" / "linear"
    assert projector.info == Projector.from_pretrained(stored).info
    assert_same_weights(projector, stored)


@pytest.mark.parametrize("talker", ["torch", "gguf"])
def test_an_exported_folder_speaks_the_same_codes(folder: Path, talker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The LLM and the projector from GGUF; talker and code predictor by torch, or from GGUF too."""
    pytest.importorskip("gguf", reason="the gguf package is not installed (audio-projection[gguf])")
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")
    exported = folder / "exported"
    if talker == "gguf":
        (exported / "talker.gguf").write_bytes(gzip.decompress((exported / "talker.gguf.gz").read_bytes()))
        one_layer().keep_rest(shutil.copytree("tts", exported / "tts"))
        voice, name = Voice.from_config(exported / "config.yaml"), "gguf"
    else:
        voice, name = Voice.from_config(exported / "config.yaml", ["tts.backend=torch", "tts.name=tts"]), "gguf-llm"
    assert torch.equal(codes(voice, monkeypatch), EXPECTED[f"codes.{name}"])


def test_the_stored_codes_are_speech_of_their_models() -> None:
    """What would be equal by chance proves nothing: frames differ, and so do the codes of different models."""
    spoken = [EXPECTED[f"codes.{name}"] for name in ("config", "lora", "gguf", "gguf-llm")]
    assert all(each.shape == (12, 16) and len(each.unique(dim=0)) > 6 for each in spoken)
    assert not torch.equal(spoken[0], spoken[1]) and not torch.equal(spoken[2], spoken[3])
