"""Streaming alignment: TTS tokens of a text that is still being generated."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from audio_projection.alignment.align import bind, cover
from audio_projection.alignment.streaming import AnswerToken, LiveAnswer
from audio_projection.llm.language_model import GeneratedToken
from audio_projection.text.token_spans import byte_spans, token_bytes
from audio_projection.tts.tokenizer import TextTokenizer
from helpers.real_tokenizers import real_tokenizer
from helpers.tiny_llm import make_tokenizer

ONE_SPACE = str.maketrans("\t\n\v\f\r", "     ")
EXAMPLES = [
    "Hello there, it's 3.14 o'clock. Dr. Smith said “wow!” Right? 😀 ok",
    "你好。今天天气很好，我们去公园吧！ Mixed text: 日本語のテスト。",
    "Nice 👩‍👩‍👧 family.\n\n- item one\n- item two: don't!  end",
    "שלום עולם. وكيف حالك؟ अच्छा है। ठीक",
    " naïve café 1234567 apples,$5.00 (maybe)... yes",
]
prose = st.lists(
    st.sampled_from(
        ["hello", "Fox", " the", " dog", ".", "!", "?", ",", " ", "\n", "\n\n", "'s", "’t", " 3.14", "日本", "。", "👍"]
        + ["e\u0301", "\u0301", "है", "।", " Dr.", "؟", "-", " (", ")", "“", "”", "\u200d"]
    ),
    max_size=40,
).map("".join)


def nfc_tokenizer() -> TextTokenizer:
    """The TTS's kind of tokenizer: byte-level, NFC; its template tokens are not needed here."""
    backend = Tokenizer.from_str(make_tokenizer().backend_tokenizer.to_str())
    backend.normalizer = normalizers.NFC()
    return TextTokenizer(backend)


TTS = nfc_tokenizer()


def spoken_tokens(text: str, llm: PreTrainedTokenizerFast) -> list[GeneratedToken]:
    """Tokens of the text, with a state of its own for each."""
    ids = llm(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    pieces = token_bytes(llm)
    return [GeneratedToken(token, pieces(token), state_of(i)) for i, token in enumerate(ids)]


def state_of(number: int) -> torch.Tensor:
    return torch.randn(1, 8, generator=torch.Generator().manual_seed(number))


def streamed(text: str, llm: PreTrainedTokenizerFast, tts: TextTokenizer, longest: int) -> list[list[AnswerToken]]:
    """The TTS tokens of each sentence."""
    return [list(sentence) for sentence in LiveAnswer(spoken_tokens(text, llm), tts, longest).sentences()]


def check_against_the_whole(text: str, llm: PreTrainedTokenizerFast, tts: TextTokenizer) -> None:
    """Each sentence has the tokens and the alignment that it has when the text is known from the start."""
    said = spoken_tokens(text, llm)
    llm_spans, states = byte_spans(llm, [token.id for token in said], text), [token.state for token in said]
    whole, place = text.translate(ONE_SPACE), 0
    for tokens in streamed(text, llm, tts, longest=10_000):
        given = tts.backend.decode([token.id for token in tokens])
        ids, spans = tts.encode(given)
        assert [token.id for token in tokens] == ids
        place = whole.index(given, place)
        base = len(whole[:place].encode())
        overlaps = cover(llm_spans, [(start + base, end + base) for start, end in spans])
        assert torch.equal(torch.stack([token.state for token in tokens]), bind(torch.stack(states), overlaps))
        place += len(given)


@settings(max_examples=100, deadline=None)
@given(prose.filter(lambda text: "\u0301" not in text))
def test_tokens_and_states_are_those_of_the_finished_text(text: str) -> None:
    check_against_the_whole(text, make_tokenizer(), TTS)


@lru_cache(maxsize=1)
def qwen_with_nfc(shared: Path) -> TextTokenizer:
    qwen = Tokenizer.from_file(str(shared / "data" / "tokenizers" / "qwen2" / "tokenizer.json"))
    qwen.normalizer = normalizers.NFC()
    return TextTokenizer(qwen)


@pytest.mark.parametrize("text", EXAMPLES)
def test_real_tokenizers(shared: Path, text: str) -> None:
    llama = real_tokenizer(shared, "llama3")
    check_against_the_whole(text, llama, qwen_with_nfc(shared))


@settings(max_examples=100, deadline=None)
@given(prose)
def test_composed_letters_have_the_tokens_of_the_finished_text(text: str) -> None:
    live = LiveAnswer(spoken_tokens(text, make_tokenizer()), TTS, 10_000)
    for sentence in live.sentences():
        ids = [token.id for token in sentence]
        assert TTS.ids(TTS.backend.decode(ids)) == ids


@settings(max_examples=100, deadline=None)
@example("e\u0301e\u0301e\u0301hello", 5)  # no room: cut anywhere, but not between a letter and its accent
@given(prose, st.integers(5, 40))
def test_every_word_is_spoken_and_no_sentence_is_too_long(text: str, longest: int) -> None:
    sentences = streamed(text, make_tokenizer(), TTS, longest)
    spoken = [TTS.backend.decode([token.id for token in tokens]) for tokens in sentences]
    assert letters("".join(spoken)) == letters(unicodedata.normalize("NFC", text))
    # a word and the stop that ends the sentence may come together
    assert all(len(sentence) <= longest + 12 for sentence in spoken)


def letters(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


@pytest.mark.parametrize(
    ("text", "longest", "sentences"),
    [
        ("Hello there. How are you?", 60, ["Hello there.", "How are you?"]),
        ("one two three, four five six, seven", 24, ["one two three,", "four five six,", "seven"]),
        ("one two three four five six seven eight nine", 18, ["one two three four", "five six seven", "eight nine"]),
        ("so it costs 1,000,000.00 now, they say today", 24, ["so it costs 1,000,000.00", "now, they say today"]),
        ("日本語日本語、日本語日本。日本", 8, ["日本語日本語、", "日本語日本。", "日本"]),
        ("abcdefghijklmnopqrstuvwxyz" * 2, 16, ["abcdefghijklmnop", "qrstuvwxyzabcdef", "ghijklmnopqrstuvwxyz"]),
        ("The U.S. Army left the U.S. A day.", 60, ["The U.S. Army left the U.S.", "A day."]),
        ("👍 ... Good. - ! Day", 60, ["Good.", "Day"]),
        (" ... ", 60, []),
        ("", 60, []),
    ],
)
def test_sentences(text: str, longest: int, sentences: list[str]) -> None:
    found = streamed(text, make_tokenizer(), TTS, longest)
    assert [TTS.backend.decode([token.id for token in tokens]) for tokens in found] == sentences


def test_a_word_is_yielded_as_soon_as_it_is_complete() -> None:
    pulled = 0

    def answer() -> Iterator[GeneratedToken]:
        nonlocal pulled
        for number, piece in enumerate(["The", " quick", " brown", " fox", " said", " hello", "."]):
            pulled += 1
            yield GeneratedToken(number, piece.encode(), torch.tensor([[float(number)]]))

    live = LiveAnswer(answer(), TTS, 60)
    sentence = next(live.sentences())
    seen = [(int(token.state), pulled) for token in sentence]
    first_pulled = dict(reversed(seen))
    assert first_pulled == {0: 2, 1: 3, 2: 4, 3: 5, 4: 6, 5: 7, 6: 7}


def test_characters_that_come_in_parts_and_broken_bytes() -> None:
    pieces = [b"a ", "日".encode()[:1], "日".encode()[1:], b" \xe6", b"b", b" c"]
    generated = [GeneratedToken(i, piece, torch.tensor([[float(i)]])) for i, piece in enumerate(pieces)]
    live = LiveAnswer(generated, TTS, 60)
    tokens = [token for sentence in live.sentences() for token in sentence]
    assert TTS.backend.decode([token.id for token in tokens]) == live.spoken == "a 日 b c"
    assert [int(token.state) for token in tokens][-2:] == [5, 5] and int(tokens[0].state) == 0


def test_tokens_that_are_not_consumed_are_skipped() -> None:
    live = LiveAnswer(spoken_tokens("hello there the dog. Good day.", make_tokenizer()), TTS, 60)
    sentences = live.sentences()
    next(next(sentences))
    assert [TTS.backend.decode([token.id for token in rest]) for rest in sentences] == ["Good day."]
    assert live.spoken == "hello Good day."
