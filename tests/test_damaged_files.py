"""Checkpoints with a damaged JSON or text file: they load, or one line says what is wrong; never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from audio_projection.config import LLMConfig
from audio_projection.data.pairs import PairFolder
from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import NANO_FOLDER, find_model
from audio_projection.files.tensor_folder import TensorFolder
from audio_projection.llm.language_model import LanguageModel
from audio_projection.projector import Projector
from audio_projection.text.characters import read_characters
from audio_projection.tts import Qwen3TTS
from audio_projection.tts.finetune import LoraFinetuning, load_finetuned
from audio_projection.tts.tokenizer import TextTokenizer
from helpers import parity_kit
from helpers.damage import mutations
from helpers.gguf_files import tiny_llm_folder, tiny_projector
from helpers.training import make_pairs, own_tts

OPTIONAL = ("generation_config.json", "chat_template.jinja")
"""Files that say little, so that most damage to them is none."""

FEW, MANY = 24, 200
COUNTS = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]
TTS_FILES = [
    "config.json",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "speech_tokenizer/config.json",
]
LLM_FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]


def assert_words(load: Callable[[], Any], path: Path, count: int) -> None:
    """Loads with each damaged form of a file; whatever is raised must be an error in words."""
    whole = path.read_bytes()
    refused = 0
    for number, damaged in enumerate(mutations(whole, count, seed=len(whole))):
        path.write_bytes(damaged)
        try:
            load()
        except AudioProjectionError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 1500, f"mutation {number}"
        except BaseException as error:
            raise AssertionError(f"mutation {number} of {path.name}: {damaged[:300]!r}") from error
    path.write_bytes(whole)
    load()
    assert refused or path.name in OPTIONAL, "no damage was noticed"


def use_tts(folder: Path) -> None:
    tts = Qwen3TTS.from_pretrained(folder)
    ids, _ = tts.tokenize("Hello there, 12 dogs.")
    tts.prefix("ada" if "ada" in tts.config.talker.speakers else None, "auto")
    assert tts.text_embeddings(torch.tensor(ids)).ndim == 2
    assert tts.sampling is not None


def use_llm(folder: Path) -> None:
    llm = LanguageModel.from_pretrained(folder, context="chat")
    llm.states(["hello there"])
    next(iter(llm.generate([{"role": "user", "content": "hello"}], 1)), None)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", TTS_FILES)
def test_files_of_a_speech_model(tmp_path: Path, name: str, count: int) -> None:
    folder = parity_kit.assemble("tiny_custom_voice", tmp_path)
    assert_words(lambda: use_tts(folder), folder / name, count)


@pytest.mark.parametrize("count", COUNTS)
def test_tokenizer_json_of_a_speech_model(tmp_path: Path, count: int) -> None:
    folder = parity_kit.assemble("tiny_custom_voice", tmp_path)
    TextTokenizer.from_folder(folder).backend.save(str(folder / "tokenizer.json"))
    assert_words(lambda: TextTokenizer.from_folder(folder).encode("Hello there."), folder / "tokenizer.json", count)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", LLM_FILES)
def test_files_of_a_language_model(tmp_path: Path, name: str, count: int) -> None:
    folder = tiny_llm_folder(tmp_path)
    if not (folder / name).is_file():
        pytest.skip(f"this version of transformers writes no {name}")
    assert_words(lambda: use_llm(folder), folder / name, count)


@pytest.mark.parametrize("count", COUNTS)
def test_a_projectors_record(tmp_path: Path, count: int) -> None:
    tiny_projector().save_pretrained(tmp_path)
    assert_words(lambda: Projector.from_pretrained(tmp_path), tmp_path / "projector.json", count)


@pytest.mark.parametrize("count", COUNTS)
def test_the_index_of_shards(tmp_path: Path, count: int) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.ones(3)}, tmp_path / "model-2.safetensors")
    places = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 20}, "weight_map": places}))
    (tmp_path / "config.json").write_text("{}")

    def load() -> None:
        find_model(LLMConfig(name=str(tmp_path)), None)
        files = TensorFolder(tmp_path)
        assert [files.tensor(name).shape for name in files.names()] and files.shapes()

    assert_words(load, index, count)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["pairs.json", "part-00000.json"])
def test_records_of_pairs(tmp_path: Path, name: str, count: int) -> None:
    PairFolder(tmp_path, {"parts": 1, "codec": "0123"}).add(make_pairs(3, voice=torch.arange(4.0)))
    assert_words(lambda: PairFolder(tmp_path).read(), tmp_path / name, count)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["base.json", "adapter_config.json"])
def test_records_of_a_fine_tuned_talker(tmp_path: Path, name: str, count: int) -> None:
    pytest.importorskip("peft", reason="peft is not installed (audio-projection[finetune])")
    LoraFinetuning(own_tts(), 4, 8.0, seed=0).save(tmp_path, {})
    assert_words(lambda: load_finetuned(own_tts(), "lora", tmp_path), tmp_path / "adapter" / name, count)


@pytest.mark.parametrize("count", COUNTS)
def test_the_list_of_characters(tmp_path: Path, count: int) -> None:
    shutil.copy(NANO_FOLDER / "tts" / "characters.json", tmp_path)
    assert_words(lambda: read_characters(tmp_path), tmp_path / "characters.json", count)


def test_an_adapter_that_leaves_some_of_its_matrices_out_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed (audio-projection[finetune])")
    LoraFinetuning(own_tts(), 4, 8.0, seed=0).save(tmp_path, {})
    path = tmp_path / "adapter" / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"target_modules": r".*\.o_proj"}), encoding="utf-8")
    with pytest.raises(AudioProjectionError, match=r"adapter_config.json asks for \d+ matrices, .* has \d+; copy or"):
        load_finetuned(own_tts(), "lora", tmp_path)


def test_a_merge_that_the_vocabulary_does_not_know(tmp_path: Path) -> None:
    folder = parity_kit.assemble("tiny_custom_voice", tmp_path)
    with (folder / "merges.txt").open("a", encoding="utf-8") as file:
        file.write("qqq zzz\n")
    with pytest.raises(AudioProjectionError, match=r"vocab.json and merges.txt do not fit.*qqq.*download them again"):
        TextTokenizer.from_folder(folder)


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "text_vocab_size"])
def test_absurd_sizes_are_refused_at_once(tmp_path: Path, key: str) -> None:
    folder = parity_kit.assemble("tiny_custom_voice", tmp_path)
    values = json.loads((folder / "config.json").read_text())
    values["talker_config"][key] = 10**12
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(AudioProjectionError, match=key):
        Qwen3TTS.from_pretrained(folder)
