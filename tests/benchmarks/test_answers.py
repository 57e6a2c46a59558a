"""Spoken answers: what tiny models write, beside what is heard, and an answer that has nothing to speak."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("jiwer", reason="needs the extra `eval`")
pytest.importorskip("pocketsphinx", reason="needs the extra `eval`")

from audio_projection.config import Config
from audio_projection.evaluation.word_errors import word_errors
from helpers import parity_kit
from helpers.evaluation import save_tiny
from helpers.paths import REPOSITORY

answers = parity_kit.script("answers")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return save_tiny(tmp_path_factory.mktemp("tiny"), context="chat")


def test_answers_are_kept_with_what_was_heard(tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "questions.txt").write_text("hello there\nthe quick brown fox\n")
    settings = [f"llm.name={tiny.llm.name}", f"tts.name={tiny.tts.name}", "tts.speaker=ada", "tts.normalise=none"]
    options = ["--projector", tiny.output_dir / "linear", "--output", tmp_path / "out", "--tokens", 12]
    answers.main([*settings, *map(str, options), "--questions", str(tmp_path / "questions.txt")])
    table = capsys.readouterr().out
    assert (tmp_path / "out" / "answers.md").read_text() == table
    made = json.loads((tmp_path / "out" / "results.json").read_text())["answers"]
    assert [each["question"] for each in made] == ["hello there", "the quick brown fox"]
    spoken = [each for each in made if not each["missing"]]
    for each, entry in enumerate(made, 1):
        assert (tmp_path / "out" / f"{each:04d}.wav").is_file() == (not entry["missing"])
    for entry in spoken:
        found = word_errors(entry["text"], entry["heard"])
        assert (entry["errors"], entry["words"]) == (found.errors, found.words)
    assert f"| {len(spoken)} of 2 spoken |" in table


def test_an_answer_without_words_is_counted_as_missing() -> None:
    spoken = [answers.SpokenAnswer("Who?", "A dog.", None), answers.SpokenAnswer("Why?", "", None, "nothing to speak")]
    lines = list(answers.markdown(spoken, ["a dog", ""], [word_errors("A dog.", "a dog"), None]))
    assert lines[2:] == [
        "| Who? | A dog. | a dog | 0 of 2 |",
        "| Why? | missing: nothing to speak | | |",
        "| 1 of 2 spoken | | | 0 of 2: 0.0 % [0.0, 0.0] |",
    ]


def test_the_questions_are_twenty() -> None:
    questions = (REPOSITORY / "benchmarks" / "questions.txt").read_text(encoding="utf-8").splitlines()
    assert len(questions) == len(set(questions)) == 20
    assert all(line.endswith("?") for line in questions)
