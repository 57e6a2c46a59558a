"""Skips, repeats and missed ends are found, and nothing else: in synthetic sounds and in flite's speech."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation import systems
from audio_projection.evaluation.robustness import measure_robustness
from audio_projection.evaluation.skips_and_repeats import CLAUSE, WORD, SkipsAndRepeats, find_skips_and_repeats
from audio_projection.evaluation.spectral_distance import Frames
from audio_projection.evaluation.systems import SpeechSources, SpokenSentence
from audio_projection.files import audio
from helpers.evaluation import RATE, babble, save_tiny

SOUNDS = babble(20)
FINE = SkipsAndRepeats(None, None)


def compared(sound: list[np.ndarray], teacher: list[np.ndarray] = SOUNDS, shortest: float = WORD) -> SkipsAndRepeats:
    return find_skips_and_repeats(*(Frames(np.concatenate(parts), RATE) for parts in (sound, teacher)), shortest)[0]


def test_the_same_speech_is_fine() -> None:
    assert compared(SOUNDS) == FINE


@pytest.mark.parametrize("first", [0, 7, 14])
def test_a_part_left_out_is_found_at_its_place(first: int) -> None:
    found = compared(SOUNDS[:first] + SOUNDS[first + 6 :])
    assert found.repeated is None and found.skipped == pytest.approx(first / 10, abs=0.25)


@pytest.mark.parametrize("first", [0, 7, 14])
def test_a_part_said_twice_is_found(first: int) -> None:
    found = compared(SOUNDS[: first + 6] + SOUNDS[first:])
    assert found.skipped is None and first / 10 - 0.1 <= found.repeated <= first / 10 + 1.2


def test_a_clause_is_longer_than_a_word() -> None:
    assert compared(SOUNDS[:7] + SOUNDS[13:]).skipped is not None
    assert compared(SOUNDS[:7] + SOUNDS[13:], shortest=CLAUSE) == FINE
    assert compared(SOUNDS[:7] + SOUNDS[17:], shortest=CLAUSE).skipped == pytest.approx(0.7, abs=0.25)
    assert compared(SOUNDS[:17] + SOUNDS[7:], shortest=CLAUSE).repeated is not None


def test_speech_that_does_not_end_is_found() -> None:
    found = compared(SOUNDS + babble(8, seed=1))
    assert found.skipped is None and found.repeated == pytest.approx(2, abs=0.25)


def test_a_short_part_and_a_pause_are_passed_over() -> None:
    pause = [np.zeros(16_000, np.float32)]
    assert compared(SOUNDS[:7] + SOUNDS[9:]) == FINE
    assert compared(SOUNDS[:7] + pause + SOUNDS[7:] + pause) == FINE
    assert compared(SOUNDS, SOUNDS[:7] + pause + SOUNDS[7:]) == FINE


def test_silence_is_all_left_out() -> None:
    assert compared([np.zeros(16_000, np.float32)]).skipped is not None


# --- flite's speech

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
CLAUSES = [
    "When the power failed, the neighbors sat outside, and told each other ghost stories.",
    "A juggler and a clown, who looked rather tired, entered the circus ring.",
]


def flite(text: str, path: Path, *options: str) -> Frames:
    subprocess.run(["flite", *options, "-t", text, "-o", str(path)], check=True, capture_output=True)
    return Frames(audio.read(path, RATE), RATE)


@needs_flite
@pytest.mark.parametrize("text", CLAUSES)
def test_a_clause_cut_out_or_doubled_is_found(text: str) -> None:
    spoken = SpeechSources(Config(), [text]).teacher()[0].samples
    start, end = clause(spoken)
    cut, doubled = np.concatenate([spoken[:start], spoken[end:]]), np.concatenate([spoken[:end], spoken[start:]])
    teacher = Frames(spoken, RATE)
    found = find_skips_and_repeats(Frames(cut, RATE), teacher, WORD)[0]
    assert found.repeated is None and start / RATE - 0.2 <= found.skipped <= end / RATE
    found = find_skips_and_repeats(Frames(doubled, RATE), teacher, WORD)[0]
    assert found.skipped is None and found.repeated is not None
    assert find_skips_and_repeats(Frames(spoken[:end], RATE), teacher, WORD)[0].skipped == pytest.approx(
        end / RATE, abs=0.4
    )


def clause(spoken: np.ndarray) -> tuple[int, int]:
    """Samples between which the middle clause stands: the middles of the two longest pauses."""
    speech = Frames(spoken, RATE).speech
    edges = np.flatnonzero(np.diff(speech))
    pauses = [(end - start, (start + end) * 80) for start, end in pairwise(edges.tolist()) if speech[start]]
    (_, start), (_, end) = sorted(sorted(pauses)[-2:], key=lambda pause: pause[1])
    assert 0.5 < (end - start) / RATE < 2.5
    return start, end


@needs_flite
@pytest.mark.parametrize("text", CLAUSES)
def test_other_tempos_and_speakers_are_fine(text: str, tmp_path: Path) -> None:
    teacher = flite(text, tmp_path / "rms.wav", "-voice", "rms")
    for tempo in (0.85, 1.15):
        stretched = flite(text, tmp_path / "tempo.wav", "-voice", "rms", "--setf", f"duration_stretch={1 / tempo}")
        assert len(stretched) / len(teacher) == pytest.approx(1 / tempo, rel=0.03)
        assert find_skips_and_repeats(stretched, teacher, WORD)[0] == FINE
    for voice in ("slt", "kal16"):
        assert find_skips_and_repeats(flite(text, tmp_path / "voice.wav", "-voice", voice), teacher, WORD)[0] == FINE


# --- the command


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    path = tmp_path / "sentences.txt"
    path.write_text("hello there\nThe lazy dog. Good day.\nNever spoken.\n")
    return path


def test_run_counts_and_reports(
    tiny: Config, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = [SpokenSentence(np.concatenate(SOUNDS[:count]), RATE) for count in (4, 20)]
    monkeypatch.setattr(SpeechSources, "teacher", lambda _: teacher)
    report = measure_robustness(tiny, sentences, ["teacher", "plain", "linear"], tmp_path / "out", limit=2)
    same, plain, linear = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert report.sentences == ["hello there", "The lazy dog. Good day."]
    assert (same["ended"], same["largest_length"], same["too_long"]) == (1, 1, 0)
    assert same["words_skipped_or_repeated"] == same["clauses_skipped_or_repeated"] == 0
    # Random weights never end: the guard stops each sentence after 11 frames, here after 0.88 s of 0.4 and 1.76 of 2.
    assert plain["ended"] == linear["ended"] == 0
    assert [each["ratio"] for each in plain["spoken"]] == pytest.approx([2.2, 0.88])
    assert plain["largest_length"] == pytest.approx(2.2) and plain["too_long"] == 1
    assert linear["projector"]["kind"] == "linear"
    assert len(audio.read(tmp_path / "out" / "linear" / "0002.wav", 24_000)) == 1.76 * 24_000
    assert "2 sentences beside the teacher's" in capsys.readouterr().out


def test_without_flite_nothing_is_spoken(tiny: Config, sentences: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems.shutil, "which", lambda _: None)
    with pytest.raises(AudioProjectionError, match="flite is not installed"):
        measure_robustness(tiny, sentences)


def test_without_any_system_there_is_no_table(
    tiny: Config, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpeechSources, "teacher", lambda _: [SpokenSentence(SOUNDS[0], RATE)] * 3)
    untrained = tiny.model_copy(update={"output_dir": tmp_path})
    with pytest.raises(AudioProjectionError, match="no system could be measured: missing: a trained projector"):
        measure_robustness(untrained, sentences)
