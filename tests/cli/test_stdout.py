"""`speak --output -`: sound to stdout while it is made."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
import typer

from audio_projection.cli import speak as module
from audio_projection.cli.options import STDOUT
from audio_projection.files.playback.sound_stream import SoundStream, pcm
from audio_projection.inference import Voice
from helpers.paths import REPOSITORY

TEXT = "Good morning. How are you today? The river is long. She said that she was not afraid."


def process(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "audio_projection", *words]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def speaking(*words: str) -> subprocess.Popen[bytes]:
    return process("speak", "--config", "nano", "--text", TEXT, "--output", "-", *words)


def test_the_first_sound_comes_while_the_rest_is_made_and_the_whole_is_the_speech() -> None:
    with speaking() as running:
        assert running.stdout is not None and running.stderr is not None
        first = os.read(running.stdout.fileno(), 1 << 16)
        began = time.monotonic()
        rest = running.stdout.read()
        took = time.monotonic() - began
        said = running.stderr.read().decode()
    voice = Voice.from_config("configs/nano.yaml")
    samples = np.concatenate(list(voice.stream(TEXT, seed=0)))
    assert running.returncode == 0 and TEXT.rstrip(".") in said and "s\n" in said
    assert (first + rest)[44:] == pcm(samples)
    assert len(first) < len(first + rest) / 4 and took > 0.2
    with wave.open(io.BytesIO(first + rest)) as file:  # a length that is not known: readers read to the end
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, voice.sample_rate)
        assert file.readframes(file.getnframes()) == pcm(samples)


def test_raw_samples_and_a_reader_who_leaves() -> None:
    with speaking("--format", "pcm") as running:
        assert running.stdout is not None and running.stderr is not None
        assert not running.stdout.read(1000).startswith(b"RIFF")
        running.stdout.close()
        said = running.stderr.read().decode()
    assert running.returncode == module.BROKEN_PIPE and "Traceback" not in said and "Broken" not in said


def test_a_stream_is_written_at_once() -> None:
    file, samples = io.BytesIO(), np.array([0.0, 0.5, -1.0, 2.0], np.float32)
    stream = SoundStream(file, 16_000)
    stream.write(samples)
    assert len(file.getvalue()) == 44 + 8
    stream.write(samples)
    assert np.frombuffer(file.getvalue()[44:], "<i2").tolist() == [0, 16384, -32767, 32767] * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "pcm", "output": Path("a.wav")}, "--format goes with --output -"),
        ({"output": STDOUT, "play": True}, "--play goes with a file"),
        ({"output": STDOUT, "text_file": Path("a.txt"), "output_dir": Path("b")}, "--output goes with one text"),
    ],
)
def test_what_does_not_go_together(options: dict[str, object], words: str) -> None:
    text = {} if "text_file" in options else {"text": "Hello."}
    with pytest.raises(typer.BadParameter, match=words):
        module.speak(**text, **options)  # type: ignore[arg-type]


def test_no_sound_into_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with pytest.raises(typer.BadParameter, match="not for a terminal"):
        module.speak(text="Hello.", output=STDOUT)
