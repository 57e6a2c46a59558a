"""Options of `speak` that speak of one thing: which of them wins, and what is done with a recording."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from audio_projection.cli import speak as module
from audio_projection.data.reference_audio import SILENCE
from helpers.nano import SPEAKER


class FakeVoice:
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def embed_reference(self, path: Path) -> str:
        self.asked.append(("embed", path))
        return "vector"

    def reference(self, path: Path, text: str, silence: float) -> str:
        self.asked.append(("reference", path, text, silence))
        return "reference"


@pytest.mark.parametrize("recording", [True, False])
def test_a_recording_wins_over_a_name_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recording: bool
) -> None:
    spoken: list[Any] = []

    class FakeSpeaker:
        def __init__(self, config: Any, chosen: Any) -> None:
            spoken.append(chosen)

        def speak(self, text: str, output: Path) -> float:
            return 1.0

    monkeypatch.setattr(module, "Speaker", FakeSpeaker)
    ref_audio = tmp_path / "a.wav" if recording else None
    module.speak(text="Hello.", config="nano", voice=SPEAKER, ref_audio=ref_audio, output=tmp_path / "out.wav")
    assert ("--ref-audio wins: the voice is that of" in caplog.text) is recording
    assert spoken[0].ref_audio == ref_audio


def test_a_recording_that_is_continued_gets_silence_after_it(tmp_path: Path) -> None:
    speaker = object.__new__(module.Speaker)
    speaker._voice = voice = FakeVoice()  # type: ignore[assignment]
    path = tmp_path / "a.wav"
    assert speaker._reference(path, None) == "vector" and speaker._reference(path, "the dog") == "reference"
    assert voice.asked == [("embed", path), ("reference", path, "the dog", SILENCE)] and 0 < SILENCE <= 1


def test_what_speaking_need_not_load_is_hidden_with_what_needs_it(tmp_path: Path) -> None:
    """scikit-learn without scipy would fail where a library loads it: transformers 5.20 does where it finds it."""
    for name, imports in {"scipy": "", "sklearn": "import scipy.sparse"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(imports, encoding="utf-8")
    script = (
        "import importlib.util, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import audio_projection.models\n"
        "def load(config):\n"
        "    if importlib.util.find_spec('sklearn'): import sklearn\n"
        "    print('loaded'); sys.exit()\n"
        "audio_projection.models.load_tts = load\n"
        "sys.argv[1:] = ['speak', '--config', 'nano', '--text', 'hello', '--output', sys.argv[1]]\n"
        "from audio_projection.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.wav")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0 and done.stdout == "loaded\n", done.stderr
