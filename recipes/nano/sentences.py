"""Sentences from a text file, cleaned to the characters that the voice learns.

A line is a sentence (of a TSV, the last column).  Typographic quotes and dashes become plain ones, long lines are
cut at their clauses, and what holds figures, other scripts or signs is left out.
"""

import random
import re
from collections.abc import Iterable
from pathlib import Path

SPOKEN = re.compile(r"""[A-Za-z ,.'?!;:"()—-]+""")
"""What a usable sentence consists of; the voice learns these characters and no others."""
PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "—", "…": "."})
ENDED = re.compile(r"""[.?!]["')]*$""")


def clean(line: str) -> str:
    """One line of text, single-spaced, with plain marks and a stop at its end."""
    text = re.sub(r"\s+", " ", line.translate(PLAIN)).strip()
    text = re.sub(r" ?— ?| -+ ", " — ", text).strip(" —,;:-")
    text = re.sub(r" ([,.?!;:])", r"\1", text)
    if text.count('"') % 2:
        text = text.replace('"', "")
    if text.count("(") != text.count(")"):
        text = re.sub("[()]", "", text)
    return text if not text or ENDED.search(text) else text + "."


def clauses(text: str, longest: int) -> list[str]:
    """The text itself when it has at most `longest` characters, else its sentences and clauses."""
    if len(text) <= longest:
        return [text]
    return [clean(part) for part in re.split(r"""(?<=[,.?!;:])["')]*\s""", text)]


def key(text: str) -> str:
    """Two texts with the same key are the same sentence: letters only, small."""
    return re.sub("[^a-z]+", " ", text.lower()).strip()


def last_columns(path: Path) -> list[str]:
    """The lines of a text file; of a TSV, what stands in their last columns."""
    return [line.split("\t")[-1] for line in path.read_text(encoding="utf-8", errors="ignore").splitlines()]


def held_out_keys(paths: Iterable[Path]) -> set[str]:
    """Keys of the sentences that must not be trained on."""
    return {key(text) for path in paths for text in last_columns(path)}


def sentences(path: Path, longest: int = 220, without: Iterable[Path] = (), seed: int = 0) -> list[str]:
    """All usable sentences of a file, each once, in seeded random order; those of the files `without` are left out."""
    found, taken = [], held_out_keys(without) | {""}
    for line in last_columns(path):
        for text in clauses(clean(line), longest):
            if len(text) <= longest and SPOKEN.fullmatch(text) and key(text) not in taken:
                taken.add(key(text))
                found.append(text[0].upper() + text[1:])
    random.Random(seed).shuffle(found)
    return found
