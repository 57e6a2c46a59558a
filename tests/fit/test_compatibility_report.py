"""The report before a fit: how LLM and TTS cut the same texts, what the probe found, and the advice."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from audio_projection.config import Config, load_config
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.fit.closed_form import run_fit
from audio_projection.fit.compatibility import Compatibility, TokenMatch, match_tokens
from audio_projection.llm.language_model import load_tokenizer
from audio_projection.projector import Projector
from audio_projection.text.token_spans import byte_spans
from audio_projection.tts.tokenizer import TextTokenizer
from helpers.real_tokenizers import real_tokenizer
from helpers.smollm2 import smollm2_file
from helpers.training import pairs_config, save_llm

TEXTS = ["The quick brown fox jumps over the lazy dog.", "She said hello, and nobody understood her."]
ALIKE = TokenMatch(texts=10, llm_tokens=100, tts_tokens=100, one_to_one=95, one_to_many=2, many_to_one=3)


class Tokens:
    """A model that only cuts text: what `match_tokens` takes of an LLM, or of a TTS."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer

    def tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def as_tts(self) -> Any:
        def tokenize(text: str) -> tuple:
            return self.tokenize(text), byte_spans(self.tokenizer, self.tokenize(text), text)

        return SimpleNamespace(tokenize=tokenize)


def pieces(*vocabulary: str) -> Tokens:
    """A tokenizer that cuts a text into these pieces, from left to right."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(vocabulary)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(vocabulary)), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return Tokens(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def test_each_kind_of_token_is_counted() -> None:
    llm, tts = pieces("abc", "def", "g", "h", "ij"), pieces("abc", "d", "e", "f", "gh", "ij")
    match = match_tokens(llm, tts.as_tts(), ["abcdefghij"])  # type: ignore[arg-type]
    assert match == TokenMatch(1, llm_tokens=5, tts_tokens=6, one_to_one=2, one_to_many=3, many_to_one=1)


def test_a_token_across_a_border_is_several() -> None:
    match = match_tokens(pieces("abc", "de"), pieces("ab", "cde").as_tts(), ["abcde"])  # type: ignore[arg-type]
    assert match == TokenMatch(1, llm_tokens=2, tts_tokens=2, one_to_one=0, one_to_many=1, many_to_one=1)


def nano_tts() -> Any:
    tokenizer = TextTokenizer.from_folder(NANO_FOLDER / "tts")
    return SimpleNamespace(tokenize=tokenizer.encode)


def test_llama_and_qwen_cut_english_alike(shared: Path) -> None:
    llm, tts = (Tokens(real_tokenizer(shared, name)) for name in ("llama3", "qwen2"))
    match = match_tokens(llm, tts.as_tts(), [*TEXTS, "In 1984 it was."])  # type: ignore[arg-type]
    assert (match.llm_tokens, match.tts_tokens) == (26, 28)
    assert (match.one_to_one, match.one_to_many, match.many_to_one) == (25, 3, 0), "three digits are one of Llama's"


ADVICE = [
    (replace(ALIKE, one_to_one=50), {}, "the tokenizers cut text too differently for a clear voice (50% one-to-one)"),
    (ALIKE, {}, "the layer was given, and llm.layers=probe would compare a few"),
    (
        ALIKE,
        {"nearest_row": 0.7, "unseen_tokens": 0},
        "layer 2, the best, tells only 70% of its tokens to a linear map: try",
    ),
    (ALIKE, {"nearest_row": 0.95, "unseen": 0.4, "unseen_tokens": 90}, "that it never met only 40% come out right"),
    (ALIKE, {"nearest_row": 0.95, "unseen": 0.4, "unseen_tokens": 9}, "they go together well: layer 2"),
    (ALIKE, {"nearest_row": 0.95, "unseen": 0.94, "unseen_tokens": 90}, "they go together well: layer 2"),
]


@pytest.mark.parametrize(("match", "result", "words"), ADVICE)
def test_the_advice_is_one_sentence_that_follows_from_the_figures(
    match: TokenMatch, result: dict[str, float], words: str
) -> None:
    probe = {"chosen": 2, "layers": {"1": {"nearest_row": 0.1}, "2": result}} if result else {}
    advice = Compatibility(match, 900, 300, probe).advice
    assert words in advice and "\n" not in advice and ". " not in advice


def test_the_report_says_all_of_it() -> None:
    result = {"r2": 0.8, "nearest_row": 0.981, "seen": 0.985, "unseen": 0.75, "unseen_tokens": 40}
    probe = {"chosen": 1, "layers": {"1": result, "2": {"r2": 0.7, "nearest_row": 0.9, "seen": 0.9}}}
    lines = list(Compatibility(ALIKE, 128_256, 4096, probe).lines())
    assert lines[0] == (
        "compatibility: 10 texts are 100 tokens of the LLM and 100 of the TTS; of these 95.0% are one LLM token "
        "(one-to-one), 2.0% share one with others (one-to-many), 3.0% are several (many-to-one)"
    )
    assert lines[1] == "compatibility: the LLM's vocabulary over its width is 128,256 / 4,096 = 31.3"
    assert lines[2].endswith("on held-out texts: 1: 98.1% (seen 98.5%, unseen 75.0% of 40), 2: 90.0%")
    assert len(lines) == 4 and "only 75% come out right" in lines[3]


def test_a_fit_prints_it_first_and_keeps_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = pairs_config(tmp_path, save_llm(tmp_path / "llm"))
    values["llm"]["layers"] = "probe"
    with caplog.at_level(logging.INFO, logger="audio_projection"):
        folder = run_fit(Config.model_validate(values))
    lines = [record.getMessage() for record in caplog.records]
    places = [number for number, line in enumerate(lines) if line.startswith("compatibility: ")]
    assert len(places) == 4 and places[-1] < next(n for n, line in enumerate(lines) if line.startswith("fit: R2"))
    kept = Projector.from_pretrained(folder).info.measurements["compatibility"]
    assert kept["texts"] == 60 + 14 and kept["width"] == 32 and lines[places[-1]].endswith(kept["advice"])
    assert kept["one_to_one"] + kept["one_to_many"] + kept["many_to_one"] == kept["tts_tokens"]


def test_nano_with_its_own_llm() -> None:
    config = load_config("nano")
    assert config.llm.name == "nano"
    llm = Tokens(load_tokenizer(str(NANO_FOLDER / "llm")))  # type: ignore[arg-type]
    match = match_tokens(llm, nano_tts(), TEXTS)  # type: ignore[arg-type]
    assert match == TokenMatch(2, llm_tokens=48, tts_tokens=45, one_to_one=42, one_to_many=0, many_to_one=3)


@pytest.mark.slow
def test_nano_with_a_real_llm(tmp_path: Path) -> None:
    """One of SmolLM2's tokens is many of nano's pieces."""
    pytest.importorskip("gguf", reason="the gguf package is not installed (audio-projection[gguf])")
    from audio_projection.gguf.reader import read_gguf
    from audio_projection.gguf.tokenizer import read_tokenizer

    llm = Tokens(read_tokenizer(read_gguf(smollm2_file(tmp_path))))  # type: ignore[arg-type]
    match = match_tokens(llm, nano_tts(), TEXTS)  # type: ignore[arg-type]
    assert match == TokenMatch(2, llm_tokens=19, tts_tokens=45, one_to_one=9, one_to_many=36, many_to_one=0)
