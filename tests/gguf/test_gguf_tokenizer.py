"""How GGUF files cut text: llama.cpp's names of pre-tokenizers, and files that do not say or say it wrongly."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gguf", reason="the gguf package is not installed (audio-projection[gguf])")

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from audio_projection.errors import AudioProjectionError
from audio_projection.gguf.language_model import GGUFLanguageModel
from audio_projection.gguf.llm_file import check_llm
from audio_projection.gguf.reader import GGUFFile, read_gguf
from audio_projection.gguf.tokenizer import ALIASES, PRE_TOKENIZERS, read_tokenizer, vocabulary_keys
from audio_projection.gguf.writer import PlannedTensor, write_gguf
from audio_projection.llm.language_model import SAMPLE_TEXTS, LanguageModel, token_ids_hash, vocabulary_hash
from audio_projection.projector import check_matches
from helpers.gguf_files import llm_file, tiny_projector

NAMES = [*PRE_TOKENIZERS, *(alias for others in ALIASES.values() for alias in others)]
PRE = "tokenizer.ggml.pre"


def rewritten(file: GGUFFile, path: Path, **changes: Any) -> GGUFFile:
    """The file with other metadata; a value of None leaves a key out. Keys are given with __ for dots."""
    metadata = {key: value for key, value in file.metadata.items() if "seal" not in key and key not in WRITTEN}
    for key, value in changes.items():
        metadata[key.replace("__", ".")] = value
    tensors = [
        PlannedTensor(name, info.shape, lambda name=name: file.array(name)) for name, info in file.tensors.items()
    ]
    return write_gguf(path, file.architecture, {k: v for k, v in metadata.items() if v is not None}, tensors, "F32")


WRITTEN = {"general.architecture", "general.alignment", "general.file_type", "general.quantization_version"}
"""Keys that the writer adds itself."""


def llama_cpp_ids(path: Path, texts: tuple[str, ...]) -> list[list[int]]:
    from llama_cpp import llama_cpp as library

    from audio_projection.gguf.llama_cpp_runtime import quiet_library

    quiet_library()
    parameters = library.llama_model_default_params()
    parameters.vocab_only = True
    model = library.llama_model_load_from_file(str(path).encode(), parameters)
    vocabulary, ids, found = library.llama_model_get_vocab(model), (ctypes.c_int32 * 500)(), []
    for text in texts:
        written = text.encode()
        count = library.llama_tokenize(vocabulary, written, len(written), ids, 500, False, False)
        found.append(list(ids[:count]))
    library.llama_model_free(model)
    return found


@pytest.fixture(scope="module")
def vocabulary() -> dict[str, Any]:
    """Tokens that were merged over the borders of words, so that each name cuts the sample texts in its own way."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [*SAMPLE_TEXTS] * 2, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return vocabulary_keys(backend, backend.get_vocab_size())


@pytest.mark.parametrize("name", NAMES)
def test_every_name_cuts_as_llama_cpp_does(tmp_path: Path, vocabulary: dict[str, Any], name: str) -> None:
    """But for NFC, which Qwen's own tokenizer has and llama.cpp leaves out."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")
    file = write_gguf(tmp_path / "v.gguf", "llama", vocabulary | {PRE: name}, [], "F32")
    tokenizer, texts = read_tokenizer(read_gguf(file.path)), tuple(text.replace("e\u0301", "") for text in SAMPLE_TEXTS)
    mine = [tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in texts]
    assert mine == llama_cpp_ids(file.path, texts)


def test_the_names_cut_differently(tmp_path: Path, vocabulary: dict[str, Any]) -> None:
    hashes = set()
    for name in PRE_TOKENIZERS:
        file = write_gguf(tmp_path / f"{name}.gguf", "llama", vocabulary | {PRE: name}, [], "F32")
        tokenizer = read_tokenizer(read_gguf(file.path))
        hashes.add(token_ids_hash(tokenizer))
    assert len(hashes) == len(PRE_TOKENIZERS), "the sample texts must tell them apart"


def test_a_file_that_does_not_say_how_it_cuts_is_refused(tmp_path: Path) -> None:
    file = rewritten(read_gguf(llm_file(tmp_path)), tmp_path / "other.gguf", tokenizer__ggml__pre=None)
    with pytest.raises(AudioProjectionError, match="tokenizer.ggml.pre is missing.*convert the model again"):
        read_tokenizer(file)
    file = rewritten(read_gguf(llm_file(tmp_path)), tmp_path / "odd.gguf", tokenizer__ggml__pre="chameleon")
    with pytest.raises(AudioProjectionError, match="'chameleon'; known is 'gpt2' with llama-bpe"):
        read_tokenizer(file)


def test_a_file_that_cuts_otherwise_than_the_projectors_llm_is_refused(
    tmp_path: Path, vocabulary: dict[str, Any]
) -> None:
    def llm(name: str) -> Any:
        file = write_gguf(tmp_path / f"{name}.gguf", "llama", vocabulary | {PRE: name}, [], "F32")
        tokenizer = read_tokenizer(read_gguf(file.path))
        hashes = {"tokenizer_hash": vocabulary_hash(tokenizer), "token_ids_hash": token_ids_hash(tokenizer)}
        return SimpleNamespace(name=name, hidden_size=64, **hashes)

    right, wrong = llm("gpt-2"), llm("smollm")
    assert wrong.tokenizer_hash == right.tokenizer_hash
    info = tiny_projector(llm_tokenizer_hash=right.tokenizer_hash, llm_token_ids_hash=right.token_ids_hash).info
    tts: Any = SimpleNamespace(config=SimpleNamespace(hidden_size=32), tokenizer_hash="")
    check_matches(info, right, tts)
    with pytest.raises(AudioProjectionError, match="LLM smollm has the vocabulary .* cuts text otherwise.*ggml.pre"):
        check_matches(info, wrong, tts)


def test_both_back_ends_cut_alike(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")
    mine = GGUFLanguageModel(llm_file(tmp_path))
    assert mine.token_ids_hash == LanguageModel.from_pretrained(tmp_path / "llm").token_ids_hash


def test_a_part_of_a_split_file_is_named(tmp_path: Path) -> None:
    whole = read_gguf(llm_file(tmp_path))
    file = rewritten(whole, tmp_path / "llm-00001-of-00003.gguf", split__count=3, split__no=0)
    with pytest.raises(AudioProjectionError, match="00001-of-00003.gguf is part 1 of 3 .*llama-gguf-split --merge"):
        check_llm(file.path)


def test_a_file_without_chat_template_says_the_way_on(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")
    file = rewritten(read_gguf(llm_file(tmp_path)), tmp_path / "other.gguf", tokenizer__chat_template=None)
    with pytest.raises(AudioProjectionError, match="no chat template.*gguf-new-metadata --chat-template.*context=raw"):
        GGUFLanguageModel(file.path, context="chat")
    assert GGUFLanguageModel(file.path, context="raw").states(["hello"])


def test_a_tokenizer_with_other_parts_gets_no_wrong_name() -> None:
    backend = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for part, expected in (
        (byte_level, "gpt-2"),
        (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]), "smollm"),
    ):
        backend.pre_tokenizer = part
        assert vocabulary_keys(backend, 2)[PRE] == expected
    for part in (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), byte_level]),
        pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), byte_level]),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
    ):
        backend.pre_tokenizer = part
        with pytest.raises(AudioProjectionError, match="has no name here"):
            vocabulary_keys(backend, 2)
