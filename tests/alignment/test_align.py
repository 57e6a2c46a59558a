"""Alignment of LLM and TTS tokens by byte offsets, on synthetic spans and on real tokenizers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from audio_projection.alignment.align import Overlap, align
from audio_projection.errors import AudioProjectionError
from audio_projection.text.token_spans import Span, byte_spans, token_bytes
from helpers.real_tokenizers import real_tokenizer
from helpers.tiny_llm import make_tokenizer

TEXTS = [
    "Hello world",
    'In 1234567 days, $3.14 or 50% of it: (don\'t!) "stop"...',
    "日本語のテスト。今天天气很好！한국어도",
    "👩‍👩‍👧‍👦 family 🇫🇷 flag 👍🏽",
    "naïve café Ünïcödé ﬁ ẞ",
    "  odd \t\tspacing\n\n\n here\u00a0and\u3000there  ",
    "שלום עולם وكيف حالك؟ mixed with English",
    "यह हिन्दी है। ไทย ქართული",
    "𓀀𓀁 𝕳𝖊𝖑𝖑𝖔",
    "e\u0301te\u0301 \u1100\u1161\u11a8 q\u0323\u0307",
    "a <|im_end|> b <|eot_id|> c",
]


def spans_from_cuts(cuts: list[int], size: int) -> list[Span]:
    return list(pairwise(sorted({0, size, *(cut % (size + 1) for cut in cuts)})))


cuts = st.lists(st.integers(0, 60), max_size=30)


@given(cuts, cuts, st.integers(1, 60))
def test_each_tts_token_takes_the_llm_tokens_that_overlap_it(a: list[int], b: list[int], size: int) -> None:
    llm, tts = spans_from_cuts(a, size), spans_from_cuts(b, size)
    for (start, end), chosen in zip(tts, align(llm, tts), strict=True):
        overlapping = [index for index, (first, last) in enumerate(llm) if first < end and last > start]
        assert list(chosen.tokens) == overlapping
        assert llm[chosen.tokens[-1]][1] >= end  # it has seen all of the TTS token


@given(cuts, cuts, st.integers(1, 60))
def test_no_two_tts_tokens_have_the_same_overlap(a: list[int], b: list[int], size: int) -> None:
    chosen = align(spans_from_cuts(a, size), spans_from_cuts(b, size))
    assert len({(overlap.tokens[-1], overlap.turn) for overlap in chosen}) == len(chosen)


@given(cuts, st.integers(1, 60))
def test_the_same_tokens_align_one_to_one(places: list[int], size: int) -> None:
    spans = spans_from_cuts(places, size)
    assert align(spans, spans) == [Overlap((index,), 0) for index in range(len(spans))]


@pytest.mark.parametrize(
    ("llm", "tts", "chosen"),
    [
        ([(0, 6)], [(0, 2), (2, 4), (4, 6)], [((0,), 1), ((0,), 2), ((0,), 3)]),  # one to many
        ([(0, 2), (2, 4), (4, 6)], [(0, 6)], [((0, 1, 2), 0)]),  # many to one
        ([(0, 3), (3, 6)], [(0, 2), (2, 4), (4, 6)], [((0,), 1), ((0, 1), 1), ((1,), 2)]),  # across
        # empty spans are never chosen
        ([(0, 0), (0, 3), (3, 3), (3, 6)], [(0, 3), (3, 6)], [((1,), 0), ((3,), 0)]),
        ([(0, 3), (3, 3), (3, 6)], [(0, 6)], [((0, 2), 0)]),
        # a gap: the nearest earlier one
        ([(0, 2), (4, 6)], [(0, 2), (2, 3), (3, 4), (4, 6)], [((0,), 0), ((0,), 1), ((0,), 2), ((1,), 0)]),
        ([(2, 6)], [(0, 1), (1, 6)], [((0,), 1), ((0,), 2)]),  # nothing earlier: the first
        ([(0, 3), (0, 3), (0, 3)], [(0, 1), (1, 3)], [((0, 1, 2), 1), ((0, 1, 2), 2)]),  # parts of one character
        ([], [], []),
    ],
)
def test_examples(llm: list[Span], tts: list[Span], chosen: list[tuple[tuple[int, ...], int]]) -> None:
    assert align(llm, tts) == [Overlap(*overlap) for overlap in chosen]


@pytest.mark.parametrize(
    ("llm", "tts", "words"),
    [
        ([(0, 5)], [(0, 6)], "cover 5 bytes and the TTS tokens 6"),
        ([], [(0, 6)], "cover 0 bytes"),
        ([(3, 6), (0, 3)], [(0, 3)], "LLM token spans are not in text order"),
        ([(0, 3)], [(2, 3), (0, 3)], "TTS token spans are not in text order"),
    ],
)
def test_spans_of_other_texts_are_refused(llm: list[Span], tts: list[Span], words: str) -> None:
    with pytest.raises(AudioProjectionError, match=words):
        align(llm, tts)


@pytest.fixture(params=["llama3", "qwen2"])
def real(request: pytest.FixtureRequest, shared: Path) -> PreTrainedTokenizerFast:
    return real_tokenizer(shared, request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_spans_of_real_tokenizers_are_their_bytes(real: PreTrainedTokenizerFast, text: str) -> None:
    ids = real(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    data, spans = text.encode(), byte_spans(real, ids, text)
    assert [data[start:end] for start, end in spans] == [token_bytes(real)(token) for token in ids]
    assert b"".join(data[start:end] for start, end in spans) == data


@pytest.mark.parametrize("text", TEXTS)
def test_real_tokenizers_align(shared: Path, text: str) -> None:
    spans = []
    for name in ("llama3", "qwen2"):
        tokenizer = real_tokenizer(shared, name)
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        spans.append(byte_spans(tokenizer, ids, text))
    llm, tts = spans
    overlaps = align(llm, tts)
    chosen = [overlap.tokens[-1] for overlap in overlaps]
    assert len(chosen) == len(tts) and chosen == sorted(chosen)
    assert len({(overlap.tokens[-1], overlap.turn) for overlap in overlaps}) == len(tts)  # none is another's state
    for (_, end), index in zip(tts, chosen, strict=True):
        assert llm[index][0] < end <= llm[index][1]


def test_each_digit_has_its_turn(shared: Path) -> None:
    """Llama 3 takes three digits at once, Qwen each alone."""
    spans = []
    for name in ("llama3", "qwen2"):
        tokenizer = real_tokenizer(shared, name)
        ids = tokenizer("1984", add_special_tokens=False)["input_ids"]
        spans.append(byte_spans(tokenizer, ids, "1984"))
    assert align(*spans) == [Overlap((0,), 1), Overlap((0,), 2), Overlap((0,), 3), Overlap((1,), 0)]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_byte_level_spans_partition_any_text(text: str) -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    spans = byte_spans(tokenizer, ids, text)
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert not text or (spans[0][0], spans[-1][1]) == (0, len(text.encode()))


def normalising(normalizer: object) -> PreTrainedTokenizerFast:
    backend = Tokenizer.from_str(make_tokenizer().backend_tokenizer.to_str())
    backend.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@given(st.text(st.sampled_from("ae \u0301\u0323\u0334q\u1100\u1161\u11a8日")))
def test_spans_through_nfc_cover_the_text_as_it_was_given(text: str) -> None:
    tokenizer = normalising(normalizers.NFC())
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    spans = byte_spans(tokenizer, ids, text)
    assert len(spans) == len(ids)
    if spans:
        assert spans[0][0] == 0 and max(end for _, end in spans) == len(text.encode())
    assert all(before <= after for pair in pairwise(spans) for before, after in zip(*pair, strict=True))


def test_a_composed_letter_has_the_bytes_of_all_its_parts() -> None:
    tokenizer = normalising(normalizers.NFC())
    text = "e\u0301a"  # 1 + 2 + 1 bytes, composed 2 + 1
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert byte_spans(tokenizer, ids, text) == [(0, 3), (0, 3), (3, 4)]


def test_a_lowercasing_tokenizer() -> None:
    tokenizer = normalising(normalizers.Lowercase())
    ids = tokenizer("HELLO Ä", add_special_tokens=False)["input_ids"]
    assert byte_spans(tokenizer, ids, "HELLO Ä")[-1][1] == 8


def sentencepiece() -> PreTrainedTokenizerFast:
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"\u2581": 256, "a": 257, "b": 258, "é": 259}
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_sentencepiece_style_tokens() -> None:
    tokenizer = sentencepiece()
    text = "ab 日é"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert byte_spans(tokenizer, ids, text) == [(0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 8)]


def test_special_and_padding_tokens_have_no_bytes() -> None:
    tokenizer = make_tokenizer()
    hello = tokenizer("hello", add_special_tokens=False)["input_ids"]
    spans = byte_spans(tokenizer, [0, *hello, 1, len(tokenizer) + 2], "hello")
    assert spans[0] == (0, 0) and spans[-2:] == [(5, 5), (5, 5)]


def test_tokens_of_another_text_are_refused() -> None:
    tokenizer = make_tokenizer()
    with pytest.raises(AudioProjectionError, match="do not spell the text 'fox'"):
        byte_spans(tokenizer, tokenizer("dog")["input_ids"], "fox")
