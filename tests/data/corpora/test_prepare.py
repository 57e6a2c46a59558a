"""Corpus preparation: from published layouts to checked cuts, what is dropped and why, and interrupted runs."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_projection.config import DataConfig
from audio_projection.data.corpora.cuts import read_cuts
from audio_projection.data.corpora.prepare import Corpus, PreparedCorpus, prepare
from audio_projection.data.corpora.report import CorpusReport
from audio_projection.data.corpora.workers import run_shards
from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio
from helpers.corpora import assert_whole, contents, manifest, noise, run_killed, write_sound

MARK = "checks/*.json"


def kept(out: Path) -> list[Any]:
    return [recording for shard in range(PreparedCorpus(out).shards) for recording in read_cuts(out, shard)]


def prepared(source: Corpus, out: Path, shard: int = 8, **limits: Any) -> CorpusReport:
    return prepare(source, out, DataConfig(**limits), shard, 1)


def test_everything_wrong_is_named_with_its_reason(tmp_path: Path) -> None:
    sounds = tmp_path / "sounds"
    write_sound(sounds / "good.wav", noise(1.5))
    whole = write_sound(sounds / "truncated.flac", noise(1.5)).read_bytes()
    (sounds / "truncated.flac").write_bytes(whole[: len(whole) // 2])
    whole = write_sound(sounds / "truncated.mp3", noise(1.5)).read_bytes()
    (sounds / "truncated.mp3").write_bytes(whole[: len(whole) // 2])
    (sounds / "text.wav").write_text("this is no sound at all")
    (sounds / "nothing.wav").write_bytes(b"")
    write_sound(sounds / "zero.wav", noise(0))
    write_sound(sounds / "eight.wav", noise(1.5, 48000, 8), 48000)
    broken = noise(1.5)
    broken[7] = np.nan
    write_sound(sounds / "nan.wav", broken, subtype="FLOAT")
    write_sound(sounds / "short.wav", noise(0.1))
    write_sound(sounds / "long.wav", noise(9))
    write_sound(sounds / "silent.wav", noise(1.5) * 1e-4)
    write_sound(sounds / "clipped.wav", np.clip(20 * noise(1.5), -1, 1))
    said = dict.fromkeys(sorted(path.name for path in sounds.iterdir()), "the quick brown fox")
    lines = [json.dumps({"audio": f"sounds/{name}", "text": text, "id": name}) for name, text in said.items()]
    lines += [
        json.dumps({"audio": "sounds/good.wav", "text": "again", "id": "good.wav"}),
        json.dumps({"audio": "sounds/good.wav", "text": " ... ", "id": "no words"}),
        json.dumps({"audio": "sounds/good.wav", "text": "far too many words " * 9, "id": "hasty"}),
        json.dumps({"audio": "sounds/absent.wav", "text": "the quick", "id": "absent"}),
        json.dumps({"audio": "sounds/good.wav"}),
        '{"audio": "half of a li',
    ]
    (tmp_path / "list.jsonl").write_bytes("\n".join(lines).encode() + b"\nlatin.wav\tcaf\xe9 au lait")
    report = prepared(Corpus("manifest", tmp_path / "list.jsonl"), tmp_path / "out", shard=4, max_seconds=5)
    reasons = [(item.id, item.reason.value) for item in report.dropped]
    assert sorted(reasons) == sorted(
        {
            "truncated.flac": "unreadable audio",
            "truncated.mp3": "unreadable audio",
            "text.wav": "unreadable audio",
            "nothing.wav": "unreadable audio",
            "zero.wav": "no samples",
            "nan.wav": "NaN or infinite samples",
            "short.wav": "too short",
            "long.wav": "too long",
            "silent.wav": "silent",
            "clipped.wav": "clipped",
            "good.wav": "duplicate id",
            "no words": "text that cannot be spoken",
            "hasty": "text and duration do not fit",
            "absent": "transcript without audio",
            "list.jsonl line 17": "malformed line",
            "list.jsonl line 18": "malformed line",
            "latin.wav": "malformed line",
        }.items()
    )
    assert [recording.id for recording in kept(tmp_path / "out")] == ["eight.wav", "good.wav"]
    assert report.kept == 2 and report.seconds == pytest.approx(3.0)
    rows = [line.split("\t") for line in (tmp_path / "out/dropped.tsv").read_text().splitlines()]
    assert rows[0] == ["id", "path", "reason", "detail"] and len(rows) == 1 + len(report.dropped)
    assert all(len(row) == 4 for row in rows)
    assert json.loads((tmp_path / "out/report.json").read_text())["kept"] == {"items": 2, "seconds": 3.0}
    assert (tmp_path / "out/report.png").read_bytes().startswith(b"\x89PNG")


def test_lhotse_reads_the_cuts_itself(tmp_path: Path) -> None:
    import lhotse

    write_sound(tmp_path / "one.flac", noise(1.25))
    write_sound(tmp_path / "two.wav", noise(1.5, 44100, 2), 44100)
    (tmp_path / "list.tsv").write_text("path\tspeaker\ttext\none.flac\tada\tthe fox\ntwo.wav\t\tthe dog\n")
    prepared(Corpus("manifest", tmp_path / "list.tsv"), tmp_path / "out", shard=1)
    cuts = list(lhotse.CutSet.from_files(sorted((tmp_path / "out").glob("cuts.*.jsonl.gz")), shuffle_iters=False))
    assert [(cut.id, cut.duration, cut.sampling_rate) for cut in cuts] == [
        ("one.flac", 1.25, 16000),
        ("two.wav", 1.5, 44100),
    ]
    assert [(cut.supervisions[0].text, cut.supervisions[0].speaker) for cut in cuts] == [
        ("the fox", "ada"),
        ("the dog", None),
    ]
    assert cuts[1].load_audio().shape == (2, 66150)


@pytest.mark.parametrize(
    ("name", "rate", "kind"),
    [
        ("a.wav", 8000, {}),
        ("a.flac", 22050, {}),
        ("a.mp3", 44100, {}),
        ("a.ogg", 32000, {}),
        ("a.opus", 48000, {"format": "OGG", "subtype": "OPUS"}),
    ],
)
def test_every_format_at_any_rate(tmp_path: Path, name: str, rate: int, kind: dict[str, str]) -> None:
    write_sound(tmp_path / name, noise(1.5, rate, 2), rate, **kind)
    (tmp_path / "list.tsv").write_text(f"{name}\tthe quick brown fox\n")
    report = prepared(Corpus("manifest", tmp_path / "list.tsv"), tmp_path / "out")
    assert report.kept == 1 and report.seconds == pytest.approx(1.5, abs=0.06)
    assert len(audio.read(tmp_path / name, 24000)) == pytest.approx(36000, abs=1500)


def test_sounds_without_transcript_are_named(tmp_path: Path) -> None:
    chapter = tmp_path / "LibriSpeech/dev-clean/103/7"
    for name in ("103-7-0000", "103-7-0001"):
        write_sound(chapter / f"{name}.flac", noise(1.5))
    (chapter / "103-7.trans.txt").write_text("103-7-0000 I SAID I'M WELL\n")
    report = prepared(Corpus("librispeech", tmp_path / "LibriSpeech"), tmp_path / "out")
    (recording,) = kept(tmp_path / "out")
    assert (recording.id, recording.text, recording.speaker) == ("103-7-0000", "I said I'm well.", "103")
    assert [(item.id, item.reason.value) for item in report.dropped] == [("103-7-0001", "audio without transcript")]


def test_tables_with_the_wrong_columns(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("path\tduration\na.wav\t3\n")
    for kind, words in (
        ("manifest", "columns path, duration: one named text"),
        ("common_voice", "no column client_id"),
    ):
        with pytest.raises(AudioProjectionError, match=words):
            prepared(Corpus(kind, tmp_path / "train.tsv"), tmp_path / "out")
    (tmp_path / "one.tsv").write_text("only one column\n")
    with pytest.raises(AudioProjectionError, match="no recordings in .*line 1 left out: malformed"):
        prepared(Corpus("manifest", tmp_path / "one.tsv"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_fit_is_an_error_that_names_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "list.tsv").write_text("absent.wav\tthe fox\n")
    with pytest.raises(AudioProjectionError, match="1 transcript without audio; see .*dropped.tsv"):
        prepared(Corpus("manifest", tmp_path / "list.tsv"), tmp_path / "out")
    assert "absent.wav" in (tmp_path / "out/dropped.tsv").read_text()


def test_another_corpus_or_limit_is_refused(tmp_path: Path) -> None:
    source = Corpus("manifest", manifest(tmp_path, 3))
    prepared(source, tmp_path / "out")
    with pytest.raises(AudioProjectionError, match="max_seconds 20.0, now 9.0.*choose another folder"):
        prepared(source, tmp_path / "out", max_seconds=9)
    (tmp_path / "list.tsv").write_text("00.wav\tother words\n")
    with pytest.raises(AudioProjectionError, match="prepared from something else .digest"):
        prepared(source, tmp_path / "out")


def test_the_three_published_corpora(tmp_path: Path, shared: Path) -> None:
    corpora = shared / "data" / "corpora"
    voices = next(corpora.glob("cv-corpus*")) / "en"
    for source, count in (
        (Corpus("librispeech", corpora / "LibriSpeech"), 4),
        (Corpus("ljspeech", corpora / "LJSpeech-1.1"), 32),
        (Corpus("common_voice", voices, "dev"), 12),
    ):
        report = prepared(source, tmp_path / source.kind)
        assert (report.kept, report.dropped) == (count, [])
        assert all(recording.audio.is_file() for recording in kept(tmp_path / source.kind))


def test_a_saved_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    flac = write_sound(tmp_path / "a.flac", noise(1.5)).read_bytes()
    sounds = [{"bytes": flac, "path": "a.flac"}, {"bytes": None, "path": str(tmp_path / "a.flac")}, None]
    columns = {"audio": sounds, "text": ["THE DOG SAID I", "the fox", "x"], "speaker_id": [7, 8, 9]}
    table = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
    datasets.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(tmp_path / "saved")
    with pytest.raises(AudioProjectionError, match="splits train, test: choose one with --subset"):
        prepared(Corpus("dataset", tmp_path / "saved"), tmp_path / "out")
    report = prepared(Corpus("dataset", tmp_path / "saved", "train"), tmp_path / "out")
    assert [(item.text, item.speaker) for item in kept(tmp_path / "out")] == [
        ("The dog said I.", "7"),
        ("the fox", "8"),
    ]
    assert [item.reason.value for item in report.dropped] == ["transcript without audio"]
    assert (tmp_path / "out/audio/00000/00000000.flac").read_bytes() == flac
    with pytest.raises(AudioProjectionError, match="no dataset that can be read"):
        prepared(Corpus("dataset", tmp_path), tmp_path / "other")


def test_a_dataset_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(AudioProjectionError, match="pip install 'audio-projection.datasets.'"):
        prepared(Corpus("dataset", tmp_path), tmp_path / "out")


@pytest.mark.posix
@pytest.mark.parametrize("kills", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments_changes_nothing(tmp_path: Path, kills: int) -> None:
    source = Corpus("manifest", manifest(tmp_path, 3 * kills))
    prepared(source, tmp_path / "straight", shard=2)
    work = partial(prepared, source, tmp_path / "killed", shard=2)
    run_killed(work, tmp_path / "killed", MARK, kills, seed=kills)
    assert contents(tmp_path / "straight") == contents(tmp_path / "killed")
    assert not [*(tmp_path / "killed").rglob(".*.tmp")]


def limited(work: Callable[[], Any], size: int, words: Any) -> None:
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        work()
    except AudioProjectionError as error:
        words.send(str(error))


@pytest.mark.posix
def test_a_full_disk_leaves_nothing_torn(tmp_path: Path) -> None:
    source = Corpus("manifest", manifest(tmp_path, 6))
    prepared(source, tmp_path / "straight", shard=2)
    work = partial(prepared, source, tmp_path / "full", shard=2)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=limited, args=(work, 800, sender))  # room for some files, but not for the picture
    process.start()
    process.join(60)
    assert receiver.poll(60) and "cannot write" in (words := receiver.recv()) and "choose a folder with space" in words
    assert_whole(tmp_path / "full")
    assert not (tmp_path / "full/report.json").exists()
    with pytest.raises(AudioProjectionError, match="not prepared to its end"):
        PreparedCorpus(tmp_path / "full")
    work()
    assert contents(tmp_path / "straight") == contents(tmp_path / "full")


def test_work_is_spread_over_processes_and_errors_come_back() -> None:
    """`make(number)` gives what does the tasks of one process: here max(number, task) and divmod(number, task)."""
    assert sorted(run_shards(partial(partial, max), range(2, 11), 2)) == [*range(2, 11)]
    with pytest.raises(ZeroDivisionError):
        list(run_shards(partial(partial, divmod), [2, 1, 0], 2))


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_files(tmp_path: Path) -> None:
    source = Corpus("manifest", manifest(tmp_path, 12))
    for processes in (1, 3):
        prepare(source, tmp_path / str(processes), DataConfig(), 2, processes)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert os.path.isfile(tmp_path / "3" / "report.png")
