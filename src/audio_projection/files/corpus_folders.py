"""Finds the folder that was meant where a corpus is given by a folder above or below it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from audio_projection.errors import AudioProjectionError

LIBRI = ("librispeech", "libritts")
"""Corpora in folders of subsets, speakers and chapters."""

_TRANSCRIPTS = ("*.trans.txt", "*.normalized.txt", "*.trans.tsv")
_LEVELS = 3  # from LibriSpeech's top folder to its chapters: subset, speaker, chapter


@dataclass(frozen=True)
class LibriSpeechPlace:
    """The top folder of a LibriSpeech (or LibriTTS), and a subset in it."""

    top: Path
    subset: str

    def advice(self, given: Path) -> str:
        """What to say when `given` is another folder."""
        return (
            f"{given} is not the top folder of a LibriSpeech, which holds its subsets: give {self.top} and the subset "
            f"{self.subset} (--subset {self.subset}, or data.subset={self.subset})"
        )


def check_librispeech(path: Path, subset: str | None) -> None:
    """Raises AudioProjectionError unless `path` holds that subset (None: any), naming the folder that was meant."""
    if subset and (path / subset).is_dir():
        return
    place = librispeech_below(path)
    if place is not None and place.top != path:
        raise AudioProjectionError(place.advice(path))
    there = sorted(folder.name for folder in path.glob("*") if folder.is_dir())
    if subset is None and there:
        return
    choice = "" if place is None else f"there are {', '.join(there)}: choose one with --subset (data.subset), or "
    raise AudioProjectionError(
        f"no LibriSpeech {subset or ''} in {path}: {choice}get it with `audio-projection data download librispeech`, "
        "or give the folder that holds it"
    )


def librispeech_below(folder: Path) -> LibriSpeechPlace | None:
    """Where a LibriSpeech lies whose transcripts are in `folder`, at whatever level of it; None when there are none."""
    depths = sorted(range(_LEVELS + 2), key=lambda depth: depth != _LEVELS)  # the right level first
    for depth in depths:
        for pattern in _TRANSCRIPTS:
            found = next(folder.absolute().glob("*/" * depth + pattern), None)
            if found is not None and len(found.parents) > _LEVELS:
                top = folder if depth == _LEVELS else found.parents[_LEVELS]
                return LibriSpeechPlace(top, found.parents[_LEVELS - 1].name)
    return None


TABLES = {"ljspeech": ("metadata.csv", "metadata.csv and wavs/"), "common_voice": ("train.tsv", "a language")}
"""The table by which the folder of a corpus is known, and what that folder is of."""


def check_table(source: str, folder: Path, name: str | None = None) -> None:
    """Raises AudioProjectionError for a corpus of `TABLES` given by a folder one level off, naming the right one.

    `name`: another table of the same folder. A folder with no such table near it is left to the reader.
    """
    table, what = TABLES[source]
    if folder.suffix == ".tsv" or (folder / (name or table)).is_file():
        return
    instead = where_instead(folder, name or table)
    if instead is not None:
        raise AudioProjectionError(f"{folder} is not the folder of {what} ({name or table}): give {instead}")


def where_instead(folder: Path, name: str) -> Path | None:
    """The folder that has a file `name`: the one above, or one of those up to two levels below; None without any."""
    if (folder.absolute().parent / name).is_file():
        return folder.absolute().parent
    found = (file for depth in (1, 2) for file in sorted(folder.glob("*/" * depth + name)))
    return next((file.parent for file in found), None)
