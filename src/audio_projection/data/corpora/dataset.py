"""Reads a Hugging Face dataset saved on disk as recordings; audio that is stored in its tables becomes files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audio_projection.data.corpora import columns
from audio_projection.data.corpora.items import Dropped, Item, Reason, Recording, printable
from audio_projection.data.corpora.layouts import sentence_case
from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import write_bytes

_A_FOLDER = 1000  # files


def unpack(path: Path, split: str | None, folder: Path) -> Iterator[Item]:
    """The rows of a dataset that `save_to_disk` wrote; audio in its tables is written to `folder`, once.

    Texts in capitals become sentence case, as LibriSpeech's do. Where ids repeat (FLEURS has one for each sentence, not
    for each recording) the rows are known by their numbers. Raises AudioProjectionError without the `datasets`
    package, for a folder that is no dataset, for several splits without `split`, and without audio or text.
    """
    import_datasets()
    table = _load(path, split)
    audio, text, speaker = _columns(path, table)
    table = _undecoded(table, audio)
    names = _ids(table)
    for number, row in enumerate(table):
        name = names[number]
        file = _audio_file(row[audio], number, folder)
        if file is None:
            yield Dropped(name, path, Reason.no_audio, f"row {number}")
        elif not isinstance(row[text], str):
            yield Dropped(name, file, Reason.no_transcript, f"row {number}")
        else:
            reader = None if speaker is None or row[speaker] is None else str(row[speaker])
            recased = row[text].isupper()
            words = sentence_case(row[text]) if recased else row[text]
            yield Recording(name, file, words, reader, recased=recased)


def _ids(table: Any) -> list[str]:
    """A name for each row: the column `id` where all of its values differ, else the row's number."""
    given = list(table["id"]) if "id" in table.column_names else []
    names = [f"row {number}" if name in (None, "") else str(name) for number, name in enumerate(given)]
    if not names or max(Counter(names).values()) > 1:
        return [f"row {number}" for number in range(len(table))]
    return names


def import_datasets() -> Any:
    """The `datasets` package; AudioProjectionError when it is not installed."""
    try:
        import datasets
    except ImportError:
        raise AudioProjectionError(
            "reading a dataset needs the package datasets: pip install 'audio-projection[datasets]'"
        ) from None
    datasets.disable_progress_bars()
    return datasets


def _load(path: Path, split: str | None) -> Any:
    datasets = import_datasets()
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # a broken table raises whatever one of several libraries raises
        raise AudioProjectionError(
            f"{path} is no dataset that can be read ({type(error).__name__}: {printable(str(error))[:100]}); "
            "give a folder that save_to_disk wrote"
        ) from None
    if not isinstance(loaded, datasets.DatasetDict):
        return loaded
    names = list(loaded)
    if split is None and len(names) == 1:
        return loaded[names[0]]
    if split not in names:
        raise AudioProjectionError(f"{path} has the splits {', '.join(names)}: choose one with --subset")
    return loaded[split]


def _columns(path: Path, table: Any) -> tuple[str, str, str | None]:
    """Names of the columns with audio, text and speaker."""
    audio = [name for name, feature in table.features.items() if type(feature).__name__ == "Audio"]
    present = table.column_names
    text, speaker = columns.first(columns.TEXT, present), columns.first(columns.SPEAKER, present)
    if len(audio) != 1 or text is None:
        raise AudioProjectionError(
            f"{path} has the columns {', '.join(present)}: one of type Audio is needed and one named "
            f"{', '.join(columns.TEXT[:-1])} or {columns.TEXT[-1]}"
        )
    return audio[0], text, speaker


def _undecoded(table: Any, column: str) -> Any:
    return table.cast_column(column, import_datasets().Audio(decode=False))


def _audio_file(audio: dict[str, Any] | None, number: int, folder: Path) -> Path | None:
    """The audio file of a row: the one that it names, or one written from its bytes; None when it has neither."""
    if audio is None or (audio.get("bytes") is None and not audio.get("path")):
        return None
    content, name = audio.get("bytes"), audio.get("path") or ""
    if content is None:
        return Path(name)
    path = folder / f"{number // _A_FOLDER:05d}" / f"{number:08d}{Path(name).suffix}"
    if not path.is_file() or path.stat().st_size != len(content):
        write_bytes(path, content)
    return path
