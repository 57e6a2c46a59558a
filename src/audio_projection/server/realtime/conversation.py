"""The conversation of one realtime session: its messages, and what was heard of each answer."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audio_projection.llm.language_model import Message
from audio_projection.server.answering import Asked, limited, sampling
from audio_projection.server.errors import APIError

if TYPE_CHECKING:
    from audio_projection.inference import Answer, Session, Voice

MOST_ITEMS = 500
_TOLERANCE = 0.05  # seconds; clients count what they played from rounded samples


@dataclass
class Item:
    """A message, or an answer that is being spoken."""

    id: str
    role: str
    text: str = ""
    status: str = "completed"
    answer: Answer | None = None
    """Of an answer: where its words are in its sound."""
    sent: float = 0.0
    """Seconds of sound that were sent."""

    @property
    def as_json(self) -> dict[str, Any]:
        """OpenAI's object."""
        if self.answer is not None:
            content = [{"type": "output_audio", "transcript": self.text}]
        elif self.status == "in_progress":
            content = []
        else:
            content = [{"type": "output_text" if self.role == "assistant" else "input_text", "text": self.text}]
        return {
            "id": self.id,
            "object": "realtime.item",
            "type": "message",
            "role": self.role,
            "status": self.status,
            "content": content,
        }

    def keep(self, seconds: float) -> None:
        """Keeps only what was heard of the answer in its first seconds."""
        assert self.answer is not None
        self.text = self.answer.written_until(seconds)


class Conversation:
    """Messages in their order, and the language model's memory of them."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._session: Session | None = None
        self._settings: tuple[Any, ...] = ()

    def find(self, item_id: str) -> Item:
        """The message of this id. Raises APIError."""
        for item in self.items:
            if item.id == item_id:
                return item
        raise APIError(f"no item {item_id!r} in the conversation", param="item_id", code="item_not_found")

    def add(self, item: Item, previous: str | None = None) -> str | None:
        """Puts a message at the end, after `previous`, or at the beginning ("root"); gives the id of the one before it.

        Raises APIError for an id that is there already, or a previous one that is not, and for too many messages.
        """
        if len(self.items) >= MOST_ITEMS:
            raise APIError(f"the conversation has {MOST_ITEMS} items, the most that it can have; delete some")
        if any(each.id == item.id for each in self.items):
            raise APIError(f"there is an item {item.id!r} already", param="item.id")
        if previous == "root":
            place = 0
        elif previous is None:
            place = len(self.items)
        else:
            place = self.items.index(self.find(previous)) + 1
        self.items.insert(place, item)
        return self.items[place - 1].id if place else None

    def truncate(self, item: Item, seconds: float) -> None:
        """Of an answer keeps what was heard in its first seconds. Raises APIError for what is no answer, or shorter."""
        if item.answer is None:
            raise APIError(f"item {item.id!r} is no spoken answer", param="item_id")
        if seconds > item.sent + _TOLERANCE:
            raise APIError(f"the answer has {item.sent * 1000:.0f} ms of sound only", param="audio_end_ms")
        item.keep(min(seconds, item.sent))
        item.sent = min(seconds, item.sent)

    def answer(self, voice: Voice, asked: Asked, item: Item) -> Answer:
        """Begins the answer to `asked.messages`. Raises AudioProjectionError as `Voice.session` does."""
        settings = (asked.speaker, asked.language, asked.seed, asked.temperature, asked.tokens)
        if self._session is None or settings != self._settings:
            self.close()
            chosen = limited(voice, asked.tokens)
            self._session = chosen.session((), asked.speaker, asked.language, asked.seed, sampling(voice, asked))
            self._settings = settings
        self._session.messages[:] = asked.messages
        item.answer = self._session.answer()
        return item.answer

    def messages(self, instructions: str | None) -> list[Message]:
        """The conversation as the language model reads it."""
        said = [{"role": item.role, "content": item.text} for item in self.items if item.text]
        return [{"role": "system", "content": instructions}, *said] if instructions else list(said)

    def close(self) -> None:
        """Frees the language model's memory."""
        if self._session is not None:
            self._session.close()
            self._session = None


def new_id(kind: str) -> str:
    """An id that nobody guesses."""
    return f"{kind}_{uuid.uuid4().hex[:24]}"
