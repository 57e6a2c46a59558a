"""A GGUF file as `llm.name`: run by llama.cpp where it is installed, else read by transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from audio_projection import config as configuration
from audio_projection.config import Config, LLMConfig
from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.gguf import dequantised
from audio_projection.gguf.dequantised import load_dequantised
from audio_projection.gguf.language_model import GGUFLanguageModel
from audio_projection.gguf.llm_file import check_llm, write_llm
from audio_projection.llm.language_model import LanguageModel
from audio_projection.models import load_llm
from audio_projection.sampling import Choice
from helpers.tiny_llm import make_tokenizer

TEXTS = ["Good morning.", "The dog said: “good day”, 12 times!"]
MESSAGES = [{"role": "user", "content": "Tell me about the river."}]
LAYERS = [0, 2, 4]


@pytest.fixture(scope="module")
def nano_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llm(NANO_FOLDER / "llm", tmp_path_factory.mktemp("files") / "nano.gguf", "nano", "F32").path


def difference(mine: LanguageModel, theirs: LanguageModel) -> float:
    pairs = zip(mine.states(TEXTS), theirs.states(TEXTS), strict=True)
    return max(float((a.states - b.states).norm() / b.states.norm()) for a, b in pairs)


def test_states_and_answers_are_those_of_the_folder(nano_file: Path) -> None:
    folder = LanguageModel.from_pretrained(NANO_FOLDER / "llm", "float32", layers=LAYERS, context="chat")
    file = load_dequantised(nano_file, layers=LAYERS, context="chat")
    assert (file.tokenizer_hash, file.token_ids_hash) == (folder.tokenizer_hash, folder.token_ids_hash)
    assert (file.hidden_size, file.num_layers, file.name) == (folder.hidden_size, folder.num_layers, str(nano_file))
    assert difference(file, folder) < 1e-6
    assert (file.sampling, file._end_ids()) == (folder.sampling, folder._end_ids())
    mine, theirs = (list(each.generate(MESSAGES, 24, Choice(greedy=True))) for each in (file, folder))
    assert [token.id for token in mine] == [token.id for token in theirs]


def test_llama_3s_scaled_positions_are_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = LlamaConfig(**sizes, vocab_size=len(tokenizer), rope_parameters=scaling)  # type: ignore[arg-type]
    LlamaForCausalLM(settings).eval().save_pretrained(tmp_path / "folder")
    tokenizer.save_pretrained(tmp_path / "folder")
    written = write_llm(tmp_path / "folder", tmp_path / "llm.gguf", "tiny", "F32")
    assert "rope_freqs.weight" in written.tensors
    folder = LanguageModel.from_pretrained(tmp_path / "folder", "float32", layers="last")
    assert difference(load_dequantised(written.path), folder) < 1e-5


def test_scaling_that_transformers_does_not_read_is_refused(nano_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = check_llm(nano_file)
    stretched = replace(file, metadata=file.metadata | {"llama.rope.scaling.type": "yarn"})
    monkeypatch.setattr(dequantised, "check_llm", lambda path: stretched)
    with pytest.raises(AudioProjectionError, match="scaling of positions"):
        load_dequantised(nano_file)


def test_a_file_is_a_name(nano_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(llm=LLMConfig(name=str(nano_file)), device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(configuration, "find_spec", lambda name: None)
        assert type(load_llm(config)) is LanguageModel, "without llama.cpp transformers reads it"
    chosen = config.model_copy(update={"llm": config.llm.model_copy(update={"backend": "transformers"})})
    assert type(load_llm(chosen)) is LanguageModel
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")
    assert type(load_llm(config)) is GGUFLanguageModel


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    for name, found in ((tmp_path / "none.gguf", "is not there"), (tmp_path / "folder.gguf", "is a folder")):
        (tmp_path / "folder.gguf").mkdir(exist_ok=True)
        with pytest.raises(AudioProjectionError, match=f"{name.name} {found}: correct llm.name"):
            load_llm(Config(llm=LLMConfig(name=str(name))))
