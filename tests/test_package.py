"""The package as it is installed: cheap to import, complete, and described truthfully."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import audio_projection

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there


def in_a_new_process(repository: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=repository / "src", timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_and_its_command_is_cheap(repository: Path) -> None:
    heavy = "{'torch', 'transformers', 'soundfile', 'librosa', 'matplotlib', 'huggingface_hub'}"
    code = f"import sys, audio_projection, audio_projection.cli; print({heavy} & set(sys.modules))"
    assert in_a_new_process(repository, code) == "set()"


def test_speaking_loads_nothing_that_it_does_not_need(repository: Path) -> None:
    code = (
        "import importlib.util, sys; from audio_projection import config; from audio_projection.cli import speak;"
        "installed = bool(importlib.util.find_spec('scipy'));"
        "speak.Speaker(config.load_config('../configs/nano.yaml'), speak.SpeakOptions());"
        "print({'scipy', 'num2words', 'matplotlib'} & set(sys.modules));"
        "assert bool(importlib.util.find_spec('scipy')) is installed"
    )
    assert in_a_new_process(repository, code) == "set()"


def test_the_public_names_are_there() -> None:
    for name in audio_projection.__all__:
        assert getattr(audio_projection, name).__name__.rpartition(".")[2] == name
    with pytest.raises(AttributeError, match="nothing_like_it"):
        audio_projection.nothing_like_it  # noqa: B018


def test_every_module_says_what_it_is_and_imports_nothing_of_the_tests(repository: Path) -> None:
    for path in (repository / "src/audio_projection").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if text.strip():
            assert text.startswith('"""'), f"{path} has no docstring"
        assert not re.search(r"^(from|import) (tests|benchmarks|recipes)\b", text, re.MULTILINE), path


def project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(repository: Path) -> dict[str, Requirement]:
    lines = (repository / "requirements.txt").read_text(encoding="utf-8").splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith(("#", "-e"))]
    return {requirement.name: requirement for requirement in parsed}


def test_requirements_txt_holds_what_the_package_needs(repository: Path) -> None:
    listed = requirements(repository)
    for line in project(repository)["dependencies"]:
        needed = Requirement(line)
        assert str(listed[needed.name].specifier) == str(needed.specifier)
    assert {"torch", "transformers", "gguf", "librosa", "soundfile"} <= set(listed)
    assert (repository / "requirements.txt").read_text(encoding="utf-8").splitlines()[-1] == "-e ."


def test_torch_is_a_range_for_users_and_one_version_for_the_tests(repository: Path) -> None:
    """FSDP 2 in Accelerate and all of transformers 5.20 ask for torch 2.6; what Makefile and CI install is pinned."""
    torch = requirements(repository)["torch"].specifier
    assert torch.contains("2.6.0") and torch.contains("2.14.1") and not torch.contains("2.5.1")
    pinned = [
        line for line in (repository / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line
    ]
    assert pinned == ["torch==2.13.0"]
    installs = [
        line for line in (repository / "Makefile").read_text(encoding="utf-8").splitlines() if "pip install" in line
    ]
    assert installs and all("-c constraints.txt" in line for line in installs)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_every_python_is_supported(repository: Path, python: str) -> None:
    assert SpecifierSet(project(repository)["requires-python"]).contains(f"{python}.0")
    assert f"Programming Language :: Python :: {python}" in project(repository)["classifiers"]


def test_the_version_is_one() -> None:
    try:
        installed = version("audio-projection")
    except ModuleNotFoundError:
        pytest.skip("audio-projection is not installed here: it runs from src/")
    assert installed == audio_projection.__version__
    assert any(line.startswith("torch>=2.6") for line in requires("audio-projection") or [])


def test_the_licence_is_apache_2(repository: Path) -> None:
    assert project(repository)["license"] == "Apache-2.0"
    text = (repository / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text


def test_the_launchers_are_three_lines(repository: Path) -> None:
    for name, command in [("train", "train"), ("inference", "speak")]:
        text = (repository / "src" / f"{name}.py").read_text(encoding="utf-8")
        assert [line for line in text.splitlines() if line] == [
            "from audio_projection.cli import launch",
            f'launch("{command}")',
        ]


def test_the_bundled_weights_are_small(repository: Path) -> None:
    files = [path for path in (repository / "src/audio_projection/nano").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 30e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".jinja", ".md"}
