"""The commands of README.md in their order, as a newcomer types them: in a copy of the checkout, a bare environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from helpers.corpora import noise, write_sound
from helpers.paths import REPOSITORY

NEEDS_MORE = {
    "pip install torch": "constraints.txt names the torch of the tests",
    "pip install torch --index-url https://download.pytorch.org/whl/cpu": "PyTorch's own index",
    "pip install torch --index-url https://download.pytorch.org/whl/cu130": "likewise, and for Windows",
    "python scripts/download_models.py": "real weights: brings them",
    "python src/train.py --config configs/default.yaml": "real weights",
    'python src/inference.py --text "Hello world" --output output.wav': "real weights",
    "audio-projection data features prepared encoded --config configs/default.yaml": "real weights",
    "audio-projection train --config configs/default.yaml data.source=pairs data.path=encoded": "real weights",
    'audio-projection speak --config configs/nano.yaml --text "While it is made." --output - | aplay': "a sound card",
    "audio-projection chat --config configs/nano.yaml --play": "a sound card, and somebody who types",
    "python benchmarks/decode_speed.py MODEL_DIR --official-python PYTHON": "an environment of its own",
    "python benchmarks/parity.py MODEL_DIR REF.safetensors": "a checkpoint folder and its stored outputs",
    "python benchmarks/decode_speed.py": "the part of a command line that stands complete above",
    "python src/inference.py": "likewise",
    "audio-projection fit -c configs/smollm2.yaml llm.name=FILE.gguf output_dir=runs/mine": "a file of one's own",
    "audio-projection speak -c configs/smollm2.yaml llm.name=FILE.gguf output_dir=runs/mine --text Hello.": "likewise",
    'make smollm2 QUESTION="Why is the sky blue?"': "the same with another question",
    "audio-projection serve --config configs/nano.yaml": "serves until it is stopped: tests/cli/test_serve.py runs it",
    "audio-projection evaluate --config configs/nano.yaml": "hours: tests/evaluation runs it on a few sentences",
}
"""What is not run here, word for word, and why. A command of the README that is not listed is run."""

COLLECT_ONLY = {"make test", "python -m pytest"}
"""These would run this test again: the tests are found, not run."""

COMMAND = re.compile(r"(?:make|pip|python3?|audio-projection) \S")


def commands_of(readme: str) -> list[str]:
    """Code blocks and inline code that start with a program of ours, in the order of the text, comments cut off; a
    command that comes again is there once."""
    found = []
    fenced = False
    for line in readme.splitlines():
        if line.startswith("```"):
            fenced = not fenced
            continue
        spans = [line] if line.startswith("    ") and not fenced else [] if fenced else re.findall(r"`([^`]+)`", line)
        found += [re.split(r"\s+#", span.strip())[0].strip() for span in spans if COMMAND.match(span.strip())]
    return list(dict.fromkeys(found))


def python_of(readme: str) -> str:
    """The README's example of the Python interface."""
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    return example


def copy_of_checkout(target: Path) -> Path:
    """What git would give a newcomer, uncommitted changes included: no environment, no caches, no earlier runs."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    return target


def lay_out_inputs(folder: Path) -> None:
    """The files that the README's commands speak of as the reader's own."""
    (folder / "lines.txt").write_text("The first line.\nThe second one.\n", encoding="utf-8")
    chapter = folder / "data/LibriSpeech/train-clean-100/103/1240"
    texts = []
    for number in range(6):
        write_sound(chapter / f"103-1240-{number:04d}.flac", noise(2.5, seed=number))
        texts.append(f"103-1240-{number:04d} THE QUICK BROWN FOX RAN OVER THE HILL {'AND ' * number}AGAIN")
    (chapter / "103-1240.trans.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    rows = []
    for number in range(24):
        write_sound(folder / f"recordings/{number}.wav", noise(2.5, seed=number))
        foxes = "fox " * (1 + number % 9) + "and so on " * (number // 9)
        rows.append(f"recordings/{number}.wav\tThe quick {foxes}ran.")
    (folder / "recordings.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def environment(folder: Path) -> dict[str, str]:
    """The shell's, with a bare virtual environment first on its path and nothing of the environment of the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON"))}
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    pins = {"PIP_CONSTRAINT": str(REPOSITORY / "constraints.txt"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return kept | pins | {"PATH": path, "VIRTUAL_ENV": str(folder), "PYTHON": sys.executable}


def test_the_commands_are_found_in_their_order() -> None:
    readme = (
        "    make demo     # installs\n\n`make demo`, `pip install torch`, `a: b` or `audio-projection speak --help`.\n"
        "```python\nmake = 1\n```\n    audio-projection fit --config x.yaml   # seconds\n"
    )
    assert commands_of(readme) == [
        "make demo",
        "pip install torch",
        "audio-projection speak --help",
        "audio-projection fit --config x.yaml",
    ]


def test_what_is_left_out_stands_in_the_readme() -> None:
    commands = commands_of((REPOSITORY / "README.md").read_text(encoding="utf-8"))
    assert set(NEEDS_MORE) <= set(commands)
    assert set(commands) >= COLLECT_ONLY
    assert len([command for command in commands if command not in NEEDS_MORE]) >= 15


def test_the_workflow_runs_what_the_readme_says() -> None:
    """The public CI cannot run here: each of its commands is one that the README has, and that is run below."""
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert runs and set(runs) <= set(commands_of((REPOSITORY / "README.md").read_text(encoding="utf-8")))
    assert {name.split("-")[0] for name in job["strategy"]["matrix"]["system"]} == {"ubuntu", "macos", "windows"}
    assert job["strategy"]["matrix"]["python"] == ["3.10", "3.14"]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_command_of_the_readme_runs_in_its_order(tmp_path: Path) -> None:
    checkout = copy_of_checkout(tmp_path / "checkout")
    lay_out_inputs(checkout)
    venv.create(tmp_path / "bare", with_pip=True)
    readme = (checkout / "README.md").read_text(encoding="utf-8")
    variables = environment(tmp_path / "bare")
    for command in [command for command in commands_of(readme) if command not in NEEDS_MORE]:
        started = time.monotonic()
        collect = {"PYTEST_ADDOPTS": "--collect-only -q --no-header"} if command in COLLECT_ONLY else {}
        run(command, checkout, variables | collect, shell=True)
        print(f"{time.monotonic() - started:6.1f} s  {command}", flush=True)
    run(["python", "-c", python_of(readme)], checkout, variables)
    for made in ("output.wav", "morning.wav", "answer.flac", "residual.ogg", "prepared/report.json", "exported"):
        assert (checkout / made).exists(), made
    assert len(list((checkout / "spoken").iterdir())) == 2


def run(command: str | list[str], folder: Path, variables: dict[str, str], shell: bool = False) -> None:
    program = command if shell else [shutil.which(command[0], path=variables["PATH"]) or command[0], *command[1:]]
    done = subprocess.run(program, shell=shell, cwd=folder, env=variables, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
