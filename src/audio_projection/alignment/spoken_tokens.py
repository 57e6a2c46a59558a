"""The tokens of an LLM's answer that are spoken: markup, code and thoughts are left out with their hidden states."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from audio_projection.llm.language_model import GeneratedToken
from audio_projection.text.markup import ANSWER, Kept, MarkupFilter, Verbatim


@dataclass
class _Pending:
    """A token of which it is not known yet what stays."""

    number: int  # in the answer
    token: GeneratedToken
    last: int  # the last character that it is part of
    kept: bytearray = field(default_factory=bytearray)


class SpokenTokens(Iterator[GeneratedToken]):
    """Those tokens of an answer that are spoken, each with the bytes that are; pulled as they are asked for.

    A token of which only blanks stay goes too, its blanks before the next one. A token comes out as soon as it is
    certain that it stays.
    """

    def __init__(
        self,
        tokens: Iterable[GeneratedToken],
        limit: int | None = None,
        markup: MarkupFilter | Verbatim | None = None,
    ) -> None:
        """``limit``: the most tokens that the LLM may say; an answer that reaches it was cut off. ``markup``: what is
        left out, None: all that nobody says in an answer."""
        self.ids: list[int] = []
        """All tokens that the LLM has said so far, those that are left out included."""
        self.numbers: list[int] = []
        """For each token that came out, which of `ids` it is."""
        self.finished = False
        self._limit = limit
        self._tokens = iter(tokens)
        self._markup = markup or MarkupFilter(ANSWER)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._characters: list[tuple[str, list[tuple[_Pending, int]]]] = []  # and the tokens their bytes are of
        self._bytes: deque[_Pending] = deque()  # the token of each byte whose character is not complete
        self._pending: deque[_Pending] = deque()
        self._ready: deque[GeneratedToken] = deque()
        self._blanks = b""

    @property
    def left(self) -> int | None:
        """How many tokens more the LLM may say; None without a limit."""
        return None if self._limit is None else self._limit - len(self.ids)

    @property
    def cut_off(self) -> bool:
        """Whether the answer ended because it reached the limit."""
        return self.finished and self.left == 0

    def __next__(self) -> GeneratedToken:
        while not self._ready:
            if self.finished:
                raise StopIteration
            self._pull()
        return self._ready.popleft()

    def _pull(self) -> None:
        token = next(self._tokens, None)
        if token is None:
            self.finished = True
            self._take(self._decode(b"", final=True))
            for kept in self._markup.end():
                self._keep(kept)
            self._release(len(self._characters))
            return
        pending = _Pending(len(self.ids), token, last=-1)
        self.ids.append(token.id)
        self._pending.append(pending)
        self._bytes.extend([pending] * len(token.piece))
        self._take(self._decode(token.piece))
        self._release(self._markup.decided)

    def _decode(self, piece: bytes, final: bool = False) -> str:
        return self._decoder.decode(piece, final)

    def _take(self, text: str) -> None:
        for character in text:
            owners: list[tuple[_Pending, int]] = []
            for _ in character.encode("utf-8", "surrogateescape"):
                owner = self._bytes.popleft()
                if owners and owners[-1][0] is owner:
                    owners[-1] = (owner, owners[-1][1] + 1)
                else:
                    owners.append((owner, 1))
                owner.last = len(self._characters)
            self._characters.append((character, owners))
        for kept in self._markup.feed(text):
            self._keep(kept)

    def _keep(self, kept: Kept) -> None:
        character, owners = self._characters[kept.place]
        data = kept.character.encode("utf-8", "surrogateescape")
        if kept.character != character:  # written in another way, or a line break where a block ends
            owners = [(owners[-1][0], len(data))]
        for owner, count in owners:
            owner.kept += data[:count]
            data = data[count:]

    def _release(self, decided: int) -> None:
        """Hands on the tokens all of whose characters are decided."""
        waiting = self._bytes[0] if self._bytes else None
        while self._pending and self._pending[0].last < decided and self._pending[0] is not waiting:
            self._hand_on(self._pending.popleft())

    def _hand_on(self, pending: _Pending) -> None:
        kept, token = bytes(pending.kept), pending.token
        if kept != token.piece and not kept.strip():
            self._blanks += kept
        elif kept == token.piece and not self._blanks:
            self._put(pending.number, token)
        else:
            self._put(pending.number, replace(token, piece=self._blanks + kept))
            self._blanks = b""

    def _put(self, number: int, token: GeneratedToken) -> None:
        self.numbers.append(number)
        self._ready.append(token)
