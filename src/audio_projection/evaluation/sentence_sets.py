"""The sentences of the evaluations: text files, one sentence a line."""

from __future__ import annotations

from pathlib import Path

from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.word_errors import reference_words
from audio_projection.files.locations import PACKAGE
from audio_projection.text.input_text import check_text

HELD_OUT = "heldout.txt"
"""300 held-out sentences: in no training text."""
ROBUSTNESS = "robustness.txt"
"""200 others, of 3 to 25 words, all lengths equally often."""

_FOLDERS = (PACKAGE / "evaluation", PACKAGE.parents[1] / "benchmarks")


def read_sentences(path: str | Path | None = None, limit: int | None = None, own: str = HELD_OUT) -> list[str]:
    """The first `limit` lines (none: all) of a file, or of the project's own file; each must have English words.

    Raises AudioProjectionError for a file that cannot be read or a line that cannot be compared.
    """
    source = Path(path) if path is not None else _own(own)
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise AudioProjectionError(f"cannot read the sentences of {source}: {reason}; give --sentences FILE") from None
    texts = [check_text(line) for line in lines if line.strip()][:limit]
    if not texts:
        raise AudioProjectionError(f"{source} has no sentences; give a text file with one a line")
    for text in texts:
        reference_words(text)
    return texts


def _own(name: str) -> Path:
    """Where an installed package has the file, else where a checkout has it."""
    places = [folder / name for folder in _FOLDERS]
    return next((place for place in places if place.is_file()), places[0])
