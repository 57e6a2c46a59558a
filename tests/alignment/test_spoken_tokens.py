"""Which tokens of an answer are spoken, and which states go with them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from hypothesis import given
from hypothesis import strategies as st

from audio_projection.alignment.spoken_tokens import SpokenTokens
from audio_projection.llm.language_model import GeneratedToken
from audio_projection.text.markup import ANSWER, read_plain


def tokens_of(pieces: list[bytes]) -> list[GeneratedToken]:
    return [GeneratedToken(number, piece, torch.tensor([[float(number)]])) for number, piece in enumerate(pieces)]


def spoken(pieces: list[bytes]) -> list[tuple[int, bytes]]:
    return [(int(token.state), token.piece) for token in SpokenTokens(tokens_of(pieces))]


def test_tokens_that_are_left_out_take_their_states_with_them() -> None:
    pieces = [
        b"Use",
        b" **",
        b"bold",
        b"**",
        b" and",
        b" `",
        b"x",
        b"`.",
        b"\n\n",
        b"```",
        b"a = 1\n",
        b"```",
        b"\n",
        b"Done",
    ]
    assert spoken(pieces) == [
        *((0, b"Use"), (2, b" bold"), (4, b" and"), (6, b" x"), (7, b"."), (8, b"\n\n")),
        (13, b"\n\n\n\nDone"),
    ]
    thought = [b"<think>", b"I", b" see", b"</think>", b"Yes"]
    assert spoken(thought) == [(4, b"Yes")]
    linked = [b"See", b" [", b"it", b"](", b"https", b"://a", b".b", b")", b"."]
    assert spoken(linked) == [(0, b"See"), (2, b" it"), (8, b".")]


def test_plain_tokens_pass_unchanged_and_as_soon_as_they_come() -> None:
    pulled = 0

    def answer() -> Iterator[GeneratedToken]:
        nonlocal pulled
        for token in said:
            pulled += 1
            yield token

    said = tokens_of([b"The", b" quick", b"", b" fox", b"\xe6\x97", b"\xa5", b" ran", b"."])
    spoken_tokens = SpokenTokens(answer(), limit=8)
    assert all(passed is token for passed, token in zip(spoken_tokens, said, strict=True))
    pulled = 0
    passing = SpokenTokens(answer())
    assert next(passing) is said[0] and pulled == 1
    assert next(passing) is said[1] and pulled == 2


@given(
    st.lists(
        st.sampled_from(
            ["a", " b", "**", "`", "\n", "- ", "日", "👍", "<b>", "&amp;", "[", "](", ")", "```", " |", "é"]
        )
    )
)
def test_the_text_is_that_of_the_whole_answer(pieces: list[str]) -> None:
    for cut in (1, 2, 3):
        data = "".join(pieces).encode()
        parts = [data[place : place + cut] for place in range(0, len(data), cut)]
        kept = b"".join(piece for _, piece in spoken(parts)).decode()
        assert kept.split() == read_plain(data.decode(), ANSWER).split()
        assert kept.rstrip() == read_plain(data.decode(), ANSWER).rstrip()


def test_bytes_that_are_no_text_pass() -> None:
    assert spoken([b"a", b"\xff", b" b\xc3"]) == [(0, b"a"), (1, b"\xff"), (2, b" b\xc3")]


def test_an_answer_that_is_cut_off_is_known() -> None:
    tokens = SpokenTokens(tokens_of([b"a", b" **", b" b"]), limit=3)
    assert next(tokens).id == 0 and tokens.left == 2
    assert [token.id for token in tokens] == [1, 2] or tokens.ids == [0, 1, 2]
    assert tokens.left == 0 and tokens.cut_off and tokens.finished
    whole = SpokenTokens(tokens_of([b"a", b" b"]), limit=3)
    assert len(list(whole)) == 2 and not whole.cut_off
