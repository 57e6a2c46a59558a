"""Training data: batch order, held-out split, pairs of every source, and the default voice."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from audio_projection.data.corpora.layouts import read_recordings, sentence_case
from audio_projection.data.pairs import Pair, PairFolder
from audio_projection.data.speakers import default_voice
from audio_projection.data_loader import (
    BatchOrder,
    BatchWalk,
    load_pairs,
    split_held_out,
    texts_to_fit,
    transcripts_to_fit,
)
from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio
from helpers.training import load_tts, make_config, make_pairs, make_texts, manifest_config, spoken_config, write_noise

LENGTHS = [3, 9, 4, 4, 12, 7, 1, 8, 5, 6, 11, 2, 10]


def test_every_epoch_has_every_example_once_in_another_order() -> None:
    order = BatchOrder(LENGTHS, batch=4, seed=1)
    epochs = [order.epoch(epoch) for epoch in range(3)]
    for batches in epochs:
        assert sorted(index for batch in batches for index in batch) == list(range(13))
        assert len(batches) == order.per_epoch == 4
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != BatchOrder(LENGTHS, batch=4, seed=2).epoch(0)


def test_order_does_not_depend_on_where_a_run_resumes() -> None:
    order = BatchOrder(LENGTHS, batch=4, seed=1)
    walk = BatchWalk(order)
    whole = [next(walk) for _ in range(11)]
    for start in range(11):
        resumed = BatchWalk(order, start)
        assert [next(resumed) for _ in range(11 - start)] == whole[start:]
        assert order.at(start) == whole[start]


def test_batches_hold_examples_of_similar_length() -> None:
    lengths = torch.randint(10, 200, (400,), generator=torch.Generator().manual_seed(0)).tolist()
    spreads = [
        sum(max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in order.epoch(0))
        for order in (BatchOrder(lengths, 8, 0), BatchOrder(lengths, 8, 0, pool=1))
    ]
    assert spreads[0] < spreads[1] / 4


def test_held_out_texts_are_never_trained_on() -> None:
    pairs = make_pairs(20)
    pairs.append(Pair("again", pairs[0].text, pairs[0].codes, "ada"))
    training, held_out = split_held_out(pairs, 4, seed=0)
    assert len({pair.text for pair in held_out}) == 4
    assert not {pair.text for pair in training} & {pair.text for pair in held_out}
    assert len(training) + len(held_out) == 21
    again = split_held_out(pairs[::-1], 4, seed=0)[1]
    assert {pair.id for pair in again} == {pair.id for pair in held_out}
    assert {pair.id for pair in split_held_out(pairs, 4, seed=1)[1]} != {pair.id for pair in held_out}
    assert len(split_held_out(pairs, 64, seed=0)[1]) <= 5  # a fifth at most


def test_pair_folders_come_back_whole_and_refuse_other_conditions(tmp_path: Path) -> None:
    folder = PairFolder(tmp_path / "pairs", {"seed": 1})
    named, vectors = make_pairs(3), make_pairs(2, voice=torch.arange(4.0), seed=1)
    folder.add(named)
    folder.add(vectors)
    again = PairFolder(tmp_path / "pairs").read()
    for before, after in zip([*named, *vectors], again, strict=True):
        assert (before.id, before.text, before.speaker) == (after.id, after.text, after.speaker)
        assert torch.equal(before.codes, after.codes.long()) and after.codes.dtype == torch.int16
        same = torch.equal if isinstance(before.voice, torch.Tensor) else str.__eq__
        assert same(before.voice, after.voice)
    with pytest.raises(AudioProjectionError, match="made otherwise"):
        PairFolder(tmp_path / "pairs", {"seed": 2})
    with pytest.raises(AudioProjectionError, match="pairs.json is missing"):
        PairFolder(tmp_path / "nothing")
    (tmp_path / "pairs" / "part-00001.json").write_text('[{"id": "x"}]')
    with pytest.raises(AudioProjectionError, match="do not fit together"):
        PairFolder(tmp_path / "pairs").read()


def test_the_speech_model_makes_its_own_codes_and_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from audio_projection.data import make_pairs

    calls: list[int] = []
    generate = make_pairs.generate

    def briefly(*arguments: Any) -> list[torch.Tensor]:  # random models hardly ever come to an end
        calls.append(len(arguments[1]))
        return generate(*arguments[:5], max_frames=6)

    monkeypatch.setattr(make_pairs, "generate", briefly)
    monkeypatch.setattr(make_pairs, "_SPOKEN_AT_ONCE", 2)
    config = spoken_config(tmp_path, ["the dog", "the fox", "hello there"])
    made = load_pairs(config, load_tts())
    assert {pair.text for pair in made} == {"the dog", "the fox", "hello there"}
    assert all(pair.voice == "ada" and pair.codes.shape[1] == 16 for pair in made)
    for part in sorted((tmp_path / "run" / "codes").glob("self-*/part-00000.*")):
        part.unlink()  # as though the run had been stopped before it was written
    again = load_pairs(config, load_tts())
    assert calls == [2, 1, 2]
    for before, after in zip(made, again, strict=True):
        assert before.text == after.text and torch.equal(before.codes, after.codes)
    config.seed = 5
    assert not all(torch.equal(a.codes, b.codes) for a, b in zip(made, load_pairs(config, load_tts()), strict=False))


def test_texts_that_cannot_be_spoken_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = spoken_config(tmp_path, ["good day", "!!!", "", "good day", "the fox"])
    with caplog.at_level(logging.WARNING):
        assert sorted(transcripts_to_fit(config)) == ["good day", "the fox"]
    assert "texts.txt line 2" in caplog.text
    pairs = make_pairs(3)
    config.data.texts = None
    assert set(texts_to_fit(config, pairs, [pairs[1]])) == {pairs[0].text, pairs[2].text}


@pytest.mark.parametrize("source", ["librispeech", "pairs"])
def test_texts_are_added_to_the_transcripts_for_the_fit(tmp_path: Path, source: str) -> None:
    given = ["Dr. Fox paid $5 in 1984.", "I said that I'm well.", "NASA's (old) plan: go!"]
    config = spoken_config(tmp_path, given)
    if source == "librispeech":
        config.data.path, spoken = librispeech(tmp_path), ["I said that I'm well."]
    else:
        PairFolder(tmp_path / "pairs", {}).add(make_pairs(3))
        config.data.path, spoken = tmp_path / "pairs", [pair.text for pair in make_pairs(3)]
    config.data.source = source  # type: ignore[assignment]
    assert sorted(transcripts_to_fit(config)) == sorted({*given, *spoken})
    config.data.text_limit = 2
    assert len(transcripts_to_fit(config)) == 2
    config.data.texts, config.data.text_limit = None, None
    assert sorted(transcripts_to_fit(config)) == sorted(spoken)


def test_training_fits_to_texts_beside_the_transcripts_and_to_none_that_is_held_out(tmp_path: Path) -> None:
    pairs = make_pairs(4)
    config = spoken_config(tmp_path, ["Dr. Fox paid $5 in 1984.", pairs[3].text])
    assert sorted(texts_to_fit(config, pairs[:3], pairs[3:])) == sorted(
        {"Dr. Fox paid $5 in 1984.", *(pair.text for pair in pairs[:3])} - {pairs[3].text}
    )


def test_manifest_in_both_forms_drops_bad_items_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_noise(tmp_path / "größe eins.wav", 1.0)
    write_noise(tmp_path / "two.flac", 1.5, 1)
    write_noise(tmp_path / "short.wav", 0.1)
    (tmp_path / "noise.wav").write_bytes(b"no sound")
    lines = [
        "größe eins.wav\tthe dog\tbo",
        '{"audio": "two.flac", "text": "the fox"}',
        "absent.wav\tthe fox",
        "noise.wav\tthe fox",
        "two.flac\t...",
        "short.wav\thello",
        "no tab here",
    ]
    config = manifest_config(tmp_path, lines)
    with caplog.at_level(logging.WARNING):
        pairs = load_pairs(config, load_tts())
    assert [(pair.id, pair.text, pair.voice) for pair in pairs] == [
        ("größe eins.wav", "the dog", "ada"),
        ("two.flac", "the fox", "ada"),
    ]
    assert [len(pair.codes) for pair in pairs] == [13, 19]  # 12.5 frames a second, rounded up
    for name in ("absent.wav", "noise.wav", "two.flac", "line 7"):
        assert name in caplog.text


def test_codes_of_recordings_are_made_once_and_texts_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noise(tmp_path / "a.wav", 1.0)
    tts = load_tts()
    first = load_pairs(manifest_config(tmp_path, ["a.wav\tthe dog"]), tts)
    monkeypatch.setattr(tts.codec, "encode", None)  # calling it would fail
    again = load_pairs(manifest_config(tmp_path, ["a.wav\tthe fox"]), tts)
    assert again[0].text == "the fox" and torch.equal(first[0].codes, again[0].codes)
    monkeypatch.undo()
    write_noise(tmp_path / "a.wav", 1.2)
    assert len(load_pairs(manifest_config(tmp_path, ["a.wav\tthe fox"]), tts)[0].codes) == 15


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AudioProjectionError, match="no usable training pair"):
        load_pairs(manifest_config(tmp_path, ["absent.wav\tthe dog"]), load_tts())
    config = manifest_config(tmp_path, [])
    with pytest.raises(AudioProjectionError, match="no recordings in"):
        load_pairs(config, load_tts())
    config.data.path = tmp_path / "no list"
    with pytest.raises(AudioProjectionError, match="cannot read .*no list"):
        load_pairs(config, load_tts())


def librispeech(folder: Path) -> Path:
    for speaker, names in {"103": ["0000", "0001"], "1089": ["0000"]}.items():
        chapter = folder / "train-clean-100" / speaker / "7"
        lines = [f"{speaker}-7-{name} I SAID THAT I'M WELL" for name in names]
        for number, name in enumerate(names):
            write_noise(chapter / f"{speaker}-7-{name}.flac", 1.0 + number / 10, number + int(speaker))
        (chapter / f"{speaker}-7.trans.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_librispeech_with_a_base_model_takes_each_recordings_voice(tmp_path: Path) -> None:
    tts = load_tts("base")
    config = make_config(tmp_path / "run")
    config.tts.speaker = None
    config.data.source, config.data.path, config.data.voice_speaker = "librispeech", librispeech(tmp_path), "103"
    pairs = load_pairs(config, tts)
    assert [(pair.id, pair.speaker) for pair in pairs] == [
        ("103-7-0000", "103"),
        ("103-7-0001", "103"),
        ("1089-7-0000", "1089"),
    ]
    assert {pair.text for pair in pairs} == {"I said that I'm well."}
    assert all(pair.voice.shape == (64,) for pair in pairs)
    samples = audio.read(tmp_path / "train-clean-100/103/7/103-7-0000.flac", tts.sample_rate)
    torch.testing.assert_close(pairs[0].voice, tts.speaker_encoder.embed(samples, tts.sample_rate))
    voice, source = default_voice(config.tts, tts, pairs, config.data.voice_speaker)
    assert source == "103" and any(torch.equal(voice, pair.voice) for pair in pairs[:2])
    config.data.voice_speaker = "777"
    with pytest.raises(AudioProjectionError, match="'777' has no usable recording; there are 103, 1089"):
        default_voice(config.tts, tts, pairs, config.data.voice_speaker)
    config.data.limit, config.data.voice_speaker = 1, "1089"
    assert [pair.id for pair in load_pairs(config, tts)] == ["1089-7-0000"]  # the voice's speaker is among the few


def test_librispeech_texts_are_read_without_sound(tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    config.data.source, config.data.path = "librispeech", librispeech(tmp_path)
    for sound in tmp_path.rglob("*.flac"):
        sound.unlink()
    assert transcripts_to_fit(config) == ["I said that I'm well."]
    config.data.subset = "train-other-500"
    with pytest.raises(AudioProjectionError, match="no LibriSpeech train-other-500"):
        transcripts_to_fit(config)


def test_sentence_case() -> None:
    assert sentence_case("BUT I KNOW I'LL GO") == "But I know I'll go."
    assert sentence_case("it is IN iowa.") == "It is in iowa."
    assert sentence_case(" ") == ""


def test_published_layouts_are_read(shared: Path) -> None:
    corpora = shared / "data" / "corpora"
    lj = read_recordings("ljspeech", corpora / "LJSpeech-1.1", "")
    assert len(lj) == 32 and all(item.audio.is_file() for item in lj)
    assert lj[1].text == "in being comparatively modern." and lj[1].id == "LJ001-0002"
    libri = read_recordings("librispeech", corpora / "LibriSpeech", "test-clean")
    assert [item.speaker for item in libri] == ["1089"] * 4 and all(item.audio.is_file() for item in libri)
    voices = read_recordings("common_voice", next(corpora.glob("cv-corpus*")) / "en", "")
    assert voices and all(item.audio.is_file() and item.text and item.speaker for item in voices)


def test_ready_pairs_must_have_the_models_code_groups(tmp_path: Path) -> None:
    PairFolder(tmp_path / "pairs", {}).add(make_pairs(3))
    config = make_config(tmp_path / "run")
    config.data.source, config.data.path, config.data.min_seconds = "pairs", tmp_path / "pairs", 0.0
    assert len(load_pairs(config, load_tts())) == 3
    PairFolder(tmp_path / "eight", {}).add([Pair("a", "b", torch.zeros(4, 8, dtype=torch.long), "ada")])
    config.data.path = tmp_path / "eight"
    with pytest.raises(AudioProjectionError, match="8 code groups, the speech model has 16"):
        load_pairs(config, load_tts())


def test_an_open_choice_of_voice_is_asked_for(tmp_path: Path) -> None:
    config = spoken_config(tmp_path, ["the dog"])
    config.tts.speaker = None
    with pytest.raises(AudioProjectionError, match="set tts.speaker.*ada, bo"):
        load_pairs(config, load_tts())
    with pytest.raises(AudioProjectionError, match="no named speakers"):
        load_pairs(config, load_tts("base"))


def test_the_order_of_texts_is_seeded(tmp_path: Path) -> None:
    config = spoken_config(tmp_path, make_texts(30))
    config.data.text_limit = 10
    first = transcripts_to_fit(config)
    assert len(first) == 10 and first == transcripts_to_fit(config)
    config.seed = 1
    assert set(first) != set(transcripts_to_fit(config))
