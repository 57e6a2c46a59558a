"""Addresses of the net: www.example.com, john.doe@example.com."""

from __future__ import annotations

import re

from audio_projection.text.normalisation.patterns import Match, Rule, placed

_ENDINGS = "com|org|net|edu|gov|info|biz|io|ai|app|dev|co\\.uk|ac\\.uk|uk|us|de|fr|eu|ca|au|nl|ch|es"
_SAID = {
    **{".": "dot", "/": "slash", "-": "dash", "_": "underscore", "@": "at", "?": "question mark"},
    **{"=": "equals", "&": "and", ":": "colon", "#": "hash", "%": "percent", "+": "plus", "~": "tilde"},
}


def _address(match: Match) -> str:
    """The protocol is not said; what signs there are in a path, is."""
    parts = re.split(r"([^\w]|_)", match[1].removesuffix("/"))
    words = ["W W W" if part == "www" else _SAID.get(part, part) for part in parts]
    return placed(match, " ".join(filter(None, words)))


# Anchored where a word begins and going over each of its parts once, so that no text is slow.
ADDRESS: Rule = (
    re.compile(
        r"(?<![\w.@+-])(?:https?://)?((?:[\w+-]+(?:\.[\w+-]+)*@)?[\w-]+(?:\.[\w-]+)*"
        rf"\.(?:{_ENDINGS})(?![\w@-]|\.\w)(?:[:/?#][\w./?=&%#:~+-]*[\w/])?)"
    ),
    _address,
)
