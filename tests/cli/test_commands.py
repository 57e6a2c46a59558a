"""The commands of the README: the four literal ones run in order, and every other one exists."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement

from helpers import hub as loopback
from helpers.tiny_llm import make_model, make_tokenizer

LLM = "meta-llama/Llama-3.1-8B-Instruct"
TTS = "Qwen/Qwen3-TTS-12Hz-1.7B-Base"
WORDS = ["HELLO", "THERE THE QUICK", "BROWN FOX", "THE LAZY DOG", "GOOD DAY", "SAID THE FOX", "JUMPS OVER"]


@pytest.fixture(scope="module")
def tiny_base(repository: Path) -> Path:
    """A tiny random Qwen3-TTS of the kind base, in the official layout."""
    places = [repository / "tests/fixtures/parity", repository.parent / "shared/parity"]
    for place in places:
        if (place / "tiny_base/config.json").is_file():
            return place / "tiny_base"
    pytest.skip("no tiny base checkpoint here")


@pytest.fixture(scope="module")
def hub(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[loopback.Hub]:
    """Tiny models under the real names, and a corpus in LibriSpeech's layout."""
    llm = tmp_path_factory.mktemp("llm")
    make_model().save_pretrained(llm)
    make_tokenizer().save_pretrained(llm)
    with loopback.running() as server:
        server.repositories = {LLM: llm, TTS: tiny_base}
        server.files["/12/train-clean-100.tar.gz"] = librispeech()
        yield server


def librispeech() -> bytes:
    """Two speakers with six recordings each: coloured noise, a second or two long."""
    random = np.random.default_rng(0)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for speaker in ("103", "26"):
            chapter = f"LibriSpeech/train-clean-100/{speaker}/1240"
            transcript = []
            for number in range(6):
                name = f"{speaker}-1240-{number:04d}"
                transcript.append(f"{name} {' '.join(random.choice(WORDS, 2 + number % 3))}")
                samples = np.convolve(random.normal(0, 0.1, 16000 + 4000 * number), np.ones(8) / 4, "same")
                flac = io.BytesIO()
                soundfile.write(flac, samples, 16000, format="FLAC")
                _add(tar, f"{chapter}/{name}.flac", flac.getvalue())
            _add(tar, f"{chapter}/{speaker}-1240.trans.txt", ("\n".join(transcript) + "\n").encode())
    return stream.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clean clone has, without the bundled weights, in a folder with a space in its name."""
    clone = tmp_path_factory.mktemp("clean clone")
    for name in ("src", "configs", "scripts"):
        shutil.copytree(repository / name, clone / name, ignore=shutil.ignore_patterns("nano", "__pycache__"))
    shutil.copy(repository / "requirements.txt", clone)
    return clone


def run(
    hub: loopback.Hub, checkout: Path, command: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(checkout / "home"),
        "HF_HUB_OFFLINE": "0",
        "AUDIO_PROJECTION_CORPUS_URL": f"{hub.url}/12",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("PYTHONPATH", None)
    program, *arguments = shlex.split(command)
    assert program == "python"
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder or checkout,
        timeout=600,
    )


def test_requirements_txt_is_installed(repository: Path) -> None:
    """`pip install -r requirements.txt` took effect: everything it names is installed in a fitting version."""
    for line in (repository / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line == "-e .":
            assert importlib.metadata.version("audio-projection")
        elif line and not line.startswith("#"):
            requirement = Requirement(line)
            assert requirement.specifier.contains(importlib.metadata.version(requirement.name)), line


@pytest.mark.timeout(1500)  # five processes that load torch: half a minute on an idle machine, much more on a busy one
def test_the_four_commands_in_order(hub: loopback.Hub, checkout: Path, tmp_path: Path) -> None:
    download = run(hub, checkout, "python scripts/download_models.py")
    assert download.returncode == 0, download.stderr
    assert download.stderr.count("to fetch") == 3
    assert (checkout / "data/LibriSpeech/train-clean-100/103/1240/103-1240.trans.txt").is_file()

    untrained = run(hub, checkout, 'python src/inference.py --text "Hello world" --output output.wav')
    assert untrained.returncode == 1 and untrained.stderr.startswith("error: missing: a trained projector")
    assert not (checkout / "output.wav").exists()

    train = run(hub, checkout, "python src/train.py --config configs/default.yaml")
    assert train.returncode == 0, train.stderr
    assert_trained(checkout / "runs/default/linear")

    speak = run(hub, checkout, 'python src/inference.py --text "Hello world" --output output.wav')
    assert speak.returncode == 0, speak.stderr
    assert_spoken(checkout / "output.wav")

    elsewhere = run(hub, checkout, f'python "{checkout}/src/inference.py" --text "Hello world" -o there.flac', tmp_path)
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert_spoken(tmp_path / "there.flac")


def assert_trained(folder: Path) -> None:
    info = json.loads((folder / "projector/projector.json").read_text(encoding="utf-8"))
    assert (info["kind"], info["llm_size"], info["tts_size"]) == ("linear", 32, 64)
    assert info["voice_source"] == "103", "the default voice is the named speaker's"
    assert (folder / "projector/projector.safetensors").is_file()
    losses = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert losses and all(np.isfinite(record["loss"]) for record in losses if "loss" in record)
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def assert_spoken(path: Path) -> None:
    samples, rate = soundfile.read(path)
    assert rate == 24000 and len(samples) >= 1920 and np.abs(samples).max() > 0


# Every command of the README exists with the options it is shown with.


GROUPS = {"data", "export"}
"""Commands that have commands of their own."""


def readme_commands(repository: Path) -> Iterator[str]:
    text = (repository / "README.md").read_text(encoding="utf-8")
    fenced = "\n".join(re.findall(r"^```(?:bash|sh|console|shell)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    indented = "\n".join(re.findall(r"^ {4}(.*)$", text, re.MULTILINE))
    for line in f"{fenced}\n{indented}".replace("\\\n", " ").splitlines():
        words = re.sub(r"\s#.*$", "", line.strip().removeprefix("$ ")).strip()
        if re.match(r"(make|python|pip|audio-projection)\b", words):
            yield words


def test_the_readme_shows_its_two_commands(repository: Path) -> None:
    assert {"make demo", "make test"} <= set(readme_commands(repository))


def test_every_command_of_the_readme_exists(repository: Path) -> None:
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    for command in readme_commands(repository):
        program, *arguments = shlex.split(command)
        if program == "make":
            for target in arguments:
                assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), command
        for argument in arguments:
            if re.fullmatch(r"(src|scripts|configs|benchmarks|recipes|tests)/[\w/.-]+", argument):
                assert (repository / argument).exists(), command
        for option in re.findall(r"(?<=\s)--[a-z-]+", command):
            if program == "audio-projection" or "src/" in command or "scripts/" in command:
                assert option in command_help(program, arguments), command


def command_help(program: str, arguments: list[str]) -> str:
    from typer.testing import CliRunner

    from audio_projection.cli.app import app

    scripts = {"src/train.py": "train", "src/inference.py": "speak", "scripts/download_models.py": "download"}
    words = [scripts[arguments[0]]] if program != "audio-projection" else arguments[: 1 + (arguments[0] in GROUPS)]
    return CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).output


def test_ci_calls_the_test_command_of_the_readme(repository: Path) -> None:
    script = repository / ".ci/run"
    assert os.access(script, os.X_OK) and "make test" in script.read_text(encoding="utf-8")


def planned(repository: Path, target: str, venv: Path) -> str:
    """The commands that `make target` would run."""
    command = ["make", "-n", target, f"VENV={venv}", f"PYTHON={sys.executable}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=repository, check=True, timeout=60).stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_a_half_finished_install_is_repeated(repository: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    for target in ("demo", "smollm2", "test", "lint"):
        assert "pip install" in planned(repository, target, venv) and "rm -rf" in planned(repository, target, venv)
    (venv / "installed").touch()
    targets = [("demo", "audio-projection"), ("smollm2", "audio-projection"), ("test", "pytest"), ("lint", "ruff")]
    for target, program in targets:
        steps = planned(repository, target, venv)
        assert "pip install" not in steps and program in steps
