"""The recipe of nano: at toy size every stage works, nothing is done twice, and what was killed goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from audio_projection.text.characters import read_characters
from helpers.paths import REPOSITORY

RECIPE = REPOSITORY / "recipes" / "nano"


def program(name: str) -> ModuleType:
    """A script of the recipe as a module; what it imports from beside it is found too."""
    sys.path.insert(0, str(RECIPE))
    try:
        specification = importlib.util.spec_from_file_location(f"nano_{name}", RECIPE / f"{name}.py")
        assert specification is not None and specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[specification.name] = module
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(RECIPE))
    return module


recipe = program("run")
prompts = program("prompts")


def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=1500,
    )


def skip_without_its_packages() -> None:
    for module, package in recipe.NEEDED.items():
        pytest.importorskip(module, reason=f"the recipe needs {package}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a smoke run, with a space in its name."""
    skip_without_its_packages()
    work = tmp_path_factory.mktemp("nano recipe")
    done = call(RECIPE / "run.py", work, "--smoke")
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return work


def test_folders_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path) -> None:
    skip_without_its_packages()
    (tmp_path / "file").write_text("")
    (tmp_path / "recipe.json").write_text("{")
    for work, words in [(tmp_path / "file", "cannot make the folder"), (tmp_path, "is damaged")]:
        done = call(RECIPE / "run.py", work, "--smoke")
        assert done.returncode == 1 and done.stderr.startswith("error: ") and words in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.timeout(1800)  # sixteen processes: a minute and a half of processor time, much longer on a busy machine
def test_every_stage_leaves_its_product(made: Path) -> None:
    record = json.loads((made / "recipe.json").read_text())["stages"]
    assert list(record) == [stage.name for stage in recipe.STAGES]
    for stage in recipe.STAGES:
        entry = record[stage.name]
        assert entry["complete"] and entry["figure"] and entry["cost"]["cpu"] > 0 and entry["cost"]["memory"] > 0
        assert all((made / product).stat().st_size > 0 for product in stage.products), stage.name
        assert (made / "logs" / f"{stage.name}.log").read_text().strip().endswith(entry["figure"])
    sentences = (made / "sentences.txt").read_text(encoding="utf-8")
    assert read_characters(made / "tts") == set(sentences)
    samples, rate = soundfile.read(made / "hello.wav")
    assert rate == 24_000 and len(samples) > 1_920 and np.isfinite(samples).all() and np.abs(samples).max() > 0


@pytest.mark.timeout(1800)
def test_a_second_call_repeats_nothing(made: Path) -> None:
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}

    before, began = files(), time.monotonic()
    again = call(RECIPE / "run.py", made, "--smoke")
    assert again.returncode == 0 and files() == before and time.monotonic() - began < 60
    lines = again.stdout.strip().splitlines()
    assert [line.split()[0] for line in lines] == [*(stage.name for stage in recipe.STAGES), "all"]
    other = call(RECIPE / "run.py", made, "--llm", recipe.NANO_LLM)
    assert other.returncode == 1 and "another text, LLM or size" in other.stderr


@pytest.mark.posix
@pytest.mark.timeout(1800)
def test_a_killed_talker_ends_with_the_same_weights(made: Path, tmp_path: Path) -> None:
    work = tmp_path / "again"
    work.mkdir()
    for name in ("speech", "tts", "text_table.safetensors"):
        (work / name).symlink_to(made / name)
    sizes = next(shlex.split(stage.smoke) for stage in recipe.STAGES if stage.name == "talker")
    steps = int(sizes[sizes.index("--steps") + 1])
    command = [RECIPE / "talker.py", work, *sizes]
    checkpoint = work / "talker.safetensors"
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
    )
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < step_of(checkpoint) < steps
    resumed = call(*command)
    assert resumed.returncode == 0, resumed.stderr
    found, expected = load_file(checkpoint), load_file(made / "talker.safetensors")
    assert step_of(checkpoint) == steps and found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def step_of(checkpoint: Path) -> int:
    with safe_open(checkpoint, "pt") as file:
        return int(file.metadata()["step"])


@pytest.mark.timeout(1800)
def test_timing_of_what_the_teacher_spoke(made: Path) -> None:
    data = program("talker_data")
    corpus = data.Corpus(made / "speech", made / "tts")
    assert len(corpus.utterances) >= 70
    generator = torch.Generator().manual_seed(0)
    for utterance in corpus.utterances:
        assert len(utterance.places) == len(utterance.codes) == len(utterance.phones)
        for ids in (utterance.ids, corpus.splitter.split(utterance.ids, 0.3, generator)):
            first, last = data.covering(corpus.splitter.starts(ids), utterance.places).unbind(1)
            assert first.min() >= 0 and last.max() < len(ids) and (first <= last).all()
            assert (first.diff() >= 0).all(), "speech never goes back in the text"
            # The last frame is in the last word, whose stop is not spoken; the first one before it.
            assert first[0] == 0 and last[-1] >= len(ids) // 2


def test_timing_by_hand() -> None:
    """A phone a frame of "go on.", cut into go| o|n|.: a pause, g, ow, aa, n, a pause. A phone may be a letter off."""
    pytest.importorskip("librosa", reason="the recipe needs librosa")
    data = program("talker_data")
    phones = torch.tensor([0, 16, 26, 1, 24, 0], dtype=torch.uint8)
    ends = torch.tensor([1_920 * (i + 1) for i in range(6)], dtype=torch.int32)
    spans = torch.tensor([[0, 0], [0, 2], [0, 2], [3, 5], [3, 5], [5, 5]])
    places, quarters = data.timing(phones, ends, spans, 6)
    assert quarters.tolist() == [[phone] * 4 for phone in phones]
    tokens = data.covering(torch.tensor([0, 2, 4, 5]), places)
    assert tokens.tolist() == [[0, 0], [0, 0], [0, 1], [1, 2], [1, 3], [2, 3]]


MERGES = [("t", "h"), ("Ġ", "th"), ("Ġth", "e"), ("a", "t"), ("c", "at"), ("Ġ", "cat"), ("Ġth", "at"), ("d", "o")]


def test_pruned_merges_cut_what_they_keep_as_all_merges_do() -> None:
    bpe = program("bpe")
    texts = ["the cat", "at the cat", "do the cat", "that cat"]
    kept = bpe.prune(MERGES, texts, 2)
    products = {first + second for first, second in kept}
    assert "Ġcat" in products and "cat" in products, "what a kept token is made of is kept"
    assert "do" not in products and kept == [merge for merge in MERGES if merge in kept]
    full, pruned = bpe.tokenizer(MERGES), bpe.tokenizer(kept)
    assert pruned.encode("at the cat").tokens == full.encode("at the cat").tokens == ["at", "Ġthe", "Ġcat"]
    assert pruned.encode("do").tokens == ["d", "o"] and full.encode("do").tokens == ["do"]
    assert bpe.count(kept, texts)["Ġcat"] == 4


def test_the_words_of_the_template_are_as_many_tokens_as_the_official_code_expects(tmp_path: Path) -> None:
    from audio_projection.tts.tokenizer import TextTokenizer

    bpe, ids = program("bpe"), program("text_ids")
    merges = bpe.with_role(MERGES)
    bpe.save(merges, tmp_path)
    assert bpe.read(tmp_path)[1] == merges
    tokenizer, known = TextTokenizer.from_folder(tmp_path), ids.TextIds.from_folder(tmp_path)
    assert tokenizer.ids("<|im_start|>assistant\n") == [known.im_start, known.assistant, known.line_end]
    assert len(tokenizer.ids("<|im_end|>\n<|im_start|>assistant\n")) == 5
    assert len(tokenizer) == known.vocabulary and tokenizer.ids("<tts_pad>") == [known.pad]
    assert tokenizer.text(tokenizer.ids("that cat — déjà")) == "that cat — déjà"


def test_splitting_tokens_keeps_the_text_and_where_its_tokens_begin() -> None:
    bpe, splitting = program("bpe"), program("token_splitting")
    tokenizer = bpe.tokenizer(MERGES)
    splitter = splitting.TokenSplitter(tokenizer.get_vocab(), MERGES)
    text = "the cat — that café"
    whole = tokenizer.encode(text)
    starts = splitter.starts(whole.ids).tolist()
    letters = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    assert "".join(letters) == text and letters[2:4] == [" cat", " "]
    generator = torch.Generator().manual_seed(0)
    assert splitter.split(whole.ids, 0.0, generator) == whole.ids
    bytewise = splitter.split(whole.ids, 1.0, generator)
    assert len(bytewise) == len(text.encode()) and tokenizer.decode(bytewise) == text
    some = [splitter.split(whole.ids, 0.3, torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert all(tokenizer.decode(ids) == text for ids in some) and len({tuple(ids) for ids in some}) > 5


def test_rare_tokens_choose_the_sentences() -> None:
    table = program("text_table")
    common = [["a", "b"]] * 50
    tokens = [*common, ["a", "x"], ["b", "x"], ["x", "y"]]
    chosen = table.cover(tokens, 2)
    spoken = [token for number in chosen for token in tokens[number]]
    assert {50, 52} <= set(chosen) and len(chosen) < 8
    assert all(spoken.count(token) >= 2 for token in "abx") and spoken.count("y") == 1
    chance = random.Random(0)
    made = table.carriers({"Ġcat": 5, "Zoe": 2}, {"Ġcat": [" cat"], "Zoe": ["Zoe"]}, chance)
    assert sum(text.count(" cat") for text in made) == 6 and sum(text.startswith("Zoe") for text in made) == 2


def test_sentences_are_cleaned_and_held_out_ones_left_out(tmp_path: Path) -> None:
    sentences = program("sentences")
    file, without = tmp_path / "a.tsv", tmp_path / "b.txt"
    file.write_text("x\tIt’s “fine” – really\nx\tRoom 12.\nx\tKeep this out!\nx\tit's fine really\nx\tCafé.\n")
    without.write_text("word\tkeep this out\n")
    assert sentences.sentences(file, without=[without]) == ['It\'s "fine" — really.']
    assert sentences.clean('He said: "Go - now') == "He said: Go — now."
    assert sentences.clean('"Yes," he said, "I will."') == '"Yes," he said, "I will."'


def test_sentences_of_rare_kinds_can_be_spoken_and_say_every_letter() -> None:
    kinds, sentences = program("spoken_kinds"), program("sentences")
    made = kinds.sentences(2_000)
    assert made == kinds.sentences(2_000) and len(set(made)) == 2_000
    assert all(sentences.SPOKEN.fullmatch(sentences.clean(text)) for text in made)
    alone = {word for text in made for word in text.replace(",", " ").replace(".", " ").split() if len(word) == 1}
    assert set("ABCDEFGHIJKLMNOPQRSTUVWXYZ") <= alone


def test_times_of_phones_from_the_teacher_s_steps() -> None:
    """ "go, on it": a pause around, one at the comma, a space shared, a stress mark joined to its vowel."""
    teacher = program("teacher")
    symbols = "ɡˈO, ɔn ɪt."
    steps = [14, 2, 1, 3, 2, 2, 3, 2, 2, 2, 6, 4, 9]
    phones = teacher.timed(symbols, steps, 10, 3)
    named = [(teacher.PHONES[phone.name], phone.steps, phone.word) for phone in phones]
    assert named == [
        ("pau", 4, None), ("ɡ", 2, 0), ("O", 4, 0), ("pau", 4, None), ("ɔ", 3, 1), ("n", 3, 1), ("ɪ", 3, 2),
        ("t", 6, 2), ("pau", 10, None),
    ]  # fmt: skip
    assert sum(phone.steps for phone in phones) == sum(steps) - 13
    assert teacher.word_places("Go - on, it.") == [(0, 2), (5, 8), (9, 12)]


def test_the_last_phone_does_not_sound_through_the_silence() -> None:
    teacher = program("teacher")
    phones = teacher.timed("ɡO", [4, 2, 18, 1], 0, 1)
    assert [(phone.word, phone.steps) for phone in phones] == [(None, 4), (0, 2), (0, 10), (None, 8)]


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("The A B C of it", ["A"]),
        ("Plan B A", ["A"]),
        ("Take vitamin A every day", ["A"]),
        ("A cat saw A I today.", ["A"]),
        ("A cat sat", []),
        ("He has a B C", []),
    ],
)
def test_the_letter_a_is_told_from_the_word(text: str, letters: list[str]) -> None:
    assert program("teacher").LETTER_A.findall(text) == letters


def test_codebook_0_hears_phones_under_louder_things() -> None:
    """Phones are told by eight quiet channels; the loud ones have nothing to do with them."""
    pytest.importorskip("librosa", reason="the recipe needs librosa")
    books = program("codebooks")
    torch.manual_seed(0)
    phones = torch.randint(8, (4_000,))[:, None].expand(-1, books.QUARTERS)
    latents = torch.randn(4_000, books.LATENT)
    latents[:, 20:28] = 0.1 * (torch.nn.functional.one_hot(phones[:, 0], 8) + 0.1 * torch.randn(4_000, 8))
    directions = books.phonetic_directions(latents, phones)
    assert directions.shape == (books.LATENT, books.PHONETIC)
    heard, loud = (
        books.known(books.nearest(points, books.kmeans(points, 5)), phones)
        for points in (latents @ directions, latents)
    )
    assert heard > 0.95 and loud < 0.7


def test_the_grammar_makes_varied_sentences_that_can_be_spoken() -> None:
    sentences = program("sentences")
    chance = random.Random(0)
    lines = [prompts.invented(chance) for _ in range(3_000)]
    assert lines[:20] == [prompts.invented(chance) for chance in [random.Random(0)] for _ in range(20)]
    assert len(set(lines)) > 2_900
    assert all(sentences.SPOKEN.fullmatch(sentences.clean(line)) for line in lines)
    usable = [line for line in lines if 10 <= len(line) <= 125]
    assert len(usable) > 2_700
    assert len({word for line in lines for word in line.lower().split()}) > 1_000


SCRIPT = """import pathlib, sys
name, work, *sizes = sys.argv[1:]
place = pathlib.Path(work)
with (place / "order").open("a") as file:
    print(name, *sizes, file=file)
if (place / f"broken-{name}").exists():
    sys.exit(3)
(place / name).mkdir(exist_ok=True)
print("figure of", name)
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three stages that only write down their names."""
    script = tmp_path / "stage.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(
        recipe,
        "STAGES",
        tuple(recipe.Stage(name, f"{script} {name} {{work}}", "", "--tiny", (name,), (name,)) for name in "abc"),
    )
    return tmp_path / "work"


def order(work: Path) -> str:
    """Which stages have run since the last look."""
    told = (work / "order").read_text().split() if (work / "order").exists() else []
    (work / "order").unlink(missing_ok=True)
    return "".join(told)


def test_a_recipe_goes_on_where_it_failed(toy: Path) -> None:
    toy.mkdir()
    (toy / "broken-b").touch()
    made = recipe.Recipe(toy, None, False)
    assert not made.go() and order(toy) == "ab" and "not complete" in made.table()
    (toy / "broken-b").unlink()
    made = recipe.Recipe(toy, None, False)
    assert made.go() and order(toy) == "bc" and "figure of c" in made.table()
    assert made.go() and order(toy) == ""


def test_what_comes_after_a_repeated_stage_is_made_again(toy: Path) -> None:
    made = recipe.Recipe(toy, None, False)
    assert made.go() and order(toy) == "abc"
    shutil.rmtree(toy / "b")
    (toy / "c" / "old").touch()
    assert made.go() and order(toy) == "bc" and not (toy / "c" / "old").exists()
    assert made.go(first="b") and order(toy) == "bc"
    assert made.go(only=["a"]) and order(toy) == "a" and made.go() and order(toy) == ""


def test_another_text_needs_another_folder(toy: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One sentence.\n")
    assert recipe.Recipe(toy, text, True).go() and order(toy) == "a--tinyb--tinyc--tiny"
    text.write_text("Another sentence.\n")
    with pytest.raises(SystemExit, match="another text"):
        recipe.Recipe(toy, text, True)


def test_another_llm_needs_another_folder(toy: Path, tmp_path: Path) -> None:
    llm = tmp_path / "llm.gguf"
    llm.write_bytes(b"GGUF")
    assert recipe.Recipe(toy, None, True, llm).go()
    llm.write_bytes(b"GGUF of another")
    with pytest.raises(SystemExit, match="another text, LLM"):
        recipe.Recipe(toy, None, True, llm)


def test_a_linear_map_is_found_and_noise_is_not() -> None:
    report = program("table_report")
    torch.manual_seed(0)
    source = torch.randn(600, 12)
    assert report.linear_r2(source, source @ torch.randn(12, 5) + 3) > 0.99
    assert report.linear_r2(source, torch.randn(600, 5)) < 0.05


def test_checkpoints_are_due_by_steps_or_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = program("checkpoint")
    now = 0.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    due = checkpoint.Due(every=100, steps=250)
    assert [step for step in range(1, 251) if due(step)] == [100, 200, 250]
    now = 301.0
    assert due(201) and not due(202)
