"""Text files with an item a line."""

from __future__ import annotations

from pathlib import Path

from audio_projection.errors import AudioProjectionError


def read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """The lines of a UTF-8 file that are not blank, with their numbers from 1 on.

    At line feeds alone: another character that some programs break lines at belongs to a line. Raises
    AudioProjectionError for a file that cannot be read; `what` says what it was to hold.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise AudioProjectionError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise AudioProjectionError(f"cannot read the {what} {path}: {error.strerror or error}") from None
    return [(number, line) for number, line in enumerate(lines, 1) if line and not line.isspace()]
