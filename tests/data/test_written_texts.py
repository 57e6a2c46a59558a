"""Texts that the language model writes: whole, seeded, resumable, never half-written."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from audio_projection.cli import app as cli
from audio_projection.data import written_texts
from audio_projection.data.prompts import PROMPTS
from audio_projection.data.written_texts import AnswerSentences, Assignment, write_texts
from audio_projection.errors import AudioProjectionError
from audio_projection.files.interruption import Interrupted
from audio_projection.llm.language_model import LanguageModel
from audio_projection.sampling import Choice
from audio_projection.text.input_text import Reading
from helpers.tiny_llm import make_llm

WORDS = ["fox", "hello", "the dog", "the quick brown fox jumps"]


def assignment(**changes: Any) -> Assignment:
    return Assignment(**{"prompts": WORDS, "count": 30, "batch": 4, "longest": 12, "seed": 3} | changes)


def whole(answer: str) -> list[str]:
    """The tiny LLM knows no sentences: an answer as it is, on one line."""
    return [" ".join(answer.split())] if answer.strip() else []


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setattr(written_texts, "_ended", lambda text, whole: text)
    return make_llm(context="chat")


def test_greedy_continuations_of_a_batch_are_those_of_generate() -> None:
    llm = make_llm(context="chat")
    asked = [[{"role": "user", "content": word}] for word in WORDS]
    together = llm.continuations([llm.chat_ids(each) for each in asked], 20, Choice(greedy=True))
    streams = [(token.id for token in llm.generate(each, 20, Choice(greedy=True))) for each in asked]
    control = {*llm.tokenizer.added_tokens_decoder}
    alone = [[*itertools.takewhile(lambda token: token not in control, stream)] for stream in streams]
    assert together == alone and max(map(len, alone)) == 20 and len({*map(tuple, alone)}) > 1


def test_sampled_continuations_depend_on_the_seed_alone_and_hold_no_control_token() -> None:
    llm, choice = make_llm(context="chat"), Choice(temperature=1.5, top_k=0)
    ids = [llm.chat_ids([{"role": "user", "content": word}]) for word in WORDS * 8]
    first, again, other = (llm.continuations(ids, 40, choice, seed) for seed in (5, 5, 6))
    assert first == again != other
    assert any(len(row) < 40 for row in first)
    assert not {*itertools.chain(*first)} & {*llm.tokenizer.added_tokens_decoder}


def test_a_stopped_run_goes_on_and_gives_the_same_file(
    llm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_texts(llm, tmp_path / "whole.txt", assignment(), whole)
    continued: list[int] = []
    answer = LanguageModel.continuations

    def interrupted(*arguments: Any) -> list[list[int]]:
        continued.append(arguments[-1])
        if len(continued) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return answer(*arguments)

    monkeypatch.setattr(LanguageModel, "continuations", interrupted)
    with pytest.raises(Interrupted, match=r"12 answers are kept in .*begun; the same command goes on"):
        write_texts(llm, tmp_path / "texts.txt", assignment(), whole)
    assert not (tmp_path / "texts.txt").exists()
    write_texts(llm, tmp_path / "texts.txt", assignment(), whole)
    assert (tmp_path / "texts.txt").read_bytes() == (tmp_path / "whole.txt").read_bytes()
    assert len(continued) == len(set(continued))  # no batch twice
    assert {path.name for path in tmp_path.iterdir()} == {"texts.txt", "whole.txt"}


def test_each_text_is_there_once_and_other_seeds_give_others(llm: LanguageModel, tmp_path: Path) -> None:
    texts = []
    for seed in (1, 2):
        write_texts(llm, tmp_path / f"{seed}.txt", assignment(seed=seed), whole)
        texts.append((tmp_path / f"{seed}.txt").read_text(encoding="utf-8").splitlines())
    assert [len(lines) for lines in texts] == [len({*lines}) for lines in texts] == [30, 30]
    assert texts[0] != texts[1]


def test_another_assignment_does_not_go_on_with_what_was_begun(llm: LanguageModel, tmp_path: Path) -> None:
    out = tmp_path / "texts.txt"
    with pytest.raises(AudioProjectionError, match=r"0 usable texts and nothing new in the last 20 batches"):
        write_texts(llm, out, assignment(), lambda answer: [])
    with pytest.raises(AudioProjectionError, match="begun with another seed: set that as it was, or delete the folder"):
        write_texts(llm, out, assignment(seed=4), whole)
    out.write_text("mine\n", encoding="utf-8")
    with pytest.raises(AudioProjectionError, match="is there already"):
        write_texts(llm, out, assignment(), whole)
    assert out.read_text(encoding="utf-8") == "mine\n"


def test_every_prompt_is_asked_before_one_comes_again() -> None:
    asked = [prompt for number in range(5) for prompt in assignment(prompts=list("abcdefg"), batch=7).batch_of(number)]
    rounds = ["".join(asked[start : start + 7]) for start in range(0, 35, 7)]
    assert all(sorted(each) == list("abcdefg") for each in rounds) and len({*rounds}) > 1


def test_a_base_model_goes_on_from_the_beginning_of_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_texts, "_ended", lambda text, whole: text)
    write_texts(make_llm(), tmp_path / "texts.txt", assignment(prompts=["the quick"]), whole)
    assert all(line.startswith("the quick") for line in (tmp_path / "texts.txt").read_text("utf-8").splitlines())
    write_texts(make_llm(), tmp_path / "free.txt", assignment(prompts=[""]), whole)


def test_sentences_of_an_answer() -> None:
    answer = (
        "<think>Ten sentences.</think>Sure! Here they are:\n\n1. **NASA** paid Dr. Fox $5 in 1984.\n2. Go!\n"
        '- "It is ours," she said; he said no.\n* Keep this out, please.\n3. Broken \ufffd character here.\n...\n'
    )
    sentences = AnswerSentences(Reading(), 200, frozenset({"Keep this out, please."}))
    assert list(sentences(answer)) == ["NASA paid Dr. Fox $5 in 1984.", '"It is ours," she said; he said no.']


def test_what_was_cut_off_loses_the_sentence_that_was_begun() -> None:
    assert written_texts._ended("One is whole. The other is n", whole=False) == "One is whole. "
    assert written_texts._ended("None is wh", whole=False) == ""
    assert written_texts._ended("This ends so", whole=True) == "This ends so"


def test_the_projects_own_prompts_are_many_and_each_another() -> None:
    assert len(PROMPTS) == len({*PROMPTS}) > 800 and all("{" not in prompt for prompt in PROMPTS)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*words: object) -> int:
        monkeypatch.setattr("sys.argv", ["audio-projection", "data", "texts", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    out, options = tmp_path / "texts.txt", ("--config", "nano", "fit.batch=8", "llm.max_new_tokens=40")
    assert run(out, *options, "--count", 20) == 0
    assert capsys.readouterr().out == f"{out}\n"
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 20 and all(line[-1] in ".?!\"'),;:" for line in lines)
    assert run(out, *options) == 1 and "is there already" in capsys.readouterr().err
    (tmp_path / "prompts.txt").write_text("\n \n", encoding="utf-8")
    assert run(tmp_path / "new.txt", *options, "--prompts", tmp_path / "prompts.txt") == 1
    assert "has no prompt" in capsys.readouterr().err
