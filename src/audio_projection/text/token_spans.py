"""Byte offsets of the tokens of a text, for any fast tokenizer.

Character offsets are too coarse: byte-level tokenizers split a multi-byte character into several tokens, and report
the whole character for each of them.
"""

from __future__ import annotations

import json
import re
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING
from unicodedata import combining

from audio_projection.errors import AudioProjectionError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""(start, end) in the UTF-8 bytes of a text."""

TOKENIZING = threading.Lock()
"""Held by whoever calls a fast tokenizer: whether it reads control tokens as such is set in it, for all threads."""

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_METASPACE = "\u2581"


def byte_spans(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[Span]:
    """``(start, end)`` of every token in the UTF-8 bytes of ``text``; special tokens get empty spans.

    Works for byte-level BPE and for SentencePiece-style pieces (metaspace, byte fallback). Where the tokenizer
    normalises the text (Qwen: NFC), a span covers all characters that were composed into the token's. Raises
    AudioProjectionError when the ids are not those of the text.
    """
    pieces = token_bytes(tokenizer)
    parts = [pieces(token) for token in ids]
    joined = b"".join(parts)
    ends = list(accumulate(map(len, parts), initial=0))
    if joined == text.encode():
        return list(pairwise(ends))
    if joined == b" " + text.encode():  # SentencePiece puts a space before the first word
        return [(max(start - 1, 0), max(end - 1, 0)) for start, end in pairwise(ends)]
    return _spans_through_normalizer(tokenizer, joined, ends, text) or _spans_by_encoding(tokenizer, ids, text)


def _spans_through_normalizer(
    tokenizer: PreTrainedTokenizerBase, joined: bytes, ends: Sequence[int], text: str
) -> list[Span]:
    """Spans mapped back from the normalised text; none when the tokens do not spell that either."""
    normalizer = getattr(tokenizer, "backend_tokenizer", None) and tokenizer.backend_tokenizer.normalizer
    if normalizer is None:
        return []
    clusters = _clusters(text, normalizer.normalize_str)
    normalised = [normalizer.normalize_str(cluster).encode() for cluster in clusters]
    if b"".join(normalised) != joined:
        return []
    before = list(accumulate((len(cluster.encode()) for cluster in clusters), initial=0))
    after = list(accumulate(map(len, normalised), initial=0))
    return [
        (before[bisect_right(after, start) - 1], before[bisect_left(after, end)]) if end > start else (0, 0)
        for start, end in pairwise(ends)
    ]


def _clusters(text: str, normalize: Callable[[str], str]) -> list[str]:
    """Splits the text wherever normalising the parts one by one gives the same as normalising the whole."""
    clusters: list[str] = []
    for character in text:
        joins = clusters and (
            combining(character)
            or normalize(clusters[-1] + character) != normalize(clusters[-1]) + normalize(character)
        )
        if joins:
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters


def _spans_by_encoding(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[Span]:
    """Spans from the offsets of a second encoding, in whole characters: for tokenizers whose bytes are not known."""
    with TOKENIZING:
        encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    if list(encoded["input_ids"]) != list(ids):
        raise AudioProjectionError(
            f"alignment: the tokens do not spell the text {text[:40]!r}: they come from another text or tokenizer"
        )
    position = list(accumulate((len(character.encode()) for character in text), initial=0))
    return [(position[start], position[end]) for start, end in encoded["offset_mapping"]]


class TokenBytes:
    """Token id -> the bytes that it stands for, of a fast tokenizer; empty for special and unknown ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        decoder = getattr(tokenizer, "backend_tokenizer", None) and tokenizer.backend_tokenizer.decoder
        kinds = set(_types(json.loads(decoder.__getstate__()))) if decoder else set()
        self._byte_level = _byte_alphabet() if "ByteLevel" in kinds else None
        self._added = {
            index: b"" if token.special else token.content.encode()
            for index, token in tokenizer.added_tokens_decoder.items()
        }

    def __call__(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token]
        piece = self._tokenizer.convert_ids_to_tokens(int(token))
        if not isinstance(piece, str):  # the embedding may have padding rows beyond the vocabulary
            return b""
        if self._byte_level is not None:
            return bytes(self._byte_level[character] for character in piece)
        byte = _BYTE_PIECE.fullmatch(piece)
        return bytes([int(byte[1], 16)]) if byte else piece.replace(_METASPACE, " ").encode()


@lru_cache(maxsize=8)
def token_bytes(tokenizer: PreTrainedTokenizerBase) -> TokenBytes:
    """The TokenBytes of a tokenizer, cached."""
    return TokenBytes(tokenizer)


def _types(decoder: dict) -> list[str]:
    """The types in a decoder's description, those inside sequences included."""
    return [decoder["type"], *(kind for part in decoder.get("decoders", []) for kind in _types(part))]


@lru_cache(maxsize=1)
def _byte_alphabet() -> dict[str, int]:
    """Character -> byte of GPT-2's byte-level alphabet: printable Latin-1 as it is, the rest from U+0100 up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}
