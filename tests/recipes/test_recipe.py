"""The recipe of nano: at toy size every stage works, nothing is done twice, and what was killed goes on."""

from __future__ import annotations

import ctypes
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a smoke run, with a space in its name."""
    pytest.importorskip("librosa", reason="the recipe needs librosa")
    try:
        ctypes.CDLL("libflite.so.1")
    except OSError:
        pytest.skip("no flite here, which the recipe speaks with: apt-get install flite")
    work = tmp_path_factory.mktemp("nano recipe")
    done = call(RECIPE / "run.py", work, "--smoke")
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return work


def test_folders_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path) -> None:
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
    samples, rate = soundfile.read(made / "hello.wav")
    assert rate == 16_000 and len(samples) > 1_280 and np.isfinite(samples).all() and np.abs(samples).max() > 0


@pytest.mark.timeout(1800)
def test_a_second_call_repeats_nothing(made: Path) -> None:
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}

    before, began = files(), time.monotonic()
    again = call(RECIPE / "run.py", made, "--smoke")
    assert again.returncode == 0 and files() == before and time.monotonic() - began < 60
    lines = again.stdout.strip().splitlines()
    assert [line.split()[0] for line in lines] == [*(stage.name for stage in recipe.STAGES), "all"]
    other = call(RECIPE / "run.py", made)
    assert other.returncode == 1 and "another text or size" in other.stderr


@pytest.mark.posix
@pytest.mark.timeout(1800)
def test_a_killed_talker_ends_with_the_same_weights(made: Path, tmp_path: Path) -> None:
    work = tmp_path / "talker"
    shutil.copytree(made / "talker", work, ignore=shutil.ignore_patterns("talker.safetensors"))
    sizes = next(shlex.split(stage.smoke) for stage in recipe.STAGES if stage.name == "talker")
    steps = int(sizes[sizes.index("--steps") + 1])
    command = [RECIPE / "talker.py", work, made / "tts", *sizes]
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
    found, expected = load_file(checkpoint), load_file(made / "talker" / "talker.safetensors")
    assert step_of(checkpoint) == steps and found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def step_of(checkpoint: Path) -> int:
    with safe_open(checkpoint, "pt") as file:
        return int(file.metadata()["step"])


@pytest.mark.timeout(1800)
def test_timing_of_what_flite_spoke(made: Path) -> None:
    from transformers import Qwen2TokenizerFast

    data = program("talker_data")
    corpus = data.Corpus(made / "talker", Qwen2TokenizerFast.from_pretrained(made / "tts"))
    corpus.refresh()
    assert len(corpus.utterances) == 80
    for utterance in corpus.utterances:
        first, last = utterance.tokens.long().unbind(1)
        assert len(first) == len(utterance.codes) == len(utterance.phones)
        assert first.min() >= 0 and last.max() < len(utterance.ids) and (first <= last).all()
        assert (first.diff() >= 0).all(), "speech never goes back in the text"
        # The last frame is in the last word, whose stop is not spoken; the first one before it.
        assert first[0] == 0 and last[-1] >= len(utterance.ids) // 2
        assert utterance.phones.max() < 41


def test_timing_by_hand() -> None:
    """A phone a frame of "go on.", cut into go| o|n|.: a pause, g, ow, aa, n, a pause. A phone may be a letter off."""
    pytest.importorskip("librosa", reason="the recipe needs librosa")
    data = program("talker_data")
    phones = [0, 16, 26, 1, 24, 0]
    shard = {
        "phones": torch.tensor([9, *phones, 9], dtype=torch.uint8),
        "ends": torch.tensor([5, *(1_280 * (i + 1) for i in range(6)), 5], dtype=torch.int32),
        "spans": torch.tensor([[0, 0], [0, 0], [0, 2], [0, 2], [3, 5], [3, 5], [5, 5], [0, 0]], dtype=torch.int16),
    }
    tokens, quarters = data.timing("go on.", [0, 2, 4, 5], shard, slice(1, 7), 6)
    assert quarters.tolist() == [[phone] * 4 for phone in phones]
    assert tokens.tolist() == [[0, 0], [0, 0], [0, 1], [1, 2], [1, 3], [2, 3]]


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
    corpus = program("corpus")
    chance = random.Random(0)
    lines = [prompts.invented(chance) for _ in range(3_000)]
    assert lines[:20] == [prompts.invented(chance) for chance in [random.Random(0)] for _ in range(20)]
    assert len(set(lines)) > 2_900
    assert all(corpus.SPOKEN.fullmatch(corpus.clean(line)) for line in lines)
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
