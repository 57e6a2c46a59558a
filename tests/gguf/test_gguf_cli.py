"""The commands `export gguf`, and `speak` with the exported files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("gguf", reason="the gguf package is not installed (audio-projection[gguf])")

from audio_projection.config import load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.export import Export
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.gguf.projector_file import read_projector
from audio_projection.projector import Projector
from helpers.paths import REPOSITORY


def run(*words: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, with `path` first on its import path."""
    source = str(REPOSITORY / "src")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), source] if path else [source])}
    command = [sys.executable, "-m", "audio_projection", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)


def test_the_projector_alone_needs_no_llama_cpp(tmp_path: Path, without_llama_cpp: Path) -> None:
    target = tmp_path / "my projector é.gguf"
    done = run("export", "gguf", "--config", "configs/nano.yaml", "--output", target, path=without_llama_cpp)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{target}: ") and "F16" in done.stdout
    assert read_projector(target).info == Projector.from_pretrained(NANO_FOLDER / "projectors" / "linear").info


def test_a_projector_that_was_trained_with_the_talker_is_not_exported_alone(tmp_path: Path) -> None:
    folder = tmp_path / "projector"
    shutil.copytree(NANO_FOLDER / "projectors" / "linear", folder)
    record = json.loads((folder / "projector.json").read_text())
    (folder / "projector.json").write_text(json.dumps(record | {"finetune": "lora"}))
    export = Export(load_config("configs/nano.yaml"), str(folder), "F16", "F16")
    with pytest.raises(AudioProjectionError, match=r"tts.finetune=lora.*export both with --all"):
        list(export.projector(tmp_path / "projector.gguf"))
    assert not (tmp_path / "projector.gguf").exists()
    with pytest.raises(AudioProjectionError, match="adapter is missing: copy the whole folder"):
        list(export.everything(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def without_llama_cpp(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH that makes `import llama_cpp` fail."""
    package = tmp_path / "blocked" / "llama_cpp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not here')\n")
    return package.parent


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")
    folder = tmp_path_factory.mktemp("exported") / "a voice é"
    done = run("export", "gguf", "--config", "configs/nano.yaml", "--all", folder, "--type", "q8_0")
    assert done.returncode == 0, done.stderr
    reported = [line.split(": ")[0] for line in done.stdout.splitlines()]
    files = ["llm.gguf", "projector.gguf", "talker.gguf", "predictor.gguf", "tts", "config.yaml"]
    assert reported == [str(folder / name) for name in files] and "Q8_0" in done.stdout
    return folder


def test_speaking_with_the_exported_files(exported: Path, tmp_path: Path) -> None:
    sound = tmp_path / "out.wav"
    spoken = run("speak", "--gguf", exported, "--text", "Good morning.", "--output", sound, "--seed", "1")
    assert spoken.returncode == 0 and "Traceback" not in spoken.stderr, spoken.stderr
    assert spoken.stdout.startswith(f"{sound}: ") and soundfile.info(sound).duration > 0.3


SPEAKS = """
import sys
from audio_projection import Voice
Voice.from_config(sys.argv[1]).speak("Hello world")
slow = "torch._dynamo", "transformers.modeling_utils", "transformers.models.mimi.modeling_mimi"
assert not [name for name in slow if name in sys.modules]
"""


def test_speaking_imports_no_models_of_transformers(exported: Path) -> None:
    """Their import takes seconds, more than nano takes to load and speak."""
    command = [sys.executable, "-c", SPEAKS, str(exported / "config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_missing_projector_is_reported(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "without"
    shutil.copytree(exported, folder)
    (folder / "projector.gguf").unlink()
    done = run("speak", "--gguf", folder, "--text", "Good morning.")
    assert done.returncode == 1 and done.stderr.startswith(f"error: missing: projector.gguf in {folder}")


def test_source_checkpoints_are_never_overwritten(tmp_path: Path) -> None:
    """`--all` writes a folder tts/; a TTS checkpoint at the same path must not be overwritten."""
    shutil.copytree(NANO_FOLDER / "tts", tmp_path / "tts")
    before = (tmp_path / "tts" / "model.safetensors").read_bytes()
    linear = NANO_FOLDER / "projectors" / "linear"
    for place in (tmp_path, tmp_path / "tts", tmp_path / "tts" / "in"):
        config = load_config("configs/nano.yaml", [f"tts.name={tmp_path / 'tts'}"])
        with pytest.raises(AudioProjectionError, match="choose another folder"):
            list(Export(config, str(linear), "F32", "F32").everything(place))
    assert (tmp_path / "tts" / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tts"]


def test_an_export_that_ends_early_does_not_speak(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(exported, folder)
    export = Export(load_config("configs/nano.yaml"), None, "F32", "F32").everything(folder)
    next(export)
    export.close()
    done = run("speak", "--gguf", folder, "--text", "Good morning.")
    assert done.returncode == 1 and "config.yaml" in done.stderr and "export gguf" in done.stderr


def test_an_answer_is_spoken(exported: Path, tmp_path: Path) -> None:
    sound = tmp_path / "out.wav"
    answered = run("speak", "--gguf", exported, "--chat", "Tell me about the river.", "--output", sound, "--seed", "1")
    assert answered.returncode == 0 and len(answered.stdout.splitlines()) == 2, answered.stderr
    assert soundfile.info(sound).duration > 0.3


def test_the_error_without_the_extra(exported: Path, tmp_path: Path, without_llama_cpp: Path) -> None:
    words = ("speak", "--gguf", exported, "--text", "Good morning.", "--output", tmp_path / "out.wav")
    refused = run(*words, path=without_llama_cpp)
    assert refused.returncode == 1 and refused.stderr.strip().splitlines()[-1].startswith("error: GGUF needs packages")
    assert 'pip install "audio-projection[gguf]"' in refused.stderr and "Traceback" not in refused.stderr


def test_missing_files_name_the_command_that_makes_them(tmp_path: Path) -> None:
    done = run("speak", "--config", "configs/nano-gguf.yaml", f"gguf.folder={tmp_path}/none", "--text", "Good morning.")
    assert done.returncode == 1 and "export gguf --config" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --all FOLDER, or --output FILE"),
        (("--all", "x", "--output", "y"), "give --all FOLDER, or --output FILE"),
        (("--output", "y", "--type", "q3"), "q4_k_m"),
        (("--output", "y", "--type", "q8_0"), "--projector-type"),
        (("--output", "y", "--llm", "z.gguf"), "go with --all"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], message: str) -> None:
    done = run("export", "gguf", *words)
    assert done.returncode == 2 and message in done.stderr
