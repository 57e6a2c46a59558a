"""Keys and values that a language model keeps of a conversation, for its next turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any


@dataclass
class PrefixCache:
    """What a language model has read of one conversation, with its keys and values.

    Given to `LanguageModel.generate` again, only what is new in the conversation is read. One answer at a time.
    """

    ids: list[int] = field(default_factory=list)
    """Token ids whose keys and values are kept."""
    values: Any = None
    """The keys and values, as the back end has them; None while there are none."""
    reused: int = 0
    """How many tokens of the last conversation did not have to be read again."""
    prefill_seconds: float = 0.0
    """How long reading the rest of it took."""

    check: Callable[[], object] = lambda: None
    """Called between two pieces of a conversation that is read; what it raises ends the reading."""
    _in_use: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def used(self) -> Iterator[None]:
        """For one answer at a time: waits until the last one, which may be within a token, has ended."""
        with self._in_use:
            yield

    def common(self, ids: Sequence[int]) -> int:
        """How many of the kept ids a conversation begins with; its last token is always read, for what follows it."""
        pairs = zip(self.ids, ids[:-1], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def clear(self) -> None:
        """Frees the keys and values."""
        self.ids, self.values = [], None
