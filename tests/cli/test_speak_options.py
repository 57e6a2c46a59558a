"""Options of `speak` that speak of one thing: which of them wins, and what is done with a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audio_projection.cli import speak as module
from audio_projection.data.reference_audio import SILENCE


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
    module.speak(text="Hello.", config="nano", voice="rms", ref_audio=ref_audio, output=tmp_path / "out.wav")
    assert ("--ref-audio wins: the voice is that of" in caplog.text) is recording
    assert spoken[0].ref_audio == ref_audio


def test_a_recording_that_is_continued_gets_silence_after_it(tmp_path: Path) -> None:
    speaker = object.__new__(module.Speaker)
    speaker._voice = voice = FakeVoice()  # type: ignore[assignment]
    path = tmp_path / "a.wav"
    assert speaker._reference(path, None) == "vector" and speaker._reference(path, "the dog") == "reference"
    assert voice.asked == [("embed", path), ("reference", path, "the dog", SILENCE)] and 0 < SILENCE <= 1
