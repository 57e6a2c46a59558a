"""Corpora of recordings, in their published layouts, as (sound file, text, speaker)."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_projection.errors import AudioProjectionError
from audio_projection.text import as_spoken

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """One utterance on the disk; `speaker` is the corpus's own name of the reader."""

    id: str
    audio: Path
    text: str
    speaker: str | None = None


def read_recordings(source: str, path: Path, subset: str) -> list[Recording]:
    """The utterances of a corpus, in a fixed order; nothing but the transcripts is read.

    `source`: manifest, librispeech, ljspeech or common_voice. Raises AudioProjectionError when the layout is not there
    or holds no utterance.
    """
    recordings = list(READERS[source](path, subset))
    if not recordings:
        raise AudioProjectionError(f"no recordings in {path}: nothing there looks like {source}")
    return recordings


def read_manifest(path: Path, subset: str = "") -> Iterator[Recording]:
    """JSON lines with "audio" and "text" (and "speaker"), or tab-separated audio, text[, speaker] without a header.

    Relative sound files start at the manifest's folder. A line that says neither is named and left out.
    """
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            audio, text, speaker = _json_entry(line) if line.lstrip().startswith("{") else _tab_entry(line)
        except (KeyError, ValueError, TypeError):
            log.warning("%s line %d left out: it has no audio path and text", path, number)
            continue
        yield Recording(audio, path.parent / Path(audio).expanduser(), text, speaker)


def _json_entry(line: str) -> tuple[str, str, str | None]:
    entry: Any = json.loads(line)
    if not isinstance(entry["audio"], str) or not isinstance(entry["text"], str):
        raise TypeError("audio and text must be strings")
    speaker = entry.get("speaker")
    return entry["audio"], entry["text"], None if speaker is None else str(speaker)


def _tab_entry(line: str) -> tuple[str, str, str | None]:
    audio, text, *rest = line.split("\t")
    return audio, text, rest[0].strip() or None if rest else None


def read_librispeech(path: Path, subset: str) -> Iterator[Recording]:
    """`path/subset/<speaker>/<chapter>/*.flac` with `*.trans.txt`; the upper-case texts become sentence case."""
    folder = path / subset
    if not folder.is_dir():
        raise AudioProjectionError(
            f"no LibriSpeech {subset} in {path}: bring it with `audio-projection download --only data`, "
            "or set data.path to the folder that holds it"
        )
    for transcript in sorted(folder.glob("*/*/*.trans.txt")):
        for line in _lines(transcript):
            name, _, text = line.partition(" ")
            if name:
                speaker = transcript.parent.parent.name
                yield Recording(name, transcript.parent / f"{name}.flac", sentence_case(text), speaker)


def read_ljspeech(path: Path, subset: str = "") -> Iterator[Recording]:
    """`path/metadata.csv` (id|text|normalised text) and `path/wavs/<id>.wav`; one reader."""
    for line in _lines(path / "metadata.csv"):
        name, *texts = line.split("|")
        if texts:
            yield Recording(name, path / "wavs" / f"{name}.wav", texts[-1], "LJ")


def read_common_voice(path: Path, subset: str = "") -> Iterator[Recording]:
    """A language folder of Common Voice (its train.tsv), or one of its .tsv files, beside `clips/`."""
    table = path if path.suffix == ".tsv" else path / "train.tsv"
    rows = csv.DictReader(_lines(table), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = {"path", "sentence", "client_id"} - set(rows.fieldnames or ())
    if missing:
        raise AudioProjectionError(f"{table} has no column {', '.join(sorted(missing))}: not a Common Voice table")
    for row in rows:
        yield Recording(row["path"], table.parent / "clips" / row["path"], row["sentence"], row["client_id"])


READERS: dict[str, Callable[[Path, str], Iterator[Recording]]] = {
    "manifest": read_manifest,
    "librispeech": read_librispeech,
    "ljspeech": read_ljspeech,
    "common_voice": read_common_voice,
}

_FIRST_PERSON = re.compile(r"\bi\b")


def sentence_case(text: str) -> str:
    """An upper-case transcript without punctuation as a sentence: capital first letter and "I", full stop."""
    words = _FIRST_PERSON.sub("I", text.strip().lower())
    if not words:
        return ""
    return words[0].upper() + words[1:] + ("" if words[-1] in ".!?" else ".")


def speakable(text: str, where: str, normalise: str = "none") -> str | None:
    """The text as it is spoken, or None, with a warning that says where, when it cannot be."""
    try:
        return as_spoken(text, normalise)
    except AudioProjectionError as error:
        log.warning("data: %s left out: %s", where, error)
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AudioProjectionError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise AudioProjectionError(f"cannot read {path}: {error.strerror or error}; check data.path") from None
