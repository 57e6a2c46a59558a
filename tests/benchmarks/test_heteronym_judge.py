"""Which reading of a heteronym was spoken: judged on synthetic sounds, and end to end with the teacher."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.spectral_distance import Frames
from helpers import parity_kit
from helpers.evaluation import babble, save_tiny
from helpers.paths import REPOSITORY

heteronyms = parity_kit.script("heteronyms")

SOUNDS = [np.repeat(sound, 3) for sound in babble(12, seconds=0.05)]
"""Sounds of 0.15 s at 48 kHz; read at 24 kHz they last 0.3 s."""
RATE = heteronyms.RATE
WORDS = (SOUNDS[4:6], SOUNDS[8:10])
"""A word of two sounds, in two readings."""


def rendering(word: list[np.ndarray], phones: str = "") -> heteronyms.Rendering:
    before, after = SOUNDS[:4], SOUNDS[6:8]
    begin = sum(map(len, before)) / RATE
    return heteronyms.Rendering(
        phones, np.concatenate([*before, *word, *after]), begin, begin + sum(map(len, word)) / RATE
    )


def spoken(word: list[np.ndarray], pace: float, noise: float) -> Frames:
    """The sentence at another pace, duller, louder and with noise."""
    sentence = [*SOUNDS[:4], *word, *SOUNDS[6:8]]
    slower = [np.interp(np.arange(0, len(each), pace), np.arange(len(each)), each) for each in sentence]
    samples = np.convolve(np.concatenate(slower), [0.6, 0.4], "same")
    return Frames((3 * samples + noise * np.random.default_rng(1).normal(0, 1, len(samples))).astype(np.float32), RATE)


@pytest.mark.parametrize(("pace", "noise"), [(1.0, 0.0), (1.05, 0.02), (0.95, 0.02)])
def test_the_reading_that_was_spoken_is_the_nearer_one(pace: float, noise: float) -> None:
    one, two = (rendering(word) for word in WORDS)
    assert heteronyms.nearer(spoken(WORDS[0], pace, noise), one, two)
    assert heteronyms.nearer(spoken(WORDS[1], pace, noise), two, one)
    assert not heteronyms.nearer(spoken(WORDS[0], pace, noise), two, one)


def test_the_word_is_found_where_it_stands() -> None:
    made = rendering(WORDS[0])
    place = heteronyms.beside_word(heteronyms.standardised(spoken(WORDS[0], 0.9, 0.01)), made)
    assert place.start / 100 == pytest.approx(made.begin / 0.9, abs=0.04)
    assert place.stop / 100 == pytest.approx(made.end / 0.9, abs=0.04)


def test_silence_has_no_reading_but_is_judged() -> None:
    silence = Frames(np.zeros(RATE, np.float32), RATE)
    assert heteronyms.nearer(silence, *(rendering(word) for word in WORDS)) in (True, False)


def write_renderings(folder: Path) -> Path:
    """Two sentences and an answer with made-up sounds."""
    folder.mkdir()
    entries = []
    for number, (sentence, question) in enumerate([("hello there", None), ("lazy dog", None), ("the dog", "hello")]):
        entry = {"word": "dog", "sentence": sentence, "question": question}
        for name, word in zip(("labelled", "other"), WORDS, strict=True):
            made, file = rendering(word), f"{number}-{name}.wav"
            soundfile.write(folder / file, 0.3 * made.samples, RATE)
            entry[name] = {"phones": name, "sound": file, "word": [made.begin, made.end]}
        entries.append(entry)
    (folder / "renderings.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return save_tiny(tmp_path_factory.mktemp("tiny"), context="chat")


def test_run_speaks_judges_and_reports(tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_renderings(tmp_path / "renderings")
    settings = [f"llm.name={tiny.llm.name}", f"tts.name={tiny.tts.name}", "tts.speaker=ada", "tts.normalise=none"]
    systems = ["plain", str(tiny.output_dir / "linear"), str(tiny.output_dir / "residual")]
    words = [*settings, "--renderings", folder, "--output", tmp_path / "out", "--systems", *systems]
    heteronyms.main([str(word) for word in words])
    table = capsys.readouterr().out
    assert (tmp_path / "out" / "heteronyms.md").read_text() == table
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    ceiling, plain, linear, residual = results["systems"]
    assert ceiling["name"] == heteronyms.CEILING and len(ceiling["aloud"]) == 2 and len(ceiling["answered"]) == 1
    # untrained, the residual kind is plain text; nothing is heard without a recogniser
    assert residual["aloud"] == plain["aloud"] and residual["answered"] == plain["answered"]
    assert linear["transcripts"] is None and "| residual-projector | " in table and "+0.0 % [0.0, 0.0]" in table
    assert [len(list((tmp_path / "out" / "plain in conversation").glob("*.wav")))] == [1]


def test_a_folder_without_renderings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "renderings.json").write_text('[{"word": "read"}]')
    with pytest.raises(AudioProjectionError, match=r"damaged.*heteronym_speech"):
        heteronyms.read_items(tmp_path)


def test_each_answer_is_asked_for_in_both_readings() -> None:
    path = REPOSITORY / "benchmarks" / "heteronym_questions.tsv"
    header, *lines = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    assert header == ["word", "phones", "question", "sentence"] and len(lines) == 4 * 17
    sentences = (REPOSITORY / "benchmarks" / "heteronyms.tsv").read_text(encoding="utf-8").splitlines()
    labels = {tuple(line.split("\t")[:2]) for line in sentences[1:]}
    assert {(word, phones) for word, phones, *_ in lines} == labels
    asked: dict[str, set[str]] = {}
    for _, phones, _, sentence in lines:
        asked.setdefault(sentence, set()).add(phones)
    assert all(len(phones) == 2 for phones in asked.values()), "text alone cannot tell"
    assert len({question for *_, question, _ in lines}) == len(lines)


@pytest.mark.slow
def test_the_teachers_speech_is_judged_right(tmp_path: Path) -> None:
    """End to end: renderings and pairs by the teacher, of a small text; its renderings of one reading at another
    pace are nearer to that reading."""
    pytest.importorskip("hibari", reason="needs the extra `recipe`")
    pytest.importorskip("onnx", reason="needs the extra `recipe`")
    from safetensors.torch import save_file

    sys.path.insert(0, str(REPOSITORY / "recipes" / "nano"))
    try:
        import codebooks
        import torch

        torch.manual_seed(0)
        books = {"mean": torch.zeros(800), "basis": torch.randn(800, codebooks.LATENT)}
        books |= {"phonetic": torch.randn(codebooks.LATENT, 8), "first": torch.randn(codebooks.ENTRIES, 8)}
        books["rest"] = torch.randn(15, codebooks.ENTRIES, codebooks.LATENT)
        save_file(books, tmp_path / "codebooks.safetensors")
        (tmp_path / "text.txt").write_text("We live here.\nHe read the live news.\nThe cat slept.\nShe used it.\n")
        script = REPOSITORY / "recipes" / "nano" / "heteronym_speech.py"
        words = [script, tmp_path, tmp_path / "text.txt", "--most", "1", "--others", "2"]
        done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        from audio_projection.data.pairs import PairFolder

        pairs = PairFolder(tmp_path / "heteronyms" / "pairs").read()
        assert 34 < len(pairs) <= 36 and {pair.codes.shape[1] for pair in pairs} == {16}
        items = heteronyms.read_items(tmp_path / "heteronyms" / "renderings")
        assert len(items) == 136 + 68
        right = [told(item) for item in items[::4]]
        assert sum(right) >= 0.95 * len(right)
    finally:
        sys.path.remove(str(REPOSITORY / "recipes" / "nano"))


def told(item: heteronyms.Item) -> bool:
    """Whether both readings are told apart when they are spoken faster, and noisier."""
    import soxr

    def faster(samples: np.ndarray) -> Frames:
        quick = soxr.resample(samples, RATE, 0.93 * RATE)
        return Frames(quick + 0.002 * np.random.default_rng(0).normal(0, 1, len(quick)).astype(np.float32), RATE)

    one, two = item.labelled, item.other
    return heteronyms.nearer(faster(one.samples), one, two) and heteronyms.nearer(faster(two.samples), two, one)
