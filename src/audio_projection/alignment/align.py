"""Aligns LLM tokens with the TTS tokens of the same text by byte offsets, and makes one state for each TTS token.

The two tokenizers cut a text differently, but the projector needs exactly one state for each TTS token. Where a TTS
token overlaps several LLM tokens their states are summed; where several TTS tokens lie in one LLM token they share its
state. A linear map could not tell summed or shared states apart, so each is first marked by its position: its channels
are rotated, as vector symbolic architectures (VSA) bind a position to a content (Sahlgren et al., 2008, "Permutations
as a means to encode order in word space"). That is what "bind" and "bound state" mean here. A TTS token that is exactly
one LLM token keeps that token's state unchanged.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.text.token_spans import Span


@dataclass(frozen=True)
class Overlap:
    """The LLM tokens that share bytes with one TTS token."""

    tokens: tuple[int, ...]
    """Their indices in text order, at least one."""
    turn: int
    """0 where no other TTS token ends in the last of these LLM tokens; otherwise the TTS token's number among those
    that do, from 1."""


def align(llm_spans: Sequence[Span], tts_spans: Sequence[Span]) -> list[Overlap]:
    """The LLM tokens that overlap each TTS token, in the order of the TTS tokens; `bind` takes their states.

    Spans are ``(start, end)`` in bytes of the same text, in text order. Where no LLM token covers a TTS token's bytes
    (spaces that a tokenizer drops), the nearest earlier one is taken, or the first. Empty LLM spans (special tokens)
    are never chosen. Raises AudioProjectionError when spans are out of order or do not end at the same byte.
    """
    _check_same_text([span for span in llm_spans if span[1] > span[0]], tts_spans)
    return cover(llm_spans, tts_spans)


def cover(llm_spans: Sequence[Span], tts_spans: Sequence[Span]) -> list[Overlap]:
    """Same as `align`, for the part of a text that is known so far; spans are not checked."""
    used = [index for index, (start, end) in enumerate(llm_spans) if end > start]
    starts, ends = [llm_spans[index][0] for index in used], [llm_spans[index][1] for index in used]
    found: list[Overlap] = []
    for start, end in tts_spans:
        last = max(bisect_left(starts, end) - 1, 0)
        first = min(bisect_right(ends, start), last)
        again = bool(found) and found[-1].tokens[-1] == used[last]
        turn = found[-1].turn + 1 if again else int(ends[last] > end)
        found.append(Overlap(tuple(used[first : last + 1]), turn))
    return found


def _check_same_text(llm_spans: Sequence[Span], tts_spans: Sequence[Span]) -> None:
    for name, spans in (("LLM", llm_spans), ("TTS", tts_spans)):
        if any(before > after for pair in pairwise(spans) for before, after in zip(*pair, strict=True)):
            raise AudioProjectionError(f"alignment: the {name} token spans are not in text order")
    if not tts_spans:
        return
    llm_end = llm_spans[-1][1] if llm_spans else 0
    if llm_end != tts_spans[-1][1]:
        raise AudioProjectionError(
            f"alignment: the LLM tokens cover {llm_end} bytes and the TTS tokens {tts_spans[-1][1]}; "
            "tokenize the same text with both"
        )


def bind(states: Tensor, overlaps: Sequence[Overlap]) -> Tensor:
    """States (S, L, D) of S LLM tokens -> bound states (N, L, D), one for each of N TTS tokens; a new tensor.

    Of several LLM tokens the last one, which has read the others, is taken as it is; the state j tokens before it is
    rotated by j channels and added. The k-th (from 1) of several TTS tokens in one LLM token is rotated back by k.
    """
    bound = states[[overlap.tokens[-1] for overlap in overlaps]]
    for back in range(1, max((len(overlap.tokens) for overlap in overlaps), default=1)):
        several = [n for n, overlap in enumerate(overlaps) if len(overlap.tokens) > back]
        earlier = states[[overlaps[n].tokens[-1 - back] for n in several]]
        bound[several] += earlier.roll(back, -1)
    for turn in {overlap.turn for overlap in overlaps} - {0}:
        sharing = [n for n, overlap in enumerate(overlaps) if overlap.turn == turn]
        bound[sharing] = bound[sharing].roll(-turn, -1)
    return bound
