"""Progress bars on stderr, and sizes in MB or GB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def shown(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The items, with a progress bar that counts them up to `total`; no bar when there are none."""
    return iter(track(items, what, total=total, console=Console(stderr=True)) if total else items)


def size_in_words(count: int) -> str:
    """Bytes as MB or GB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
