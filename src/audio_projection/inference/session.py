"""A conversation of several turns: what was said and heard is remembered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

from audio_projection.errors import AudioProjectionError
from audio_projection.inference.conversation import check_messages
from audio_projection.inference.streams import Answer
from audio_projection.llm.language_model import Message
from audio_projection.llm.prefix_cache import PrefixCache


@dataclass
class Turn:
    """An answer that is being spoken, or the last one that was."""

    answer: Answer
    place: int
    """Where in the messages it begins."""
    heard: float = math.inf
    """Seconds of its sound that were heard at most."""
    message: dict[str, str] | None = None
    """Its message, once something was heard."""


class Session:
    """A conversation with a voice; made by `Voice.session`.

        with voice.session() as session:
            for chunk in session.say("Who are you?"):
                play(chunk)
            session.messages              # the question, and the answer as far as it was heard

    `messages` may be changed between two answers. The LLM's keys and values of what it has read are kept for the next
    turn. One answer is spoken at a time: a new one cancels the last.
    """

    def __init__(self, begin: Callable[[list[Message], PrefixCache], Answer], messages: Iterable[Message] = ()) -> None:
        """`begin` speaks the answer to messages."""
        self._begin = begin
        self._cache = PrefixCache()
        self._messages = list(messages)
        self._turn: Turn | None = None
        self._closed = False

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def messages(self) -> list[Message]:
        """The conversation: of each answer, what was heard of it (what was delivered, unless `truncate` said less)."""
        self._remember()
        return self._messages

    def say(self, text: str) -> Answer:
        """Says something to the LLM, and speaks its answer as `Voice.chat_stream` does.

        The text joins `messages`; the answer does so as it is heard. Raises AudioProjectionError for an empty text.
        """
        self.cancel()
        asked: Message = {"role": "user", "content": text}
        check_messages([asked])
        self.messages.append(asked)
        return self.answer()

    def answer(self) -> Answer:
        """Speaks an answer to `messages` as they stand."""
        if self._closed:
            raise AudioProjectionError("the session is closed; open another one")
        self.cancel()
        answer = self._begin(self.messages, self._cache)
        self._turn = Turn(answer, len(self._messages))
        return answer

    def cancel(self) -> None:
        """Stops the answer that is being spoken; `messages` keep what was delivered of it."""
        if self._turn is not None:
            self._turn.answer.cancel()

    def truncate(self, seconds: float) -> str:
        """Stops the last answer and keeps only what was heard of it in its first seconds of sound; gives what is kept.

        For a listener who heard less than what was delivered. Only whole words are kept, by their places (`Word`).
        Raises AudioProjectionError where there is no answer.
        """
        if self._turn is None:
            raise AudioProjectionError("there is no answer to truncate")
        self.cancel()
        self._turn.heard = min(seconds, self._turn.heard)
        self._remember()
        return self._turn.message["content"] if self._turn.message else ""

    def close(self) -> None:
        """Stops speaking, and frees the LLM's keys and values."""
        self.cancel()
        self._closed, self._cache = True, PrefixCache()

    def _remember(self) -> None:
        """Writes into the messages what was heard of the last answer so far."""
        turn = self._turn
        if turn is None:
            return
        kept = turn.answer.written_until(turn.heard)
        if turn.message is not None:
            turn.message["content"] = kept
            if not kept and turn.message in self._messages:
                self._messages.remove(turn.message)
        elif kept:
            turn.message = {"role": "assistant", "content": kept}
            self._messages.insert(turn.place, turn.message)
