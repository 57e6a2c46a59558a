"""Streaming alignment: TTS tokens with their LLM states while the LLM is still generating the text.

A TTS token is yielded as soon as the word that it belongs to is complete and can no longer change, with the bound state
of the LLM tokens that overlap it. The answer is split into sentences, because each one is a TTS utterance.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from audio_projection.alignment.align import bind, cover
from audio_projection.alignment.rereading import Rereading, count_words, without_first_words
from audio_projection.alignment.spoken_tokens import SpokenTokens
from audio_projection.llm.language_model import GeneratedToken
from audio_projection.text.input_text import is_speakable, sentence_ends, split_sentences
from audio_projection.text.markup import Verbatim
from audio_projection.text.token_spans import Span
from audio_projection.tts.tokenizer import TextTokenizer

# One byte for one byte, so that spans stay valid.
_SPACES = str.maketrans("\t\n\v\f\r\0", "      ")
_CLAUSE_STOP = re.compile(r"[,;:](?=\s)|[，、；：،؛]")
_ENDED = re.compile(r"""[.!?…。！？।؟]["'”’)\]]*\s*$""")
_NEAR = 64  # tokens before the limit from which on a sentence is only begun when it is known to end
_TAIL = 12  # characters by which a sentence may exceed its limit, rather than lose its last word and full stop
_APOSTROPHES = frozenset("'’")  # a word may continue after them
_MARKS = ("Mn", "Mc", "Me", "Cf")  # Unicode categories of characters that combine with the one before them


@dataclass(frozen=True)
class AnswerToken:
    """One TTS token of the answer, with its hidden state."""

    id: int
    """Token id of the TTS's tokenizer."""
    state: Tensor
    """(L, D): the states of the LLM tokens that overlap it, bound into one (`align.bind`)."""


class LiveAnswer:
    """Splits an answer into sentences of TTS tokens while the LLM generates it.

    Lazy: LLM tokens are pulled only when a TTS token is asked for. `longest`: most characters of a sentence.
    """

    def __init__(
        self,
        tokens: Iterable[GeneratedToken],
        tokenizer: TextTokenizer,
        longest: int,
        rereading: Rereading | None = None,
    ) -> None:
        """`rereading` puts sentences into words for a voice that knows words only."""
        self._tokens = tokens if isinstance(tokens, SpokenTokens) else SpokenTokens(tokens, markup=Verbatim())
        self._rereading = rereading
        self._more: deque[tuple[str, list[AnswerToken]]] = deque()  # further utterances of a sentence in words
        self._reworded: str | None = None  # the words that the rest of the current sentence was put into
        self.dropped = ""
        """The beginning of a sentence that the LLM was not allowed to finish, which is not spoken."""
        self._tokenizer = tokenizer
        self._longest = longest
        self._generated = _GeneratedText()
        self._finished = False
        self._start = self._end = 0  # of the current sentence: its start, and the end of what was yielded of it
        self._own_end = 0  # up to where the current sentence was yielded from the LLM's own tokens
        self._first = 0  # index of the first LLM token that the current sentence needs
        self._spans: list[Span] = []  # of the current sentence's TTS tokens
        self._spoken: list[str] = []

    @property
    def spoken(self) -> str:
        """The text of all tokens that were yielded, with single spaces."""
        return " ".join(" ".join([*self._spoken, self.current]).split())

    @property
    def current(self) -> str:
        """What is given out of the current sentence, in the words that are spoken."""
        return self._generated.text[self._start : self._own_end] + (self._reworded or "")

    @property
    def current_as_written(self) -> str:
        """The same as the LLM wrote it; in words where a sentence in words became several utterances."""
        written = self._generated.text[self._start : self._end].strip()
        return self.current if self._more or not written else written

    def sentences(self) -> Iterator[Iterator[AnswerToken]]:
        """The tokens of each sentence that has a letter or digit; tokens that are not taken are left out."""
        while self._find_sentence():
            self._first, self._spans = self._generated.token_before(self._start), []
            tokens = self._sentence_tokens()
            yield tokens
            self._spoken.append(self.current)
            for _ in tokens:
                pass
            self._start, self._own_end, self._reworded = self._end, self._end, None
            while self._more:
                words, further = self._more.popleft()
                self._reworded = words
                yield iter(further)
                self._spoken.append(words)
                self._reworded = None

    def _find_sentence(self) -> bool:
        """Moves to the next sentence that can be spoken, as soon as that is certain; false at the end of the answer."""
        while True:
            rest = self._generated.text[self._start :]
            self._start = self._end = self._own_end = self._start + len(rest) - len(rest.lstrip())
            end = self._sentence_end()
            if is_speakable(self._generated.text[self._start : end]):
                return not self._is_unfinished()
            if end is not None and end > self._start:
                self._start = self._end = self._own_end = end
            elif not self._pull():
                return False

    def _is_unfinished(self) -> bool:
        """Whether the LLM was stopped within the sentence; only looked at where that is near, for it takes the whole
        sentence. The first sentence of an answer is spoken as far as it goes."""
        left = self._tokens.left
        if left is None or left > _NEAR or not self._spoken:
            return False
        while self._sentence_end() is None:
            self._pull()
        if not self._tokens.cut_off or self._sentence_end() != len(self._generated.text):
            return False
        rest = self._generated.text[self._start :]
        if _ENDED.search(rest):
            return False
        self.dropped = rest.strip()
        return True

    def _sentence_tokens(self) -> Iterator[AnswerToken]:
        """TTS tokens up to the end of the sentence, or up to a clause or word end where it gets too long."""
        while True:
            end = self._closing_place()
            if end is not None:
                if self._changes(end):
                    yield from self._read_again()
                else:
                    yield from self._align(end)
                return
            ready = [cut for cut in self._word_ends() if cut <= self._start + self._longest]
            if ready and self._changes(max(ready)):
                good = [cut for cut in ready if not self._changes(cut)]
                if good:
                    yield from self._align(max(good))
                yield from self._read_again()
                return
            if ready:
                yield from self._align(max(ready))
            else:
                self._pull()

    def _changes(self, cut: int) -> bool:
        """Whether the current sentence, up to a place, is said in other words than its own."""
        text = self._generated.text
        return self._rereading is not None and self._rereading.changes(text[self._start : cut], text[cut : cut + 1])

    def _read_again(self) -> Iterator[AnswerToken]:
        """TTS tokens of the rest of the sentence in words, with the states that the LLM has when it reads those."""
        assert self._rereading is not None
        while self._sentence_end() is None and len(self._generated.text) - self._start < 4 * self._longest:
            self._pull()
        end = self._sentence_end() or max([*self._word_ends(), self._end]) or len(self._generated.text)
        text, first = self._generated.text, self._generated.token_behind(self._start)
        spoken = self._rereading.spoken(text[self._start : end])
        rest = without_first_words(spoken, count_words(text[self._start : self._end]))
        lead = text.encode()[self._generated.spans[first][0] : len(text[: self._start].encode())].decode(
            errors="ignore"
        )
        self._end = end
        pieces = split_sentences(rest, self._longest) if is_speakable(rest) else []
        if not pieces:
            return
        spans, states = self._rereading.read(self._tokens.numbers[first], lead + spoken)
        place = len(lead) + len(spoken) - len(rest)
        utterances = []
        for number, piece in enumerate(pieces):
            start = (lead + spoken).index(piece, place)
            place = start + len(piece)
            goes_on = number == 0 and self._own_end > self._start and start > 0 and (lead + spoken)[start - 1] == " "
            utterances.append((piece, self._reread(lead + spoken, start - goes_on, place, spans, states)))
        self._more.extend(utterances[1:])
        self._reworded = ("" if self._own_end == self._start else " ") + pieces[0]
        yield from utterances[0][1]

    def _reread(self, text: str, start: int, end: int, spans: list[Span], states: Tensor) -> list[AnswerToken]:
        """TTS tokens of a part of a text that the LLM has read again."""
        ids, own = self._tokenizer.encode(text[start:end].translate(_SPACES))
        base = len(text[:start].encode())
        overlaps = cover(spans, [(first + base, last + base) for first, last in own])
        return list(map(AnswerToken, ids, bind(states, overlaps)))

    def _closing_place(self) -> int | None:
        """Where the current sentence ends in the text; None while that is not known."""
        text, longest = self._generated.text, self._longest
        end = self._sentence_end()
        if end is not None and end - self._start <= longest + _TAIL:
            return end
        if 2 * (self._end - self._start) > longest and _CLAUSE_STOP.match(text, self._end):
            return self._end + 1
        cuts = self._word_ends()
        # nothing more fits: the next word ends too late, or no word ends within twice the limit
        known = len(text) if end is None else end + longest
        too_long = min(cuts) - self._start > longest if cuts else known - self._start > 2 * longest
        if not too_long:
            return None
        return self._end if self._end > self._start else _after_marks(text, self._start + longest)

    def _align(self, end: int) -> Iterator[AnswerToken]:
        """The TTS tokens of the text from what was yielded up to `end`, with their bound states."""
        text = self._generated.text
        segment = text[self._end : end].rstrip()
        base = len(text[: self._end].encode())
        self._end = self._own_end = end
        ids, spans = self._encode(segment)
        self._spans += [(start + base, stop + base) for start, stop in spans]
        overlaps = cover(self._generated.spans[self._first :], self._spans)[len(self._spans) - len(ids) :]
        yield from map(AnswerToken, ids, bind(torch.stack(self._generated.states[self._first :]), overlaps))

    def _encode(self, segment: str) -> tuple[list[int], list[Span]]:
        """TTS tokens of a part of the answer in marks that the TTS knows, and their spans in the part's own bytes."""
        if self._rereading is None:
            return self._tokenizer.encode(segment.translate(_SPACES))
        marked = [self._rereading.mark(character) for character in segment]
        places: list[Span] = []  # of the character that each byte comes from
        place = 0
        for character, written in zip(segment, marked, strict=True):
            end = place + len(character.encode())
            places += [(place, end)] * len(written.encode())
            place = end
        ids, spans = self._tokenizer.encode("".join(marked).translate(_SPACES))
        return ids, [(places[start][0], places[end - 1][1]) if start < end else (place, place) for start, end in spans]

    def _sentence_end(self) -> int | None:
        """The end of the current sentence once it is certain: more text follows it, or the answer is over."""
        text = self._generated.text
        for length in sentence_ends(text[self._start :]):
            if self._start + length < len(text):
                return self._start + length
        return len(text) if self._finished else None

    def _word_ends(self) -> list[int]:
        """Ends of words after what was yielded; the TTS tokens up to them can no longer change."""
        pre_tokenizer = self._tokenizer.backend.pre_tokenizer
        if pre_tokenizer is None:  # tokens may then cross the ends of words
            return []
        text = self._generated.text[self._end :]
        ends = (end for _, (_, end) in pre_tokenizer.pre_tokenize_str(text))
        return [self._end + end for end in ends if _ends_word(text, end)]

    def _pull(self) -> bool:
        token = next(self._tokens, None)
        if token is None:
            self._finished = True
            return False
        self._generated.add(token)
        return True


class _GeneratedText:
    """The text generated so far, with the LLM tokens' spans in its UTF-8 bytes and their hidden states."""

    def __init__(self) -> None:
        self.text = ""
        self.spans: list[Span] = []
        self.states: list[Tensor] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._size = 0  # bytes of the text

    def add(self, token: GeneratedToken) -> None:
        before = self._size
        start = before + self._pending()
        characters = self._decoder.decode(token.piece)
        self.text += characters
        self._size += len(characters.encode())
        end = self._size + self._pending()
        if end - start != len(token.piece):  # the decoder dropped bytes that are not UTF-8
            start = before
        self.spans.append((start, max(start, end)))
        self.states.append(token.state)

    def token_before(self, place: int) -> int:
        """Index of the last LLM token that has bytes and ends at or before character `place`; 0 if there is none."""
        start = len(self.text[:place].encode())
        ended = bisect_right([end for _, end in self.spans], start)
        return next((n for n in reversed(range(ended)) if self.spans[n][1] > self.spans[n][0]), 0)

    def token_behind(self, place: int) -> int:
        """The first LLM token that has bytes of the text from `place` on."""
        start = len(self.text[:place].encode())
        return bisect_right([end for _, end in self.spans], start)

    def _pending(self) -> int:
        """Number of bytes of a character that is not complete yet."""
        return len(self._decoder.getstate()[0])


def _ends_word(text: str, end: int) -> bool:
    """Whether a word ends at `end`, whatever text follows."""
    if not 0 < end < len(text) or not text[end - 1].isalnum():
        return False
    after = text[end]
    joins = after.isalnum() or after in _APOSTROPHES or unicodedata.category(after) in _MARKS
    return not joins


def _after_marks(text: str, cut: int) -> int:
    """The cut, moved behind combining marks that belong to the character before it."""
    while cut < len(text) and unicodedata.category(text[cut]) in _MARKS:
        cut += 1
    return cut
