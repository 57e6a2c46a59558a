"""The bundled nano LLM: architecture, tokenizer, perplexity against a trigram model, overlap with the TTS's tokens."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from audio_projection.alignment.align import align
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.llm.language_model import LanguageModel
from audio_projection.tts.tokenizer import TextTokenizer
from helpers.paths import REPOSITORY

FOLDER = NANO_FOLDER / "llm"
LINES = (REPOSITORY / "benchmarks" / "heldout.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def llm() -> LanguageModel:
    return LanguageModel.from_pretrained(FOLDER, dtype="float32", device="cpu", layers="last", context="chat")


def test_it_is_an_untied_llama_of_several_layers(model: LlamaForCausalLM) -> None:
    assert type(model) is LlamaForCausalLM
    assert model.config.num_hidden_layers >= 4 and len(model.model.layers) == model.config.num_hidden_layers
    assert not model.config.tie_word_embeddings
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        names = set(file.keys())
        head, table = file.get_tensor("lm_head.weight"), file.get_tensor("model.embed_tokens.weight")
    assert {f"model.layers.{n}.mlp.up_proj.weight" for n in range(model.config.num_hidden_layers)} <= names
    assert not torch.equal(head, table)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 8_000_000


def test_transformers_reads_the_tokenizer_as_it_was_trained() -> None:
    tokenizer, made = AutoTokenizer.from_pretrained(FOLDER), Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    start = tokenizer.bos_token_id
    for text in [*LINES[:20], "It's 1984,  isn't it?\n\nYes…", "Grüße, 世界 🙂"]:
        ids = tokenizer(text).input_ids
        assert ids == made.encode(text).ids and ids[0] == start and ids.count(start) == 1
        assert tokenizer.decode(ids[1:]) == text


def test_perplexity_is_better_than_a_trigrams(model: LlamaForCausalLM) -> None:
    """Perplexity on held-out sentences; the recipe records the trigram's (see the slow test)."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    end = tokenizer.convert_tokens_to_ids("<|end_of_text|>")
    total, count = 0.0, 0
    for text in LINES:
        ids = torch.tensor([*tokenizer(text).input_ids, end])
        with torch.no_grad():
            logits = model(ids[None, :-1]).logits[0]
        total += float(F.cross_entropy(logits, ids[1:], reduction="sum"))
        count += len(ids) - 1
    recorded = json.loads((FOLDER / "training.json").read_text())["perplexity"]["heldout.txt"]
    found = math.exp(total / count)
    assert found == pytest.approx(recorded["model"], rel=0.01)
    assert found < 0.95 * recorded["trigram"]


def test_trigram_is_a_distribution_that_learns(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(repository / "recipes" / "nano"), *sys.path])
    from trigram import Trigram

    generator = torch.Generator().manual_seed(0)
    sampled = torch.randint(1, 6, (200, 9), generator=generator)
    # Each id depends on the two before it, but for one in five.
    for column in range(3, 9):
        ruled = (sampled[:, column - 1] + sampled[:, column - 2]) % 5 + 1
        sampled[:, column] = torch.where(torch.rand(200, generator=generator) < 0.8, ruled, sampled[:, column])
    sequences = [[0, *row] for row in sampled.tolist()]
    trigram = Trigram(sequences[:150], 7)
    for context in ([0], [0, 3], [0, 1, 2], [0, 6, 6]):
        answers = [math.exp(trigram.log_probabilities([[*context, last]])[-1]) for last in range(7)]
        assert sum(answers) == pytest.approx(1) and min(answers) > 0
    assert trigram.perplexity(sequences[150:]) < 4 < 5


def test_a_tenth_of_the_tokens_are_not_one_to_one_with_the_tts() -> None:
    if not (NANO_FOLDER / "tts" / "vocab.json").is_file():
        pytest.skip("the bundled TTS is not there yet")
    tts = TextTokenizer.from_folder(NANO_FOLDER / "tts")
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    total = same = 0
    for text in LINES:
        ends = [0]
        for token in tokenizer.tokenize(text):
            ends.append(ends[-1] + len(token))
        ours = list(zip(ends, ends[1:], strict=False))
        _, theirs = tts.encode(text)
        total, same = total + len(ours), same + len(set(ours) & set(theirs))
        # Each TTS token has an LLM token that ends no earlier than it does.
        chosen = align(ours, theirs)
        assert all(ours[overlap.tokens[-1]][1] >= end for overlap, (_, end) in zip(chosen, theirs, strict=True))
    assert 0.10 <= 1 - same / total <= 0.20


def test_it_answers_with_a_short_sentence_and_ends(llm: LanguageModel) -> None:
    ended = 0
    for number, topic in enumerate(["the river", "the king", "London", "the house"]):
        generator = torch.Generator().manual_seed(number)
        messages = [{"role": "user", "content": f"Tell me about {topic}."}]
        tokens = list(llm.generate(messages, 96, None, generator))
        ended += 4 <= len(tokens) < 96
    assert ended >= 3
