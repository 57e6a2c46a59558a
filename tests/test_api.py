"""docs/api.md: its examples run, its signatures are the real ones, and the names have their types for mypy."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch
import yaml

import audio_projection
from audio_projection.config import load_config
from audio_projection.fit.assemble import new_projector
from audio_projection.models import load_llm, load_tts
from helpers import parity_kit
from helpers.paths import REPOSITORY
from helpers.training import save_llm, write_noise

PAGE = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
EXAMPLES = {title: re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) for title, text in SECTIONS.items()}
HEADINGS = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
VOICE_METHODS = {"from_config", "speak", "stream", "chat", "chat_stream", "session", "embed_reference", "reference"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with what the examples name: tiny models instead of the large ones."""
    place = tmp_path_factory.mktemp("api")
    save_llm(place / "models" / "llm")
    parity_kit.assemble("tiny_base", place / "models").rename(place / "models" / "tts")
    write_noise(place / "speaker.wav", 1.0)
    (place / "configs").mkdir()
    settings = {
        "root": "..",
        "llm": {"name": str(place / "models" / "llm"), "layers": 2, "context": "chat"},
        "tts": {"name": str(place / "models" / "tts"), "language": "english"},
        "projector": {"path": "models/projector"},
        "device": "cpu",
        "threads": 1,
    }
    path = place / "configs" / "default.yaml"
    path.write_text(yaml.safe_dump(settings))
    config = load_config(path)
    projector = new_projector(config, load_llm(config), load_tts(config))
    projector.set_voice(torch.randn(64, generator=torch.Generator().manual_seed(0)), "noise")
    projector.save_pretrained(place / "models" / "projector")
    return place


@pytest.mark.parametrize("section", EXAMPLES)
def test_the_examples_run(section: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a section one after another, in one namespace."""
    assert EXAMPLES[section], f"the section {section!r} has no example"
    monkeypatch.chdir(place)
    namespace: dict[str, object] = {}
    for number, example in enumerate(EXAMPLES[section], 1):
        exec(compile(example, f"docs/api.md, {section}, example {number}", "exec"), namespace)


def test_the_example_of_live_runs() -> None:
    page = (REPOSITORY / "docs" / "live.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    exec(compile(example, "docs/live.md", "exec"), {})


@pytest.mark.parametrize("heading", [heading for heading in HEADINGS if "(" in heading])
def test_the_signatures_are_the_real_ones(heading: str) -> None:
    name = heading.partition("(")[0]
    thing: object = audio_projection
    for part in name.split("."):
        thing = getattr(thing, part)
    assert callable(thing)
    parameters = [each for each in inspect.signature(thing).parameters.values() if each.name != "self"]
    words = [
        each.name if each.default is each.empty else f"{each.name}={_written(each.default)}" for each in parameters
    ]
    assert heading == f"{name}({', '.join(words)})"


def _written(default: object) -> str:
    """A default as the page writes it: a dataclass of defaults without its fields."""
    return f"{type(default).__name__}()" if is_dataclass(default) else repr(default)


def test_every_public_name_is_documented_and_no_other() -> None:
    documented = {heading.partition("(")[0] for heading in HEADINGS}
    assert {f"Voice.{method}" for method in VOICE_METHODS} <= documented
    for name in audio_projection.__all__:
        assert re.search(rf"`{name}\b", PAGE), f"{name} is not in docs/api.md"
    imported = {name for line in re.findall(r"from audio_projection import (.+)", PAGE) for name in line.split(", ")}
    assert imported <= set(audio_projection.__all__)
    listed = re.findall(r"^\| `(\w+)` \|", SECTIONS["How a voice speaks"], re.MULTILINE)
    assert listed == [field.name for field in fields(audio_projection.VoiceDefaults)]


PROGRAM = """
from audio_projection import (
    Answer, AudioProjectionError, Choice, Config, LanguageModel, LinearProjector, Models, Pair, Projector, Qwen3TTS,
    Reference, ResidualProjector, Sampling, Speech, Voice, VoiceDefaults, fit_projector, load_config, new_projector,
    train_projector,
)
config = load_config("configs/nano.yaml", ["seed=1"])
voice = Voice.from_config(config)
speech = voice.speak("Good morning.", seed=1)
answer = voice.chat_stream([{"role": "user", "content": "Hello"}], sampling=Choice(greedy=True))
reveal_type(config)  # audio_projection.config.Config
reveal_type(config.train.steps)  # int | None
reveal_type(voice)  # audio_projection.inference.voice.Voice
reveal_type(voice.defaults)  # audio_projection.inference.defaults.VoiceDefaults
reveal_type(voice.defaults.sampling)  # audio_projection.sampling.Sampling | None
reveal_type(speech)  # audio_projection.inference.speech.Speech
reveal_type(speech.samples)  # numpy.ndarray[
reveal_type(speech.sample_rate)  # int
reveal_type(voice.stream("Good morning."))  # audio_projection.inference.streams.SpeechStream
reveal_type(next(voice.stream("Good morning.")))  # numpy.ndarray[
reveal_type(voice.session().say("Hello"))  # audio_projection.inference.streams.Answer
reveal_type(voice.session().messages)  # Mapping[str, str]]
reveal_type(voice.chat([]))  # audio_projection.inference.speech.Speech
reveal_type(answer)  # audio_projection.inference.streams.Answer
reveal_type(answer.text)  # str
reveal_type(voice.llm)  # audio_projection.llm.language_model.LanguageModel
reveal_type(voice.tts)  # audio_projection.tts.model.Qwen3TTS
reveal_type(Projector.from_pretrained("folder"))  # audio_projection.projector.Projector
reveal_type(LanguageModel.from_pretrained("folder"))  # audio_projection.llm.language_model.LanguageModel
reveal_type(Qwen3TTS.from_pretrained("folder"))  # audio_projection.tts.model.Qwen3TTS
reveal_type(new_projector(config, voice.llm, voice.tts))  # audio_projection.projector.Projector
reveal_type(train_projector(config, Models(voice.llm, voice.projector, voice.tts), [], []).finished)  # bool
reveal_type(Sampling.greedy())  # audio_projection.sampling.Sampling
reveal_type(LinearProjector)  # LinearProjector
reveal_type(ResidualProjector)  # ResidualProjector
reveal_type(Pair)  # audio_projection.data.pairs.Pair
reveal_type(AudioProjectionError("words"))  # audio_projection.errors.AudioProjectionError
"""
TENSORS = """
reveal_type(voice.embed_reference("speaker.wav"))  # torch._tensor.Tensor
reveal_type(voice.reference("speaker.wav", "Words."))  # audio_projection.tts.prompt.Reference
reveal_type(voice.projector)  # audio_projection.projector.Projector
reveal_type(fit_projector(config.fit, voice.llm, voice.tts, voice.projector, []))  # FitReport | None
"""
LIBRARIES = "torch transformers tokenizers accelerate safetensors lhotse peft huggingface_hub matplotlib rich scipy"
"""Of which mypy would read a minute long."""


def assert_revealed(folder: Path, program: str, settings: str) -> None:
    """mypy finds the types that the comments say, in a program outside the checkout that imports the package."""
    (folder / "program.py").write_text(program)
    (folder / "mypy.ini").write_text(settings)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--python-executable", sys.executable]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    command += ["--cache-dir", str(folder / "cache"), "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    revealed = {
        int(line): found for line, found in re.findall(r"^program.py:(\d+): note: .* is \"(.*)\"", done.stdout, re.M)
    }
    assert done.returncode == 0 and ": error: " not in done.stdout, done.stdout + done.stderr
    wanted = {number: line.partition("# ")[2] for number, line in enumerate(program.splitlines(), 1) if "#" in line}
    assert revealed.keys() == wanted.keys()
    for number, words in wanted.items():
        assert words in revealed[number] and revealed[number] != "Any", f"line {number}: {revealed[number]}"


def test_the_types_reach_a_program_outside_the_checkout(tmp_path: Path) -> None:
    """By the package's py.typed: without it mypy reads no types of an installed package."""
    pytest.importorskip("mypy", reason="mypy is not installed (audio-projection[dev])")
    skipped = ",".join(f"{name}.*" for name in LIBRARIES.split())
    settings = f"[mypy]\n[mypy-{skipped}]\nfollow_imports = skip\n[mypy-*]\nignore_missing_imports = True\n"
    assert_revealed(tmp_path, PROGRAM, settings)


@pytest.mark.slow
def test_the_types_of_tensors_too(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed (audio-projection[dev])")
    assert_revealed(tmp_path, PROGRAM + TENSORS, "[mypy]\nignore_missing_imports = True\n")
