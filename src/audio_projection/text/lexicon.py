"""A pronunciation dictionary of the user's own: what is written, and how it is spelled to be spoken right.

A file with a word, a tab and its spelling on each line; # begins a comment:

    nginx	engine X
    GIF	jif
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from audio_projection.errors import AudioProjectionError


@dataclass(frozen=True)
class Lexicon:
    """Words and their spellings. A word in small letters also stands for its capitalised form."""

    spellings: Mapping[str, str]

    @classmethod
    def from_file(cls, path: Path) -> Lexicon:
        """Raises AudioProjectionError naming the line for anything but word TAB spelling."""
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise AudioProjectionError(f"tts.lexicon {path} cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise AudioProjectionError(f"tts.lexicon {path} is not UTF-8 (byte {error.start + 1})") from None
        spellings: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            word, tab, spelling = (part.strip() for part in line.partition("\t"))
            problem = _problem(word, tab or "\t" in line, spelling, spellings)
            if problem:
                raise AudioProjectionError(f"{path} line {number}: {problem}")
            spellings[word] = spelling
        return cls(spellings)

    @property
    def name(self) -> str:
        """Eight hex digits by which texts that were spelled with it are known again."""
        return hashlib.sha256(repr(sorted(self.spellings.items())).encode()).hexdigest()[:8]

    def pattern(self) -> re.Pattern[str] | None:
        """Matches any of the words where no letter or digit goes on with it; None for an empty lexicon."""
        if not self.spellings:
            return None
        words = "|".join(map(re.escape, sorted(self._forms(), key=len, reverse=True)))
        return re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])")

    def spelling(self, word: str) -> str:
        """How a word that the pattern matched is spelled."""
        return self._forms()[word]

    def _forms(self) -> dict[str, str]:
        capitalised = {word[:1].upper() + word[1:]: said for word, said in self.spellings.items() if word.islower()}
        return {**capitalised, **self.spellings}


def _problem(word: str, has_tab: bool | str, spelling: str, before: Mapping[str, str]) -> str | None:
    if not has_tab:
        return "expected a word, a tab and its spelling"
    if not word:
        return "the word before the tab is missing"
    if not any(map(str.isalnum, spelling)):
        return f"the spelling of {word!r} has no letter in it"
    if before.get(word, spelling) != spelling:
        return f"{word!r} has two spellings, {before[word]!r} and {spelling!r}"
    return None
