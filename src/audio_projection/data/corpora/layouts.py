"""Readers of speech corpora in their published layouts: LibriSpeech, LJSpeech, Common Voice, manifests.

Each gives audio file, text and speaker; only transcripts are read. A malformed line drops that line, never the others.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from audio_projection.data.corpora.items import Dropped, Item, Reason, Recording
from audio_projection.errors import AudioProjectionError
from audio_projection.text.input_text import Reading, as_spoken

log = logging.getLogger(__name__)

_AUDIO_COLUMNS, _TEXT_COLUMNS, _SPEAKER_COLUMNS = (
    ("audio", "audio_filepath", "path"),
    ("text", "sentence"),
    ("speaker",),
)


def read_recordings(source: str, path: Path, subset: str | None = None) -> list[Recording]:
    """The recordings of a corpus, in a fixed order; every dropped item is named in a warning.

    Raises AudioProjectionError as `read_items` does.
    """
    recordings = []
    for item in read_items(source, path, subset):
        if isinstance(item, Recording):
            recordings.append(item)
        else:
            log.warning("data: %s", item)
    return recordings


def read_items(source: str, path: Path, subset: str | None = None) -> list[Item]:
    """The recordings of a corpus and the items dropped for their transcripts, in a fixed order; each id once.

    `source`: manifest, librispeech, ljspeech or common_voice. `subset`: a subset of LibriSpeech (None: all that are
    there) or a table of Common Voice (None: train). Raises AudioProjectionError when `path` has another layout or no
    recording.
    """
    items = list(vetted(READERS[source](path, subset)))
    if not any(isinstance(item, Recording) for item in items):
        first = f" ({items[0]})" if items else ""
        raise AudioProjectionError(f"no recordings in {path}: nothing there looks like {source}{first}")
    return items


def vetted(items: Iterable[Item]) -> Iterator[Item]:
    """The items, with duplicate ids and texts that are not UTF-8 dropped."""
    seen: set[str] = set()
    for item in items:
        if isinstance(item, Dropped):
            yield item
        elif _has_stray_bytes(item.id + item.text):
            yield Dropped(item.id, item.audio, Reason.malformed, "it is not UTF-8")
        elif item.id in seen:
            yield Dropped(item.id, item.audio, Reason.duplicate, "the first one with this id counts")
        else:
            seen.add(item.id)
            yield item


def _has_stray_bytes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def read_manifest(path: Path, subset: str | None = None) -> Iterator[Item]:
    """A manifest: JSON lines with "audio" and "text" (and "speaker", "id"), or tab-separated audio, text[, speaker].

    The first line may name the columns. Relative audio paths start at the manifest's folder.
    """
    columns: list[str] | None = None
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        is_json = line.lstrip().startswith("{")
        if number == 1 and not is_json and set(_AUDIO_COLUMNS) & set(_names(line)):
            columns = _names(line)
            _check_columns(path, columns)
            continue
        try:
            entry = json.loads(line) if is_json else _table_entry(line, columns)
            audio, text = _string(entry, _AUDIO_COLUMNS), _string(entry, _TEXT_COLUMNS)
        except (LookupError, ValueError, TypeError):
            yield Dropped(f"{path.name} line {number}", path, Reason.malformed, "it has no audio path and text")
            continue
        speaker = next((str(entry[name]) for name in _SPEAKER_COLUMNS if entry.get(name) not in (None, "")), None)
        yield Recording(str(entry.get("id", audio)), path.parent / Path(audio).expanduser(), text, speaker)


def _names(line: str) -> list[str]:
    return [name.strip().lower() for name in line.split("\t")]


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if not set(_TEXT_COLUMNS) & set(columns):
        raise AudioProjectionError(
            f"{path} has the columns {', '.join(columns)}: one named text is needed, beside one named audio"
        )


def _table_entry(line: str, columns: Sequence[str] | None) -> dict[str, Any]:
    cells = [cell.strip() for cell in line.split("\t")]
    if columns is None and len(cells) < 2 or columns is not None and len(cells) != len(columns):
        raise ValueError("cells are missing")
    return dict(zip(columns or ("audio", "text", "speaker"), cells, strict=False))


def _string(entry: dict[str, Any], names: Sequence[str]) -> str:
    value = next(entry[name] for name in names if name in entry) if any(n in entry for n in names) else None
    if not isinstance(value, str):
        raise TypeError("audio and text must be strings")
    return value


def read_librispeech(path: Path, subset: str | None = None) -> Iterator[Item]:
    """LibriSpeech: `path/subset/<speaker>/<chapter>/*.flac`, `*.trans.txt`; upper-case texts become sentence case."""
    folders = [path / subset] if subset else sorted(folder for folder in path.glob("*") if folder.is_dir())
    if not folders or not folders[0].is_dir():
        raise AudioProjectionError(
            f"no LibriSpeech {subset or ''} in {path}: get it with `audio-projection data download librispeech`, "
            "or give the folder that holds it"
        )
    for folder in folders:
        for chapter in sorted(folder.glob("*/*")):
            yield from _read_chapter(chapter)


def _read_chapter(chapter: Path) -> Iterator[Item]:
    """A chapter of LibriSpeech: the lines of its transcript, then the audio files without a line."""
    unnamed = {file.stem: file for file in sorted(chapter.glob("*.flac"))}
    for transcript in sorted(chapter.glob("*.trans.txt")):
        for line in _lines(transcript):
            name, _, text = line.partition(" ")
            if name:
                unnamed.pop(name, None)
                yield Recording(name, chapter / f"{name}.flac", sentence_case(text), chapter.parent.name)
    yield from _without_transcript(unnamed)


def _without_transcript(files: dict[str, Path]) -> Iterator[Dropped]:
    return (Dropped(name, file, Reason.no_transcript) for name, file in files.items())


def read_ljspeech(path: Path, subset: str | None = None) -> Iterator[Item]:
    """LJSpeech: `path/metadata.csv` (id|text|normalised text) and `path/wavs/<id>.wav`; one speaker, LJ."""
    table = path / "metadata.csv"
    lines = _lines(table)
    unnamed = {file.stem: file for file in sorted((path / "wavs").glob("*.wav"))}
    for number, line in enumerate(lines, 1):
        name, *texts = line.split("|")
        unnamed.pop(name, None)
        if texts:
            yield Recording(name, path / "wavs" / f"{name}.wav", texts[-1], "LJ")
        elif line.strip():
            yield Dropped(f"{table.name} line {number}", table, Reason.malformed, "it is not id|text|normalised text")
    yield from _without_transcript(unnamed)


def read_common_voice(path: Path, subset: str | None = None) -> Iterator[Item]:
    """Common Voice: a language folder (its train.tsv, or the table `subset`), or one of its tables, beside `clips/`.

    Clips that the table does not name are no error: they belong to other tables.
    """
    table = path if path.suffix == ".tsv" else path / f"{subset or 'train'}.tsv"
    rows = csv.DictReader(_lines(table), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = {"path", "sentence", "client_id"} - set(rows.fieldnames or ())
    if missing:
        raise AudioProjectionError(f"{table} has no column {', '.join(sorted(missing))}: not a Common Voice table")
    for row in rows:
        name, text, speaker = row["path"], row["sentence"], row["client_id"]
        if name and text is not None and speaker is not None:
            yield Recording(name, table.parent / "clips" / name, text, speaker)
        else:
            yield Dropped(f"{table.name} line {rows.line_num}", table, Reason.malformed, "cells are missing")


READERS: dict[str, Callable[[Path, str | None], Iterator[Item]]] = {
    "manifest": read_manifest,
    "librispeech": read_librispeech,
    "ljspeech": read_ljspeech,
    "common_voice": read_common_voice,
}

_FIRST_PERSON = re.compile(r"\bi\b")


def sentence_case(text: str) -> str:
    """Turns an upper-case transcript without punctuation into a sentence: capital first letter and "I", full stop."""
    words = _FIRST_PERSON.sub("I", text.strip().lower())
    if not words:
        return ""
    return words[0].upper() + words[1:] + ("" if words[-1] in ".!?" else ".")


def speakable(text: str, where: str, reading: Reading | str = "none") -> str | None:
    """The normalised text, or None, with a warning that names `where` it stands, when it cannot be spoken."""
    try:
        return as_spoken(text, reading)
    except AudioProjectionError as error:
        log.warning("data: %s left out: %s", where, error)
        return None


def _lines(path: Path) -> list[str]:
    """Lines of a file, split at line feeds alone. Invalid UTF-8 becomes lone surrogates, which `vetted` drops."""
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise AudioProjectionError(
            f"cannot read {path}: {error.strerror or error}; check the path (data.path)"
        ) from None
    return [line.rstrip("\r") for line in text.split("\n")]
