"""Sentences of an answer that must be put into words before they are spoken, read again by the LLM as those words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from torch import Tensor

from audio_projection.llm.language_model import LanguageModel
from audio_projection.text.input_text import Reading
from audio_projection.text.normalisation.abbreviations import ABBREVIATIONS, BEFORE_NUMBERS, TITLES
from audio_projection.text.normalisation.patterns import one_of
from audio_projection.text.token_spans import Span, byte_spans

_PLAIN = re.compile(r"[\sA-Za-z,.!?';:\"()’‘“”-]*")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SHORT = {*TITLES, *ABBREVIATIONS, *BEFORE_NUMBERS}
_CHANGING = re.compile(rf"[A-Z]{{2}}|[A-Za-z]\.[A-Za-z]|(?<![A-Za-z])(?ai:{one_of(_SHORT)})\.|\.\.")
_WITHOUT_STOP = frozenset(["Mr", "Mrs", "Ms", "Dr", "Prof", "St", "vs", "Vs", "phd"])


class Rereading:
    """For one answer: what of it the voice cannot say as it is written, and the LLM's states of the words for it."""

    def __init__(
        self, llm: LanguageModel, reading: Reading, conversation: Callable[[], list[int]], said: Sequence[int]
    ) -> None:
        """``conversation`` gives the ids up to the head of the answer; ``said``: the answer's ids, growing."""
        self._llm, self._reading = llm, reading
        self._conversation, self._said = conversation, said

    def changes(self, text: str, after: str) -> bool:
        """Whether a text that goes on with ``after`` is said in other words than its own."""
        last = _WORD.findall(text)[-1:]
        if last and ((after.startswith(".") and last[0].lower() in _SHORT) or last[0] in _WITHOUT_STOP):
            return True
        if _PLAIN.fullmatch(text) and not _CHANGING.search(text):
            return False
        return [word.replace("’", "'") for word in _WORD.findall(text)] != _WORD.findall(self.spoken(text))

    def spoken(self, text: str) -> str:
        """The words of the text; empty where nothing of it can be said."""
        return self._reading.spoken(text)

    def mark(self, character: str) -> str:
        """A mark as the TTS knows it; it may be nothing. Letters and digits stay."""
        return self._reading.mark(character)

    def read(self, number: int, text: str) -> tuple[list[Span], Tensor]:
        """The LLM's tokens of a text as spans of its bytes, and their states (N, L, D), read in the place of the
        answer's tokens from ``number`` on: one prefill."""
        ids = self._llm.tokenize(text)
        before = [*self._conversation(), *self._said[:number]]
        states = self._llm.read([before + ids])[0][len(before) :]
        return byte_spans(self._llm.tokenizer, ids, text), states


def without_first_words(text: str, count: int) -> str:
    """What comes behind the first words of a text."""
    ends = [match.end() for match in _WORD.finditer(text)][:count]
    return text[ends[-1] :] if ends else text


def count_words(text: str) -> int:
    """How many words a text has."""
    return len(_WORD.findall(text))
