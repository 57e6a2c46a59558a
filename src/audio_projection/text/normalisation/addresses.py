"""Addresses of the net, files and paths, hashtags and names with an @."""

from __future__ import annotations

import re
import unicodedata

from audio_projection.text.normalisation.abbreviations import ABBREVIATIONS, BEFORE_NUMBERS, TITLES
from audio_projection.text.normalisation.acronyms import letters_of
from audio_projection.text.normalisation.number_words import figure_words
from audio_projection.text.normalisation.patterns import LETTER, Match, Rule, rule

_ENDINGS = (
    "com|org|net|edu|gov|info|biz|io|ai|app|dev|co|tv|xyz|tech|shop|online|site|cloud|blog|gg|ly|co\\.uk|ac\\.uk|uk|us|de"
    "|fr|eu|ca|au|nl|ch|es|ie|nz|jp|kr|cn|ru|br|pl|se|fi|dk|cz|mx"
)
_FILES = (
    "pdf|txt|docx?|xlsx?|pptx?|csv|tsv|json|jsonl|ya?ml|toml|xml|html?|css|js|ts|py|ipynb|cpp|java|rs|md|tex|png|jpe?g"
    "|gif|svg|webp|mp[34]|wav|flac|ogg|avi|mov|mkv|zip|tar|gz|exe|dll|log|ini|cfg|sh|bat|gguf|safetensors"
)
# Endings that are said as words; the others letter by letter.
_SPOKEN_ENDINGS = {
    "doc",
    "zip",
    "tar",
    "log",
    "json",
    "jpeg",
    "bat",
    "java",
    "toml",
    "docx",
    "tex",
    "mov",
    "safetensors",
}
_SAID = {
    **{".": "dot", "/": "slash", "-": "dash", "_": "underscore", "@": "at", "?": "question mark", "\\": "backslash"},
    **{"=": "equals", "&": "and", ":": "colon", "#": "hash", "%": "percent", "+": "plus", "~": "tilde"},
}


def _address(match: Match) -> str:
    """An address of the net or of mail: the protocol is not said; what signs there are in a path, is.

    see www.example.com. -> see W W W dot example dot com.
    see https://docs.python.org/3/ -> see docs dot python dot org slash three
    write j.doe_2@example.com -> write j dot doe underscore two at example dot com
    """
    return _parts(match[1])


def _host(match: Match) -> str:
    """With a protocol, any host.

    Open http://localhost:3000 now -> Open localhost three thousand now
    """
    return _parts(re.sub(r":(?=[0-9]+(?:/|$))", " ", match[1]))


def _parts(address: str) -> str:
    plain = unicodedata.normalize("NFKC", address.removesuffix("/"))
    parts = re.findall(r"[0-9]+|[^\W\d_]+|[^\w\s]|_", plain)
    words = ["W W W" if part.lower() == "www" else _SAID.get(part) or _part(part) for part in parts]
    return " ".join(filter(None, words))


def _part(part: str) -> str:
    if part.isascii() and part.isdigit():
        return figure_words(part)
    if part.islower() and part.isascii() and 1 < len(part) < 5 and not set(part) & set("aeiouy"):
        return " ".join(part.upper())  # html, txt
    return letters_of(part) if part.isalnum() else ""


def _file(match: Match) -> str | None:
    """A file's name; its ending letter by letter unless it is a word.

    Open report_v2.pdf first -> Open report underscore v two dot P D F first
    Run setup.py now -> Run setup dot P Y now
    """
    name, ending = match.groups()
    if not any(map(str.isalpha, name)):
        return None
    said = ending if ending.lower() in _SPOKEN_ENDINGS else _parts(" ".join(ending.upper()))
    return f"{_parts(name)} dot {said}"


def _path(match: Match) -> str:
    """A path of a Unix or a Windows machine.

    in /usr/lib now -> in slash usr slash lib now
    """
    return _parts(match[0])


def _hashtag(match: Match) -> str | None:
    """A hashtag, in its words.

    Use #BlackFriday2024 -> Use hashtag Black Friday two thousand and twenty four
    """
    if match[1].lower() in ABBREVIATIONS.keys() | TITLES.keys() | BEFORE_NUMBERS.keys():
        return None
    return "hashtag " + _parts(_words_of(match[1])).replace(" underscore", "")


def _handle(match: Match) -> str | None:
    """A name on a network.

    Ask @jane_doe -> Ask at jane underscore doe
    """
    if match[1].lower() == "the":
        return None
    return "at " + _parts(_words_of(match[1]))


def _words_of(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


# Anchored where a word begins and going over each of its parts once, so that no text is slow.
_PATH = r"(?:[:/?#][\w./?=&%#:~+,;@!$*'-]*[\w/])?"
RULES: list[Rule] = [
    rule(
        r"(?<![\w.@+-])(?:https?://|ftp://)?((?:[\w+-]+(?:\.[\w+-]+)*@)?[\w-]+(?:\.[\w-]+)*"
        rf"\.(?:{_ENDINGS})(?!{LETTER}|[_-]|\.\w){_PATH})",
        _address,
    ),
    rule(rf"(?<![\w.@+-])(?:https?|ftp|file|wss?)://([\w.-]*[\w-]{_PATH})", _host),
    rule(r"(?<![\w.@+-])(?:mailto:)?([\w+-]+(?:\.[\w+-]+)*@[\w-]+(?:\.[\w-]+)+)", _address),
    rule(r"(?<![\w/~.:])(?:~(?:/[A-Za-z_.][\w.-]*)+|(?:/[A-Za-z_.][\w.-]*){2,})/?(?<![.])", _path),
    rule(rf"(?<![\w.@+-])([\w-]+(?:\.[\w-]+)*)\.((?ai:{_FILES}))(?![\w@-]|\.\w)", _file),
    rule(r"(?<!\w)[A-Z]:(?:\\[\w .-]*\w)+\\?", _path),
    rule(r"(?<![\w#&/])#(?=[^\W\d_])([^\W_]+(?:_[^\W_]+)*)", _hashtag),
    rule(r"(?<![\w@.])@([A-Za-z]\w*(?:\.\w+)*)", _handle),
]
