"""Random damage to JSON and text files."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged forms of a file: bytes changed, lines lost or doubled, JSON values of another kind."""
    chance = random.Random(seed)
    makers: list[Callable[[bytes, random.Random], bytes]] = [_cut, _flipped, _lines, _value, _value, _key]
    for number in range(count):
        yield makers[number % len(makers)](data, chance)


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _flipped(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _lines(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    place = chance.randrange(len(lines))
    other = chance.choice(
        [
            [],
            [lines[place]] * 2,
            [b"zz yy", lines[place]],
            [b"a b c"],
            [b"\xff\xfe"],
            [lines[place][::-1]],
            [b"onlyone"],
        ]
    )
    return b"\n".join([*lines[:place], *other, *lines[place + 1 :]])


_ODD: list[Any] = [None, True, -1, 0, 7, 10**30, 1e300, "", "word", "\0", [], [[]], [None], {}, {"a": 1}, "x" * 500]


def _value(data: bytes, chance: random.Random) -> bytes:
    """A JSON value replaced by one of another kind; other files lose a word."""
    try:
        tree = json.loads(data)
    except ValueError:
        return _words(data, chance)
    places = list(_places(tree))
    if not places:
        return _cut(data, chance)
    holder, key = chance.choice(places)
    holder[key] = chance.choice(_ODD)
    return json.dumps(tree).encode()


def _key(data: bytes, chance: random.Random) -> bytes:
    """A JSON object without one of its keys, or a list without an item; other files lose a word."""
    try:
        tree = json.loads(data)
    except ValueError:
        return _words(data, chance)
    places = list(_places(tree))
    if not places:
        return b""
    holder, key = chance.choice(places)
    del holder[key]
    return json.dumps(tree).encode()


def _words(data: bytes, chance: random.Random) -> bytes:
    words = data.split(b" ")
    words[chance.randrange(len(words))] = chance.choice([b"", b"qqq", "ü".encode(), b"{{"])
    return b" ".join(words)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of the values in a tree, at most some hundred of a level: vocabularies are long."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(entries)[:300]:
        yield tree, key
        yield from _places(value)
