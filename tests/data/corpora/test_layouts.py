"""Corpora as people have them: odd rows, other columns, folders of another level."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_projection.config import DataConfig
from audio_projection.data.corpora.checks import clean_text, read_audio
from audio_projection.data.corpora.cuts import read_cuts
from audio_projection.data.corpora.items import Recording
from audio_projection.data.corpora.layouts import read_items, read_recordings
from audio_projection.data.corpora.prepare import Corpus, PreparedCorpus, prepare
from audio_projection.data_loader import read_texts
from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import find_corpus
from helpers.corpora import noise, write_sound

HEADER = "client_id\tpath\tsentence\tlocale\n"


def reasons(source: str, path: Path, subset: str | None = None) -> list[tuple[str, str]]:
    """(id, text) of a recording, (id, reason) of what is dropped."""
    items = read_items(source, path, subset)
    return [(item.id, clean_text(item) if isinstance(item, Recording) else item.reason.value) for item in items]


def test_common_voice_sentences_with_a_return_or_a_tab(tmp_path: Path) -> None:
    rows = (
        "ada\ta.mp3\tThe first\rline.\ten\r\n",
        "ada\tb.mp3\tHalf a sentence\tand the other half.\ten\n",
        'ada\tc.mp3\t"Quoted," he said.\ten\n',
        "ada\td.mp3\tNo locale.\n",
        "\te.mp3\tNobody spoke.\ten\n",
        "ada\t\tNo clip.\ten\n",
        "ada\tf.mp3\tUnit\x1dand\x85line separators\u2028stay.\ten",
    )
    (tmp_path / "train.tsv").write_bytes((HEADER + "".join(rows)).encode())
    assert reasons("common_voice", tmp_path) == [
        ("a.mp3", "The first line."),
        ("train.tsv line 3", "malformed line"),
        ("c.mp3", '"Quoted," he said.'),
        ("train.tsv line 5", "malformed line"),
        ("e.mp3", "Nobody spoke."),
        ("train.tsv line 7", "malformed line"),
        ("f.mp3", "Unit and line separators stay."),
    ]


def test_texts_are_split_at_line_feeds_alone(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes("\ufeffOne\rsentence.\r\nAnother\u2028one.\n\nThe\tlast.".encode())
    texts = read_texts(DataConfig(texts=tmp_path / "texts.txt"), "none")
    assert texts == ["One sentence.", "Another one.", "The last."]


def test_manifest_rows_that_do_not_match(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("audio\ttext\na.wav\tone\ntwo\nb.wav\tthree\tfour\nc.wav\ta\rb\n")
    assert reasons("manifest", tmp_path / "a.tsv") == [
        ("a.wav", "one"),
        ("a.tsv line 3", "malformed line"),
        ("a.tsv line 4", "malformed line"),
        ("c.wav", "a b"),
    ]
    (tmp_path / "b.tsv").write_text("a.wav\tone\tada\nb.wav\ttwo\tbo\textra\n")
    assert [name for name, _ in reasons("manifest", tmp_path / "b.tsv")] == ["a.wav", "b.tsv line 2"]


@pytest.mark.parametrize(
    ("rows", "expected", "speakers"),
    [
        (["a|Mr. Fox.|Mister Fox.", "b|The dog.|"], ["Mister Fox.", "The dog."], ["LJ", "LJ"]),
        (["a|The fox.", "b|The dog."], ["The fox.", "The dog."], ["LJ", "LJ"]),
        (["a|The fox.|ada", "b|The dog.|bo"], ["The fox.", "The dog."], ["ada", "bo"]),
        (["a|ada|The fox.", "b|bo|The dog.", "c|ada|A hen."], ["The fox.", "The dog.", "A hen."], ["ada", "bo", "ada"]),
        (
            ["a|One.|speaker one", "b|Two.|speaker one", "c|Three.|speaker two", "d|Four.|speaker two"],
            ["One.", "Two.", "Three.", "Four."],
            ["speaker one", "speaker one", "speaker two", "speaker two"],
        ),
        (["a.wav|The fox.", "wavs/b.wav|The dog."], ["The fox.", "The dog."], ["LJ", "LJ"]),
    ],
)
def test_pipes(tmp_path: Path, rows: list[str], expected: list[str], speakers: list[str]) -> None:
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    found = read_recordings("ljspeech", tmp_path)
    assert [item.text for item in found] == expected
    assert [item.speaker for item in found] == speakers
    assert [item.audio for item in found] == [tmp_path / "wavs" / f"{name}.wav" for name in "abcd"[: len(rows)]]


def test_a_column_that_repeats_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "metadata.csv").write_text("a|The fox.|ada\nb|The dog.|ada\n")
    read_recordings("ljspeech", tmp_path)
    assert "column 3 repeats: taken as the speaker, not as text" in caplog.text


def test_a_pipe_in_a_text_is_malformed(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("a|The fox.|The fox.\nb|The dog or|the hen.|The dog or|the hen.\n")
    assert reasons("ljspeech", tmp_path) == [("a", "The fox."), ("metadata.csv line 2", "malformed line")]


def test_a_pipe_in_a_text_of_a_table_of_two_columns_is_malformed(tmp_path: Path) -> None:
    rows = ["a|One two.", "b|Three | four", "c|Five six.|", "d|Seven eight."]
    (tmp_path / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    assert reasons("ljspeech", tmp_path) == [
        ("a", "One two."),
        ("metadata.csv line 2", "malformed line"),
        ("c", "Five six."),
        ("d", "Seven eight."),
    ]


def lines_of(path: Path, *entries: object) -> Path:
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries), encoding="utf-8")
    return path


def test_ids_of_a_manifest_that_come_again_lose_no_recording(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = {"id": 3, "audio": "a.wav", "text": "One."}
    other, alone = {"id": 3, "audio": "b.wav", "text": "One."}, {"id": 4, "audio": "c.wav", "text": "Two."}
    start, end = ({"audio": "d.wav", "text": "Three.", "duration": seconds} for seconds in (1.5, 2.5))
    path = lines_of(tmp_path / "list.jsonl", whole, other, alone, start, end, alone)
    assert reasons("manifest", path) == [
        ("3 (a.wav, 0- s)", "One."),
        ("3 (b.wav, 0- s)", "One."),
        ("4", "Two."),
        ("d.wav (d.wav, 0-1.5 s)", "Three."),
        ("d.wav (d.wav, 0-2.5 s)", "Three."),
        ("4", "duplicate id"),
    ]
    assert "2 ids come again with other sound" in caplog.text


@pytest.mark.parametrize("audio", ["audio", "audio_filepath", "path", "file_name", "audio_path", "File", "WAV"])
def test_names_of_the_audio_in_manifests(tmp_path: Path, audio: str) -> None:
    as_json = lines_of(tmp_path / "list.jsonl", {audio: "a.wav", "Transcription": "One."})
    (tmp_path / "list.tsv").write_text(f"{audio}\ttranscription\na.wav\tOne.\n", encoding="utf-8")
    assert reasons("manifest", as_json) == reasons("manifest", tmp_path / "list.tsv") == [("a.wav", "One.")]


def test_manifests_of_another_form_are_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "list"
    for text, words in (
        ('[{"audio": "a.wav", "text": "One."}]', "is one JSON list: write an object a line"),
        ('[\n {"audio": "a.wav", "text": "One."}\n]', "is one JSON list: write an object a line"),
        ("audio,text\na.wav,One.\n", "it has 1 cells, not 2 or 3: tabs separate them"),
        ("{\n", "malformed line"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(AudioProjectionError, match=words):
            read_items("manifest", path)


def test_lines_that_break_the_reader_are_dropped_alone(tmp_path: Path) -> None:
    deep, huge = '{"a":' * 100_000, '{"audio": "a.wav", "text": "One.", "offset": 1' + "0" * 400 + "}"
    nobody = '{"audio": "~nobody-of-this-name/a.wav", "text": "One."}'
    good = '{"audio": "b.wav", "text": "Two."}'
    (tmp_path / "list.jsonl").write_text("\n".join((deep, huge, nobody, good)), encoding="utf-8")
    assert [reason for _, reason in reasons("manifest", tmp_path / "list.jsonl")] == ["malformed line"] * 3 + ["Two."]


def test_a_manifest_cuts_segments(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = noise(4.0)
    write_sound(tmp_path / "long.wav", samples, subtype="FLOAT")
    entries: list[dict[str, Any]] = [
        {"audio_filepath": "long.wav", "text": "the fox", "offset": 1.0, "duration": 1.5, "speaker_id": 7, "snr": 3},
        {"audio_filepath": "long.wav", "text": "the dog", "offset": 2.5, "client_id": "bo", "lang": "en"},
        {"audio_filepath": "long.wav", "text": "all of it and more", "duration": 4.0},
        {"audio_filepath": "long.wav", "text": "too late", "offset": 3.0, "duration": 2.0},
        {"audio_filepath": "long.wav", "text": "before", "offset": -1},
        {"audio_filepath": "long.wav", "text": "no number", "offset": "soon", "id": "x"},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, entries)))
    report = prepare(Corpus("manifest", tmp_path / "list.jsonl"), tmp_path / "out", DataConfig(), 8, 1)
    assert "not used: snr, lang" in caplog.text
    kept = [
        item for shard in range(PreparedCorpus(tmp_path / "out").shards) for item in read_cuts(tmp_path / "out", shard)
    ]
    assert [(item.text, item.speaker, item.offset, item.duration) for item in kept] == [
        ("the fox", "7", 1.0, 1.5),
        ("the dog", "bo", 2.5, 1.5),
        ("all of it and more", None, 0.0, None),
    ]
    assert [(item.id, item.reason.value) for item in report.dropped] == [
        ("long.wav from 3 s", "unreadable audio"),
        ("list.jsonl line 5", "malformed line"),
        ("list.jsonl line 6", "malformed line"),
    ]
    assert report.seconds == pytest.approx(1.5 + 1.5 + 4)
    for item, part in zip(kept, (slice(16000, 40000), slice(40000, None), slice(None)), strict=True):
        np.testing.assert_array_equal(read_audio(item, DataConfig()).samples, samples[part, 0])


def test_lhotse_reads_a_segment_itself(tmp_path: Path) -> None:
    import lhotse

    samples = noise(4.0)
    write_sound(tmp_path / "long.wav", samples, subtype="FLOAT")
    (tmp_path / "list.tsv").write_text("audio\ttext\toffset\tduration\nlong.wav\tthe fox\t1\t1.5\n")
    prepare(Corpus("manifest", tmp_path / "list.tsv"), tmp_path / "out", DataConfig(), 8, 1)
    (cut,) = lhotse.CutSet.from_files(sorted((tmp_path / "out").glob("cuts.*.jsonl.gz")))
    assert (cut.start, cut.duration, cut.supervisions[0].duration) == (1.0, 1.5, 1.5)
    np.testing.assert_array_equal(cut.load_audio()[0], samples[16000:40000, 0])


def libritts(top: Path) -> Path:
    chapter = top / "dev-clean" / "84" / "121123"
    for name, text in (("84_121123_000000_000001", "Mister Fox, aged 3?"), ("84_121123_000002_000000", "No.\n")):
        write_sound(chapter / f"{name}.wav", noise(1.5, 24000), 24000)
        (chapter / f"{name}.normalized.txt").write_text(text)
        (chapter / f"{name}.original.txt").write_text("Mr. Fox, aged 3?")
    (chapter / "84_121123.trans.tsv").write_text("84_121123_000000_000001\tMr. Fox\tMister Fox\n")
    (chapter / "84_121123.book.tsv").write_text("84_121123_000000_000001\tMr. Fox\tMister Fox\t0.1\n")
    return top


@pytest.mark.parametrize("name", ["libritts", "librispeech"])
def test_libritts(tmp_path: Path, name: str) -> None:
    found = read_recordings(name, libritts(tmp_path), "dev-clean")
    assert [(item.id, item.text, item.speaker) for item in found] == [
        ("84_121123_000000_000001", "Mister Fox, aged 3?", "84"),
        ("84_121123_000002_000000", "No.", "84"),
    ]
    assert all(item.audio.is_file() for item in found)
    for transcript in tmp_path.rglob("*.normalized.txt"):
        transcript.unlink()
    assert [item.text for item in read_recordings(name, tmp_path)] == ["Mister Fox"]


@pytest.mark.parametrize("given", ["..", ".", "dev-clean", "dev-clean/84", "dev-clean/84/121123"])
def test_the_wrong_level_of_librispeech_names_the_right_one(tmp_path: Path, given: str) -> None:
    top = libritts(tmp_path / "LibriSpeech")
    if given == ".":
        assert read_recordings("librispeech", top)
        with pytest.raises(AudioProjectionError, match="no LibriSpeech train-other-500 .*there are dev-clean: choose"):
            read_recordings("librispeech", top, "train-other-500")
        return
    path = (top / given).resolve()
    for call in (
        lambda: read_recordings("librispeech", path),
        lambda: read_recordings("librispeech", path, "train-clean-100"),
        lambda: find_corpus(DataConfig(source="librispeech", path=path)),
    ):
        with pytest.raises(AudioProjectionError, match=f"give {top} and the subset dev-clean"):
            call()


def test_the_wrong_level_of_the_others_names_the_right_one(tmp_path: Path) -> None:
    language, speech = tmp_path / "cv-corpus-21.0" / "en", tmp_path / "LJSpeech-1.1"
    (language / "clips").mkdir(parents=True)
    (language / "train.tsv").write_text(HEADER + "ada\ta.mp3\tThe fox.\ten\n")
    (speech / "wavs").mkdir(parents=True)
    (speech / "metadata.csv").write_text("a|The fox.|The fox.\n")
    for source, path, right in (
        ("common_voice", language.parent, language),
        ("common_voice", language / "clips", language),
        ("common_voice", tmp_path, language),
        ("ljspeech", speech / "wavs", speech),
        ("ljspeech", tmp_path, speech),
    ):
        with pytest.raises(AudioProjectionError, match=f"give {right}"):
            read_recordings(source, path)
        with pytest.raises(AudioProjectionError, match=f"give {right}"):
            find_corpus(DataConfig(source=source, path=path))
    assert find_corpus(DataConfig(source="common_voice", path=language)) == language
    with pytest.raises(AudioProjectionError, match="no dev.tsv in .*choose one of train with --subset"):
        read_recordings("common_voice", language, "dev")
    with pytest.raises(AudioProjectionError, match="is a folder: give the file in it that lists the recordings .train"):
        read_recordings("manifest", language)


def saved(tmp_path: Path, **columns: list[Any]) -> Corpus:
    datasets = pytest.importorskip("datasets")
    sound = write_sound(tmp_path / "a.flac", noise(1.5)).read_bytes()
    count = len(next(iter(columns.values())))
    sounds = [{"bytes": sound, "path": f"{number}.flac"} for number in range(count)]
    table = datasets.Dataset.from_dict({"audio": sounds, **columns})
    table.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(tmp_path / "saved")
    return Corpus("dataset", tmp_path / "saved")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {"text_normalized": ["Mister Fox."], "text_original": ["Mr. Fox."], "speaker_id": ["84"], "id": ["84_1"]},
            [("84_1", "Mister Fox.", "84")],
        ),
        ({"transcript": ["the fox"], "speaker_id": [10], "id": ["10_1"]}, [("10_1", "the fox", "10")]),
        (
            {"id": [903, 903, 904], "transcription": ["one", "one", "two"]},
            [("row 0", "one", None), ("row 1", "one", None), ("row 2", "two", None)],
        ),
        ({"id": [0, 1], "text": ["one", "two"]}, [("0", "one", None), ("1", "two", None)]),
    ],
    ids=["LibriTTS", "MLS", "FLEURS", "numbers"],
)
def test_columns_of_the_hub(tmp_path: Path, columns: dict[str, list[Any]], expected: list[Any]) -> None:
    items = saved(tmp_path, **columns).items(tmp_path / "out")
    assert [(item.id, item.text, item.speaker) for item in items if isinstance(item, Recording)] == expected
    assert len(items) == len(expected)
