"""Readers of speech corpora in their published layouts: LibriSpeech, LibriTTS, LJSpeech, Common Voice, manifests.

Each gives audio file, text and speaker; only transcripts are read. A malformed line drops that line, never the others.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from audio_projection.data.corpora import columns
from audio_projection.data.corpora.items import Dropped, Item, Reason, Recording
from audio_projection.errors import AudioProjectionError
from audio_projection.files.corpus_folders import check_librispeech, check_table
from audio_projection.text.input_text import Reading, as_spoken

log = logging.getLogger(__name__)


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

    `source`: manifest, librispeech, libritts, ljspeech or common_voice. `subset`: a subset of LibriSpeech (None: all
    that are there) or a table of Common Voice (None: train). Raises AudioProjectionError when `path` has another layout
    or no recording.
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
    """A manifest: JSON lines with "audio" and "text" (and "speaker", "id", "offset", "duration"), or tab-separated
    audio, text[, speaker].

    The first line of a table may name the columns; the names are those in `columns`. `offset` and `duration`, in
    seconds, cut a segment out of the file. Relative audio paths start at the manifest's folder. Keys that mean nothing
    here are named in a warning. Ids that come again with other sound (FLEURS has one for each sentence) get the file's
    name beside them.
    """
    yield from _told_apart(list(_manifest_items(path)), path)


def _manifest_items(path: Path) -> Iterator[Item]:
    names: list[str] | None = None
    unused: dict[str, None] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        is_json = line.lstrip().startswith("{")
        if number == 1 and line.lstrip().startswith("[") and "\t" not in line:
            raise AudioProjectionError(f"{path} is one JSON list: write an object a line (jq -c '.[]' {path.name})")
        if number == 1 and not is_json and set(columns.AUDIO) & set(_names(line)):
            names = _names(line)
            _check_columns(path, names)
            continue
        try:
            entry = _json_entry(line) if is_json else _table_entry(line, names)
            recording = _manifest_recording(path.parent, entry)
        except (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:  # deep JSON, ~nobody
            yield Dropped(f"{path.name} line {number}", path, Reason.malformed, str(error))
            continue
        unused |= dict.fromkeys(key for key in entry if key not in _MANIFEST_KEYS)
        yield recording
    if unused:
        log.warning("data: %s: not used: %s", path, ", ".join(unused))


def _told_apart(items: list[Item], path: Path) -> Iterator[Item]:
    """The items; recordings with an id that others have too, of other sound, get a name of their own."""
    sounds: dict[str, set[tuple[Path, float, float | None]]] = {}
    for item in items:
        if isinstance(item, Recording):
            sounds.setdefault(item.id, set()).add((item.audio, item.offset, item.duration))
    shared = {name for name, each in sounds.items() if len(each) > 1}
    if shared:
        log.warning(
            "data: %s: %d ids come again with other sound: their files are named beside them", path, len(shared)
        )
    for item in items:
        if isinstance(item, Recording) and item.id in shared:
            end = "" if item.duration is None else f"{item.offset + item.duration:g}"
            yield replace(item, id=f"{item.id} ({item.audio.name}, {item.offset:g}-{end} s)")
        else:
            yield item


_MANIFEST_KEYS = {"id", *columns.AUDIO, *columns.TEXT, *columns.SPEAKER, *columns.SEGMENT}


def _names(line: str) -> list[str]:
    return [name.strip().lower() for name in line.split("\t")]


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if not set(columns.TEXT) & set(names):
        raise AudioProjectionError(
            f"{path} has the columns {', '.join(names)}: one named text is needed, beside one named audio"
        )


def _json_entry(line: str) -> dict[str, Any]:
    return {key.lower(): value for key, value in json.loads(line).items()}


def _table_entry(line: str, names: Sequence[str] | None) -> dict[str, Any]:
    cells = [cell.strip() for cell in line.split("\t")]
    expected = range(len(names), len(names) + 1) if names else range(2, 4)
    if len(cells) not in expected:
        raise ValueError(f"it has {len(cells)} cells, not {' or '.join(map(str, expected))}: tabs separate them")
    return dict(zip(names or ("audio", "text", "speaker"), cells, strict=False))


def _manifest_recording(folder: Path, entry: dict[str, Any]) -> Recording:
    """Raises LookupError, ValueError or TypeError for an entry without audio or text, or with an impossible segment."""
    audio, text = _string(entry, columns.AUDIO), _string(entry, columns.TEXT)
    offset, duration = _seconds(entry, "offset") or 0.0, _seconds(entry, "duration")
    if offset < 0 or (duration is not None and duration <= 0):
        raise ValueError(f"its segment begins at {offset:g} s and is {duration} s long")
    given = entry.get("id")
    segment = f" from {offset:g} s" if offset else ""
    name = f"{audio}{segment}" if given in (None, "") else str(given)
    speakers = (entry[key] for key in columns.SPEAKER if entry.get(key) not in (None, ""))
    speaker = next((str(each) for each in speakers), None)
    return Recording(name, folder / Path(audio).expanduser(), text, speaker, offset, duration)


def _string(entry: dict[str, Any], names: Sequence[str]) -> str:
    name = columns.first(names, entry)
    value = None if name is None else entry[name]
    if not isinstance(value, str):
        raise TypeError("it has no audio path and text")
    return value


def _seconds(entry: dict[str, Any], name: str) -> float | None:
    """A number of seconds; None where there is none."""
    value = entry.get(name)
    if value in (None, ""):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not math.isfinite(float(value)):
        raise ValueError(f"its {name} is {value!r}, no number of seconds")
    return float(value)


def read_librispeech(path: Path, subset: str | None = None) -> Iterator[Item]:
    """LibriSpeech, and LibriTTS, which has the same folders: `path/subset/<speaker>/<chapter>/`.

    LibriSpeech has a `*.trans.txt` for a chapter, whose upper-case texts become sentence case; LibriTTS has a
    `*.normalized.txt` for a recording, or a `*.trans.tsv` for a chapter, whose normalised texts are taken as they are.
    """
    check_librispeech(path, subset)
    folders = [path / subset] if subset else sorted(folder for folder in path.glob("*") if folder.is_dir())
    for folder in folders:
        for chapter in sorted(folder.glob("*/*")):
            yield from _read_chapter(chapter)


def _read_chapter(chapter: Path) -> Iterator[Item]:
    """A chapter of LibriSpeech or LibriTTS: its transcripts, then the audio files without one."""
    sounds = {file.stem: file for file in sorted(chapter.glob("*")) if file.suffix in (".flac", ".wav", ".opus")}
    unnamed = dict(sounds)
    for name, text in _chapter_texts(chapter):
        unnamed.pop(name, None)
        recased = text.isupper()
        sound = sounds.get(name, chapter / f"{name}.flac")
        yield Recording(name, sound, sentence_case(text) if recased else text, chapter.parent.name, recased=recased)
    yield from _without_transcript(unnamed)


def _chapter_texts(chapter: Path) -> Iterator[tuple[str, str]]:
    """(id, text) of a chapter's transcripts."""
    for transcript in sorted(chapter.glob("*.trans.txt")):
        for line in _lines(transcript):
            name, _, text = line.partition(" ")
            if name:
                yield name, text
    alone = sorted(chapter.glob("*.normalized.txt"))
    for transcript in alone:
        yield transcript.name.removesuffix(".normalized.txt"), "\n".join(_lines(transcript)).strip()
    for transcript in [] if alone else sorted(chapter.glob("*.trans.tsv")):
        for line in _lines(transcript):
            name, *texts = line.split("\t")
            if name and texts:
                yield name, texts[-1]


def _without_transcript(files: dict[str, Path]) -> Iterator[Dropped]:
    return (Dropped(name, file, Reason.no_transcript) for name, file in files.items())


def read_ljspeech(path: Path, subset: str | None = None) -> Iterator[Item]:
    """LJSpeech: `path/metadata.csv` (id|text|normalised text) and `path/wavs/<id>.wav`; one speaker, LJ.

    Corpora made after it are read too: id|text, and id|text|speaker or id|speaker|text, where the column that
    repeats is the speaker. A last cell that is empty is passed over.
    """
    table = path / "metadata.csv"
    check_table("ljspeech", path)
    rows = [line.split("|") for line in _lines(table)]
    widths = Counter(len(cells) for cells in rows if len(cells) > 1).most_common(1)
    most = widths[0][0] if widths else 0
    rows = [cells if any(cell.strip() for cell in cells[most:]) else cells[:most] for cells in rows]
    speaker = _speaker_column([cells for cells in rows if 1 < len(cells) <= most])
    if speaker is not None:
        log.warning("data: %s: column %d repeats: taken as the speaker, not as text", table, speaker + 1)
    unnamed = {file.stem: file for file in sorted((path / "wavs").glob("*.wav"))}
    for number, cells in enumerate(rows, 1):
        name = Path(cells[0].strip()).name.removesuffix(".wav")
        unnamed.pop(name, None)
        texts = [cell for column, cell in enumerate(cells) if column not in (0, speaker) and cell.strip()]
        reader = cells[speaker].strip() if speaker is not None and len(cells) > speaker else ""
        if 1 < len(cells) <= most:
            yield Recording(name, path / "wavs" / f"{name}.wav", texts[-1] if texts else "", reader or "LJ")
        elif any(cell.strip() for cell in cells):
            yield Dropped(f"{table.name} line {number}", table, Reason.malformed, "it is not id|text|normalised text")
    yield from _without_transcript(unnamed)


def _speaker_column(rows: Sequence[Sequence[str]]) -> int | None:
    """The column after the id with a label in it, not a text: its values repeat, or are single words beside texts."""
    count = max(map(len, rows), default=0)
    values = {column: [cells[column].strip() for cells in rows if len(cells) > column] for column in range(1, count)}
    values = {column: [cell for cell in cells if cell] for column, cells in values.items()}
    most = max((len(set(cells)) for cells in values.values()), default=0)
    labels = [column for column, cells in values.items() if cells and 2 * len(set(cells)) <= min(most, len(cells))]
    if not labels and any(" " in cell for cells in values.values() for cell in cells):
        labels = [column for column, cells in values.items() if cells and not any(" " in cell for cell in cells)]
    return labels[0] if labels and len(values) > 1 else None


def read_common_voice(path: Path, subset: str | None = None) -> Iterator[Item]:
    """Common Voice: a language folder (its train.tsv, or the table `subset`), or one of its tables, beside `clips/`.

    A row whose cells do not match the header is dropped: a tab in a sentence cuts it in two. Clips that the table does
    not name are no error: they belong to other tables.
    """
    table = path if path.suffix == ".tsv" else path / f"{subset or 'train'}.tsv"
    if not table.is_file():
        _explain_common_voice(path, table)
    header, *lines = _lines(table)
    names = header.split("\t")
    missing = {"path", "sentence", "client_id"} - set(names)
    if missing:
        raise AudioProjectionError(f"{table} has no column {', '.join(sorted(missing))}: not a Common Voice table")
    for number, line in enumerate(lines, 2):
        cells = line.split("\t")
        if len(cells) != len(names):
            if line.strip():
                detail = f"it has {len(cells)} cells, the header {len(names)}"
                yield Dropped(f"{table.name} line {number}", table, Reason.malformed, detail)
            continue
        row = dict(zip(names, cells, strict=True))
        if row["path"]:
            clip = table.parent / "clips" / row["path"]
            yield Recording(row["path"], clip, row["sentence"], row["client_id"] or None)
        else:
            yield Dropped(f"{table.name} line {number}", table, Reason.malformed, "it names no clip")


def _explain_common_voice(path: Path, table: Path) -> None:
    """Raises AudioProjectionError when the language folder is one level off, or has other tables."""
    check_table("common_voice", path, table.name)
    tables = sorted(file.stem for file in path.glob("*.tsv"))
    if tables:
        raise AudioProjectionError(
            f"there is no {table.name} in {path}: choose one of {', '.join(tables)} with --subset"
        )


READERS: dict[str, Callable[[Path, str | None], Iterator[Item]]] = {
    "manifest": read_manifest,
    "librispeech": read_librispeech,
    "libritts": read_librispeech,
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
    except IsADirectoryError:
        raise AudioProjectionError(_folder_for_file(path)) from None
    except OSError as error:
        raise AudioProjectionError(
            f"cannot read {path}: {error.strerror or error}; check the path (data.path)"
        ) from None
    return [line.rstrip("\r") for line in text.split("\n")]


def _folder_for_file(folder: Path) -> str:
    if (folder / "prepare.json").is_file():
        return f"{folder} is a prepared corpus: encode it with `audio-projection data features {folder} OUT`"
    files = [file.name for file in sorted(folder.iterdir()) if file.suffix in (".jsonl", ".json", ".tsv", ".txt")]
    some = f" ({', '.join(files[:3])})" if files else ""
    return f"{folder} is a folder: give the file in it that lists the recordings{some}"
