"""Corpus preparation: checks every recording of a corpus and writes Lhotse cuts; unfit ones are listed with a reason.

The output folder has `prepare.json` (source and limits), and for each shard of the corpus `cuts.00000.jsonl.gz` and
`checks/00000.json`, which is written last: a shard without it is not finished. At the end come `dropped.tsv`,
`report.png` and `report.json`; a corpus without the last is not finished. A shard has the same items in any process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from audio_projection.alignment.token_states import chunks
from audio_projection.config import DataConfig
from audio_projection.data.corpora.checks import check_pace, clean_text, letters, read_audio
from audio_projection.data.corpora.cuts import is_whole, to_cut, write_cuts
from audio_projection.data.corpora.dataset import unpack
from audio_projection.data.corpora.items import Dropped, Item, Recording, Unusable, printable
from audio_projection.data.corpora.layouts import read_items, vetted
from audio_projection.data.corpora.report import CorpusReport, Histogram, write_dropped
from audio_projection.data.corpora.workers import run_shards
from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import remove_unfinished, write_json
from audio_projection.files.json_reader import read_json
from audio_projection.files.lock import folder_lock
from audio_projection.files.progress import shown

FORMAT = "audio-projection-prepared"
VERSION = 1
_IN_WORDS = {"digest": "digest of its recordings and transcripts"}
LIMITS = ("min_seconds", "max_seconds", "silence_db", "clipped_share", "slowest", "fastest")
"""Keys of `data` that decide which recordings are kept."""


@dataclass(frozen=True)
class Corpus:
    """A corpus on the disk; `kind` is one of `layouts.READERS`, or dataset."""

    kind: str
    path: Path
    subset: str | None = None

    def items(self, out: Path) -> list[Item]:
        """All items of the corpus, in a fixed order; audio inside a dataset's tables is written to `out`."""
        if self.kind == "dataset":
            return list(vetted(unpack(self.path, self.subset, out / "audio")))
        return read_items(self.kind, self.path, self.subset)


class PreparedCorpus:
    """A finished corpus preparation in a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises AudioProjectionError for a foreign or unfinished folder."""
        self.folder = folder
        if (folder / "pairs.json").is_file() and not (folder / "prepare.json").is_file():
            raise AudioProjectionError(
                f"no prepared corpus in {folder}: these are pairs, which are encoded already; train with "
                f"data.source=pairs data.path={folder}"
            )
        if not (folder / "prepare.json").is_file():
            raise AudioProjectionError(f"no prepared corpus in {folder}: make it with `audio-projection data prepare`")
        record = _read_record(folder)
        if not (folder / "report.json").is_file():
            raise AudioProjectionError(
                f"the corpus in {folder} is not prepared to its end; run `audio-projection data prepare` again: it "
                "goes on where it stopped"
            )
        self.shards: int = record["shards"]
        self.digest: str = record["digest"]
        self.limits = DataConfig(**{name: record[name] for name in LIMITS})
        self.seconds: float = read_json(folder / "report.json")["kept"]["seconds"]


def prepare(corpus: Corpus, out: Path, limits: DataConfig, shard_size: int, processes: int) -> CorpusReport:
    """Checks a corpus and writes cuts and report to `out`; resumes an interrupted call.

    The files are the same for any number of `processes`. Raises AudioProjectionError when the corpus has no recording
    or none that passes the checks, and when `out` was made from something else or cannot be written.
    """
    items = corpus.items(out)
    with folder_lock(out):
        return _prepare(corpus, items, out, limits, shard_size, processes)


def _prepare(
    corpus: Corpus, items: list[Item], out: Path, limits: DataConfig, shard_size: int, processes: int
) -> CorpusReport:
    shards = list(chunks(items, shard_size))
    _claim(out, _record(corpus, items, limits, len(shards)))
    for folder in (out, _check_file(out, 0).parent):
        remove_unfinished(folder)
    missing = [(number, shard) for number, shard in enumerate(shards) if not _check_file(out, number).is_file()]
    make = partial(_checker, out, limits)
    for _ in shown(run_shards(make, missing, processes), "checking the recordings", len(missing)):
        pass
    report = CorpusReport.of([read_json(_check_file(out, number)) for number in range(len(shards))], str(corpus.path))
    if not report.kept:
        write_dropped(out / "dropped.tsv", report.dropped)
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.reasons.items())
        raise AudioProjectionError(f"nothing in {corpus.path} is fit for training: {reasons}; see {out}/dropped.tsv")
    report.write(out)
    return report


def check_shard(out: Path, limits: DataConfig, task: tuple[int, Sequence[Item]]) -> None:
    """Decodes and checks the items of one shard; writes its cuts and its record."""
    number, items = task
    cuts: list[dict[str, Any]] = []
    dropped: list[Dropped] = []
    seconds, durations, paces = 0.0, Histogram.durations(), Histogram.paces()
    for item in items:
        if isinstance(item, Dropped):
            dropped.append(item)
            continue
        try:
            cut, text = checked(item, limits)
        except Unusable as reason:
            dropped.append(reason.dropping(item))
            continue
        cuts.append(cut)
        length = cut["duration"]
        seconds += length
        durations.add(length)
        paces.add(letters(text) / length)
    write_cuts(out, number, cuts)
    write_json(
        _check_file(out, number),
        {
            "kept": len(cuts),
            "recased": sum(item.recased for item in items if isinstance(item, Recording)),
            "seconds": seconds,
            "durations": durations.counts,
            "paces": paces.counts,
            "dropped": [[*map(printable, item.cells)] for item in dropped],
        },
    )


def checked(recording: Recording, limits: DataConfig) -> tuple[dict[str, Any], str]:
    """The cut of a recording that passes every check, and its text; raises Unusable for any other."""
    text = clean_text(recording)
    audio = read_audio(recording, limits)
    check_pace(text, audio.seconds, limits)
    return to_cut(recording, text, audio), text


def _checker(out: Path, limits: DataConfig, number: int) -> Callable[[tuple[int, Sequence[Item]]], None]:
    return partial(check_shard, out, limits)


def _check_file(out: Path, shard: int) -> Path:
    return out / "checks" / f"{shard:05d}.json"


def _record(corpus: Corpus, items: Sequence[Item], limits: DataConfig, shards: int) -> dict[str, Any]:
    """Everything that the output depends on; the audio files are assumed not to change."""
    digest = hashlib.sha256()
    for item in items:
        if isinstance(item, Recording):
            cells: tuple[str, ...] = (item.id, str(item.audio), item.text, str(item.speaker))
            if not is_whole(item):
                cells += (str(item.offset), str(item.duration))
        else:
            cells = item.cells
        digest.update("\0".join((*cells, "\n")).encode(errors="surrogateescape"))
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": corpus.kind,
        "subset": corpus.subset,
        "shards": shards,
        "digest": digest.hexdigest(),
        **limits.model_dump(mode="json", include=set(LIMITS)),
    }


def _claim(out: Path, record: dict[str, Any]) -> None:
    """Writes prepare.json; raises AudioProjectionError when `out` was made from another corpus or with other limits."""
    index = out / "prepare.json"
    if not index.is_file():
        write_json(index, record)
        return
    present = _read_record(out)
    for name, value in record.items():
        if present.get(name) != value:
            words = _IN_WORDS.get(name, name)
            raise AudioProjectionError(
                f"{out} was prepared from something else ({words} {str(present.get(name))[:20]}, now "
                f"{str(value)[:20]}); choose another folder, or delete that one"
            )


def _read_record(out: Path) -> dict[str, Any]:
    record = read_json(out / "prepare.json")
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        raise AudioProjectionError(f"{out} is no corpus prepared by this program; choose another folder")
    return record
