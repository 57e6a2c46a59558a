"""Markup is not spoken: a streaming filter for markdown, HTML, SSML and emoji, for texts and for an LLM's answers.

    read_plain("Use **bold** &amp; `code`.")          # Use bold & code.
    read_plain("<think>Hm.</think>Yes.", ANSWER)      # Yes.

The filter takes characters as they come and gives the ones that stay, each with the place that it came from, so that
the tokens of a live answer can be left out together with their hidden states. It decides as early as it can: a plain
word passes at once, a mark waits for the characters that tell what it is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

TEXT = frozenset[str]()
"""Parts of a text that are left out beside its marks: none."""
ANSWER = frozenset({"code", "thoughts", "numbers"})
"""Parts of an answer that are left out beside its marks: code blocks, <think> parts, the numbers of a list."""

EMOJI = (
    "\U0001f000-\U0001f0ff\U0001f100-\U0001f1ff\U0001f200-\U0001faff\U0001fb00-\U0001fbff\U000e0020-\U000e007f"
    "\u2600-\u27bf\u2b00-\u2bff\u2300-\u23ff\u25a0-\u25ff\u2190-\u21ff\u3030\u303d\u3297\u3299\ufe0e\ufe0f\u20e3"
)
_HTML = (
    "a|abbr|address|article|aside|b|blockquote|body|br|button|caption|center|cite|code|col|dd|del|details|dfn|div|dl|dt|em"
    "|figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|i|img|input|ins|kbd|label|li|link|main|mark|meta|nav"
    "|ol|p|pre|q|s|samp|section|small|span|strike|strong|sub|summary|sup|svg|table|tbody|td|tfoot|th|thead|title|tr|tt|u"
    "|ul|var|video|wbr|script|style"
)
_SSML = "speak|break|prosody|say-as|emphasis|phoneme|voice|audio|lang|lexicon|lookup|desc|metadata|par|seq|media"
_ATTRIBUTES = (
    r"""(?:\s+(?:[\w:-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>=]+)"""
    r"|disabled|checked|controls|hidden|async|defer|open))*"
)
_TAG = re.compile(rf"<(/?)((?ai:{_HTML}|{_SSML}|(?:amazon|mstts|google):[\w-]+))({_ATTRIBUTES})\s*/?>")
_MAY_BE_TAG = re.compile(r"<(?:/?(?:[A-Za-z][^<>]{0,300})?|!-{0,2}|!--[^>]{0,400})\Z")
_COMMENT = re.compile(r"<!--.{0,400}?-->|<!DOCTYPE[^<>]*>", re.DOTALL | re.IGNORECASE)
_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_ADDRESS = re.compile(r"<((?:https?://|mailto:)[^<>\s]*)>")
_LINKED = re.compile(r"\((?:[^()\n]|\([^()\n]*\))*\)|\[[^\[\]\n]*\]")
_MARKS = re.compile(r"\*+|_+|~+")
_BACKTICKS = re.compile("`+")
_CLOSING_HASHES = re.compile(r"#+[ \t]*(?:\n|\Z)")
_BLOCKS = frozenset(
    [
        "br",
        "p",
        "div",
        "li",
        "tr",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "ul",
        "ol",
        "table",
        "blockquote",
        "hr",
        "dd",
        "dt",
        "section",
        "pre",
        "title",
    ]
)
_SILENT_BLOCKS = frozenset({"script", "style"})
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_MAY_BE_ENTITY = re.compile(r"&(?:#[xX]?[0-9A-Fa-f]{0,7}|[A-Za-z][A-Za-z0-9]{0,31})?\Z")
_CITED = re.compile(r"\[(?:\^?[0-9]{1,3}(?:[,–-] ?[0-9]{1,3}){0,5}|\^[\w-]{1,20}|[ xX])\]:?(?!\()")
_MAY_BE_CITED = re.compile(r"\[(?:\^[\w-]{0,20}|[\^0-9,– xX-]{0,24})(?:\]:?)?\Z")
_SPACES = r"[ \t]{0,8}"
_FENCE = re.compile(rf"{_SPACES}(?:`{{3,}}|~{{3,}})")
_RULED = re.compile(
    rf"{_SPACES}(?:(?:[-*_=] ?){{3,}}|\|?[ :|-]*-[ :|-]*\|[ :|-]*|\|?(?: ?:?-{{2,}}:? ?\|?)+)[ \t]*(?:\n|\Z)"
)
_BLOCK_MARK = re.compile(rf"{_SPACES}(?:#{{1,6}}(?=[ \t])|>+(?=[ \t\n>])|[-*+•◦‣–](?=[ \t]))[ \t]*")
_NUMBER = re.compile(rf"{_SPACES}[0-9]{{1,3}}[.)](?=[ \t])[ \t]*")
_BAR = re.compile(rf"{_SPACES}(?:\|[ \t]*)+")
_MAY_BE_BLOCK = re.compile(
    rf"{_SPACES}(?:#{{1,6}}|>+|[-*_=+•◦‣–|: \t]*|[0-9]{{1,3}}[.)]?|`{{1,3}}|~{{1,3}}|[0-9]{{0,3}})\Z"
)
_END = 60  # characters that the end of something left out has at most
_ESCAPED = frozenset("\\`*_{}[]()#+-.!|<>~\"'")


@dataclass(frozen=True)
class Kept:
    """A character that stays, and the place of the character that it came from."""

    character: str
    place: int


@dataclass
class MarkupFilter:
    """Characters in, the ones to speak out; `end` gives what was still held back."""

    left_out: frozenset[str] = TEXT
    ssml: list[str] = field(default_factory=list)
    """Names of the SSML tags other than <break> that were left out."""
    _held: str = ""
    _place: int = 0  # of the first character that is held
    _before: str = "\n"  # the character before it, as it was written
    _line_start: bool = True
    _in_row: bool = False  # of a table
    _block_line: bool = False  # of a heading, a list or a quotation
    _until: re.Pattern[str] | None = None  # everything up to it is left out
    _code: str = ""  # the backticks that close the code span
    _linked: int = 0  # open square brackets
    _open: dict[str, int] = field(default_factory=dict)  # emphasis marks that are open

    @property
    def decided(self) -> int:
        """How many of the characters that came in are decided on."""
        return self._place

    def feed(self, characters: str) -> Iterator[Kept]:
        """What is certain to stay, now that these characters have come."""
        self._held += characters
        yield from self._drain(final=False)

    def end(self) -> Iterator[Kept]:
        """What stays of the characters that were held back, as nothing more comes."""
        yield from self._drain(final=True)

    def _drain(self, final: bool) -> Iterator[Kept]:
        text, place = self._held, 0
        while place < len(text):
            step = self._step(text, place, final)
            if step is None:
                break
            length, spoken = step
            moves = spoken == text[place : place + length]
            yield from (
                Kept(each, self._place + place + (number if moves else 0)) for number, each in enumerate(spoken)
            )
            if length:
                self._before = text[place + length - 1]
            place += length
        self._held, self._place = text[place:], self._place + place

    def _step(self, text: str, place: int, final: bool) -> tuple[int, str] | None:
        """How many characters are done with and what is spoken for them; None where more must be seen."""
        if self._until is not None:
            return self._skip(text, place, final)
        if self._line_start:
            block = self._block(text, place, final)
            if block is None or block[0]:
                return block
            self._line_start = False
        return self._inline(text, place, final)

    def _skip(self, text: str, place: int, final: bool) -> tuple[int, str] | None:
        assert self._until is not None
        rest = text[place:]
        found = self._until.search(self._before + rest)
        if found is None:
            ahead = 0 if final else min(len(rest), _END)  # the end may have come in part
            return (len(rest) - ahead, "") if len(rest) > ahead else None
        self._until = None
        self._line_start = found[0].endswith("\n")
        return found.end() - len(self._before), "\n\n" if self._line_start else ""

    def _block(self, text: str, place: int, final: bool) -> tuple[int, str] | None:
        """Marks at the beginning of a line; (0, "") where there are none."""
        if not final and _MAY_BE_BLOCK.match(text, place) and _MAY_BE_BLOCK.match(text, place).end() == len(text):  # type: ignore[union-attr]
            return None
        fence = _FENCE.match(text, place)
        if fence:
            return self._fence(text, place, fence, final)
        ruled = _RULED.match(text, place)
        if ruled and "\n" not in text[place : ruled.end() - 1] and (ruled[0].endswith("\n") or final):
            return ruled.end() - place, "\n\n"
        mark = _BLOCK_MARK.match(text, place)
        if mark is None and "numbers" in self.left_out:
            mark = _NUMBER.match(text, place)
        if mark:
            if mark.end() == len(text) and not final:
                return None
            self._block_line = True
            return mark.end() - place, "\n\n"
        bar = _BAR.match(text, place)
        self._in_row = self._in_row or bar is not None
        return (bar.end() - place, "") if bar else (0, "")

    def _fence(self, text: str, place: int, fence: re.Match[str], final: bool) -> tuple[int, str] | None:
        line_end = text.find("\n", place)
        if line_end < 0 and not final:
            return None
        length = (line_end + 1 if line_end >= 0 else len(text)) - place
        if "code" in self.left_out and not fence[0].isspace() and self._code != "block":
            marks = fence[0].strip()
            self._until = re.compile(rf"(?<=\n){_SPACES}{re.escape(marks)}[`~]*[ \t]*\n")
        return length, "\n\n"

    def _inline(self, text: str, place: int, final: bool) -> tuple[int, str] | None:
        plain = _PLAIN.match(text, place)
        if plain:
            return len(plain[0]), plain[0]
        character = text[place]
        if character == "\n":
            spoken = "\n\n" if self._block_line or self._in_row else "\n"
            self._line_start, self._block_line, self._in_row = True, False, False
            self._open, self._code = {}, ""
            return 1, spoken
        if character == "`":
            return self._backticks(text, place, final)
        if self._code:
            return 1, character
        if character in "*_~":
            return self._emphasis(text, place, final)
        if character == "<":
            return self._tag(text, place, final)
        if character == "&":
            return self._entity(text, place, final)
        if character in "[]!":
            return self._link(text, place, final)
        if character == "\\":
            return self._escape(text, place, final)
        if character == "|" and self._in_row:
            return 1, " "
        hashes = _CLOSING_HASHES.match(text, place) if character == "#" and self._before in " \t" else None
        if hashes:
            closed = hashes[0].endswith("\n")
            return (len(hashes[0]) - closed, "") if closed or final else None
        return 1, "" if _IS_EMOJI.match(character) else character

    def _backticks(self, text: str, place: int, final: bool) -> tuple[int, str] | None:
        run = _BACKTICKS.match(text, place)
        assert run is not None
        if run.end() == len(text) and not final:
            return None
        if not self._code:
            self._code = run[0]
        elif self._code == run[0]:
            self._code = ""
        return len(run[0]), ""

    def _emphasis(self, text: str, place: int, final: bool) -> tuple[int, str] | None:
        """A run of * _ ~ beside a word, from outside or inside; a single one between signs and words is a sign."""
        run = _MARKS.match(text, place)
        assert run is not None
        if run.end() == len(text) and not final:
            return None
        marks, after = run[0], text[run.end() : run.end() + 1] or "\n"
        before = self._before
        kind = marks[0]
        inside_word = before.isalnum() and after.isalnum()
        opens = not after.isspace() and not (inside_word and (kind == "_" or len(marks) == 1))
        closes = not before.isspace() and self._open.get(kind, 0) > 0
        figures = before.isdigit() and after.isdigit()
        if len(marks) > 3 or figures or (kind == "~" and len(marks) != 2):
            return len(marks), marks
        if closes and not (opens and before.isspace()) and not (inside_word and kind == "_"):
            self._open[kind] -= 1
            return len(marks), ""
        if opens and not before.isalnum() or (opens and len(marks) > 1):
            self._open[kind] = self._open.get(kind, 0) + 1
            return len(marks), ""
        return len(marks), marks

    def _tag(self, text: str, place: int, final: bool) -> tuple[int, str] | None:
        thought = _THOUGHT.match(text, place)
        if thought and "thoughts" in self.left_out:
            self._until = re.compile(rf"</{thought[1]}>", re.IGNORECASE)
            return len(thought[0]), ""
        comment = _COMMENT.match(text, place)
        if comment:
            return len(comment[0]), ""
        tag = _TAG.match(text, place)
        if tag:
            return len(tag[0]), self._tag_said(tag)
        stray = _THOUGHT_END.match(text, place)
        if stray and "thoughts" in self.left_out:
            return len(stray[0]), ""
        address = _ADDRESS.match(text, place)
        if address:
            return len(address[0]), "" if "code" in self.left_out else address[1]
        if not final and _MAY_BE_TAG.match(text, place):
            return None
        return 1, "<"

    def _tag_said(self, tag: re.Match[str]) -> str:
        name = tag[2].lower()
        if name in _SILENT_BLOCKS and not tag[1]:
            self._until = re.compile(rf"</{name}\s*>", re.IGNORECASE)
        if name == "break":
            return ", "
        if re.fullmatch(f"{_SSML}|.*:.*", name) or (name == "sub" and "alias" in tag[3]):
            self.ssml.append(name)
        if name == "sub" and not tag[1]:
            alias = re.search(r"""alias\s*=\s*["']([^"']*)""", tag[3])
            if alias:
                self._until = re.compile(r"</sub\s*>", re.IGNORECASE)
                return alias[1]
        if name in ("td", "th"):
            return " "
        return "\n\n" if name in _BLOCKS else ""

    def _entity(self, text: str, place: int, final: bool) -> tuple[int, str] | None:
        entity = _ENTITY.match(text, place)
        if entity:
            said = html.unescape(entity[0])
            clean = said != entity[0] and not any(_is_unusable(each) for each in said)
            return len(entity[0]), said if clean else entity[0] if said == entity[0] else ""
        return None if not final and _MAY_BE_ENTITY.match(text, place) else (1, "&")

    def _link(self, text: str, place: int, final: bool) -> tuple[int, str] | None:
        """[text](address), ![text](address), [1] and other square brackets, of which the text alone stays."""
        after = text[place + 1 : place + 2]
        if text[place] == "!":
            if not after and not final:
                return None
            return 1, "" if after == "[" else "!"
        if text[place] == "[":
            cited = _CITED.match(text, place)
            if not final and _MAY_BE_CITED.match(text, place):
                return None
            if cited:
                return len(cited[0]), ""
            self._linked += 1
            return 1, ""
        if not after and not final:
            return None
        if after in "([" and after and self._linked:
            close = _LINKED.match(text, place + 1)
            if close is None and not final and len(text) - place < 2000 and "\n" not in text[place:]:
                return None
            self._linked -= 1
            return 1 + len(close[0]) if close else 1, ""
        self._linked = max(self._linked - 1, 0)
        return 1, ""

    def _escape(self, text: str, place: int, final: bool) -> tuple[int, str] | None:
        after = text[place + 1 : place + 2]
        if not after and not final:
            return None
        return (2, "" if after in "[]()" else after) if after and after in _ESCAPED else (1, "\\")


class Verbatim:
    """Lets every character pass, as `MarkupFilter` those to speak."""

    def __init__(self) -> None:
        self.decided = 0

    def feed(self, characters: str) -> Iterator[Kept]:
        for character in characters:
            yield Kept(character, self.decided)
            self.decided += 1

    def end(self) -> Iterator[Kept]:
        return iter(())


_IS_EMOJI = re.compile(f"[{EMOJI}]")
_PLAIN = re.compile(rf"[^\n`*_~<&\[\]!\\|#{EMOJI}]+")


def _is_unusable(character: str) -> bool:
    return character == "\0" or "\ud800" <= character <= "\udfff"


def read_plain(text: str, left_out: frozenset[str] = TEXT) -> str:
    """The whole text without its markup; of an answer also without a thought that began in the prompt."""
    ended = _THOUGHT_END.search(text) if "thoughts" in left_out else None
    if ended and not _THOUGHT.search(text, 0, ended.start()):
        text = text[ended.end() :]
    return "".join(kept.character for kept in filtered([text], MarkupFilter(left_out)))


def filtered(chunks: Iterable[str], markup: MarkupFilter) -> Iterator[Kept]:
    """What stays of text that comes in chunks of any sizes."""
    for chunk in chunks:
        yield from markup.feed(chunk)
    yield from markup.end()
