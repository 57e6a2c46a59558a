"""A text that the LLM is still writing, as TTS tokens that can no longer change.

A TTS token is given out as soon as the word that it belongs to is complete, with the state of the LLM tokens that it
overlaps. The answer is cut into sentences, because each is spoken as an utterance of its own.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from audio_projection.alignment.align import bind, cover
from audio_projection.llm.language_model import GeneratedToken
from audio_projection.text.input_text import is_speakable, sentence_ends
from audio_projection.text.token_spans import Span
from audio_projection.tts.tokenizer import TextTokenizer

# One byte for one byte, so that spans stay what they are.
_SPACES = str.maketrans("\t\n\v\f\r\0", "      ")
_CLAUSE_STOP = re.compile(r"[,;:](?=\s)|[，、；：،؛]")
_TAIL = 12  # characters by which a sentence may be too long, rather than losing its last word and stop
_APOSTROPHES = frozenset("'’")  # a word may go on after them
_MARKS = ("Mn", "Mc", "Me", "Cf")  # categories of characters that are part of the one before them


@dataclass(frozen=True)
class Slot:
    """One TTS token of the answer."""

    id: int
    state: Tensor  # (L, D) of the LLM tokens that it overlaps, bound to one


class LiveAnswer:
    """Sentences of an answer while it is generated; LLM tokens are pulled only as slots are asked for."""

    def __init__(self, tokens: Iterable[GeneratedToken], tokenizer: TextTokenizer, longest: int) -> None:
        self._tokens = iter(tokens)
        self._tokenizer = tokenizer
        self._longest = longest  # characters of a sentence
        self._written = _Written()
        self._finished = False
        self._start = self._given = 0  # of the current sentence; up to where its slots are given out
        self._first = 0  # LLM token, before which the current sentence needs none
        self._placed: list[Span] = []  # of the current sentence's slots
        self._spoken: list[str] = []

    @property
    def spoken(self) -> str:
        """The text of all slots that were given out, in single spaces."""
        current = self._written.text[self._start : self._given]
        return " ".join(" ".join([*self._spoken, current]).split())

    def sentences(self) -> Iterator[Iterator[Slot]]:
        """The slots of each sentence that has a letter or digit; slots that are not taken are left out."""
        while self._find_sentence():
            self._first, self._placed = self._written.token_before(self._start), []
            slots = self._slots()
            yield slots
            self._spoken.append(self._written.text[self._start : self._given])
            for _ in slots:
                pass
            self._start = self._given

    def _find_sentence(self) -> bool:
        """Moves to the next sentence that can be spoken, as soon as that is certain; false at the end of the answer."""
        while True:
            rest = self._written.text[self._start :]
            self._start = self._given = self._start + len(rest) - len(rest.lstrip())
            end = self._sentence_end()
            if is_speakable(self._written.text[self._start : end]):
                return True
            if end is not None and end > self._start:
                self._start = self._given = end
            elif not self._pull():
                return False

    def _slots(self) -> Iterator[Slot]:
        """Slots up to the end of the sentence, or up to a clause or word end where it gets too long."""
        while True:
            end = self._closing()
            if end is not None:
                yield from self._give(end)
                return
            ready = [cut for cut in self._word_ends() if cut <= self._start + self._longest]
            if ready:
                yield from self._give(max(ready))
            else:
                self._pull()

    def _closing(self) -> int | None:
        """Where the current sentence ends, None while that is open."""
        text, longest = self._written.text, self._longest
        end = self._sentence_end()
        if end is not None and end - self._start <= longest + _TAIL:
            return end
        if 2 * (self._given - self._start) > longest and _CLAUSE_STOP.match(text, self._given):
            return self._given + 1
        cuts = self._word_ends()
        # nothing more fits: the next word ends too late, or, where no word ends, there is too much of it
        known = len(text) if end is None else end + longest
        too_long = min(cuts) - self._start > longest if cuts else known - self._start > 2 * longest
        if not too_long:
            return None
        return self._given if self._given > self._start else _behind_marks(text, self._start + longest)

    def _give(self, end: int) -> Iterator[Slot]:
        text = self._written.text
        segment = text[self._given : end].rstrip()
        base = len(text[: self._given].encode())
        self._given = end
        ids, spans = self._tokenizer.encode(segment.translate(_SPACES))
        self._placed += [(start + base, stop + base) for start, stop in spans]
        overlaps = cover(self._written.spans[self._first :], self._placed)[len(self._placed) - len(ids) :]
        yield from map(Slot, ids, bind(torch.stack(self._written.states[self._first :]), overlaps))

    def _sentence_end(self) -> int | None:
        """The end of the current sentence once nothing can move it: something follows, or the answer is over."""
        text = self._written.text
        for length in sentence_ends(text[self._start :]):
            if self._start + length < len(text):
                return self._start + length
        return len(text) if self._finished else None

    def _word_ends(self) -> list[int]:
        """Ends of words after what is given out; the TTS's tokens up to them can no longer change."""
        pre_tokenizer = self._tokenizer.backend.pre_tokenizer
        if pre_tokenizer is None:  # words are then no boundaries of tokens
            return []
        text = self._written.text[self._given :]
        ends = (end for _, (_, end) in pre_tokenizer.pre_tokenize_str(text))
        return [self._given + end for end in ends if _ends_word(text, end)]

    def _pull(self) -> bool:
        token = next(self._tokens, None)
        if token is None:
            self._finished = True
            return False
        self._written.add(token)
        return True


class _Written:
    """The LLM's tokens so far: the text they spell, and their spans in its UTF-8 bytes and states."""

    def __init__(self) -> None:
        self.text = ""
        self.spans: list[Span] = []
        self.states: list[Tensor] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._size = 0  # bytes of the text

    def add(self, token: GeneratedToken) -> None:
        before = self._size
        start = before + self._waiting()
        characters = self._decoder.decode(token.piece)
        self.text += characters
        self._size += len(characters.encode())
        end = self._size + self._waiting()
        if end - start != len(token.piece):  # bytes that spell no character were dropped
            start = before
        self.spans.append((start, max(start, end)))
        self.states.append(token.state)

    def token_before(self, place: int) -> int:
        """The last LLM token that has bytes and ends before the text from `place` on; 0 where there is none."""
        start = len(self.text[:place].encode())
        ended = bisect_right([end for _, end in self.spans], start)
        return next((n for n in reversed(range(ended)) if self.spans[n][1] > self.spans[n][0]), 0)

    def _waiting(self) -> int:
        """Bytes of a character whose other bytes are still to come."""
        return len(self._decoder.getstate()[0])


def _ends_word(text: str, end: int) -> bool:
    """Whether the characters around `end` can never belong to one word, whatever follows."""
    if not 0 < end < len(text) or not text[end - 1].isalnum():
        return False
    after = text[end]
    joins = after.isalnum() or after in _APOSTROPHES or unicodedata.category(after) in _MARKS
    return not joins


def _behind_marks(text: str, cut: int) -> int:
    """The cut, moved behind marks that belong to the character before it."""
    while cut < len(text) and unicodedata.category(text[cut]) in _MARKS:
        cut += 1
    return cut
