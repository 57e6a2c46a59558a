"""Reference recordings: the checks of a corpus, a length that is advised, the silence after them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from audio_projection.data.reference_audio import RATE, read_reference, with_silence
from audio_projection.errors import AudioProjectionError
from helpers.corpora import noise, write_sound

WORDS = "the quick brown fox jumps over the lazy dog"


@pytest.mark.parametrize(
    ("samples", "text", "words"),
    [
        (noise(4) * 1e-4, None, "is silent .-"),
        (np.full(4 * RATE, 0.3, np.float32), None, "is silent .-"),
        (np.clip(20 * noise(4), -1, 1), None, r"is clipped: it was recorded too loud .*% of the samples"),
        (noise(4), "hm", "does not say its transcript.*0.5 letters a second"),
        (noise(4), WORDS * 20, "does not say its transcript.*letters a second"),
    ],
)
def test_what_is_no_reference_is_refused(tmp_path: Path, samples: np.ndarray, text: str | None, words: str) -> None:
    write_sound(tmp_path / "a.wav", samples)
    with pytest.raises(AudioProjectionError, match=f"reference recording .*a.wav {words}"):
        read_reference(tmp_path / "a.wav", text)


@pytest.mark.parametrize(("seconds", "advised"), [(1, False), (2.9, False), (3, True), (30, True), (31, False)])
def test_a_length_is_advised(tmp_path: Path, seconds: float, advised: bool, caplog: pytest.LogCaptureFixture) -> None:
    write_sound(tmp_path / "a.wav", noise(seconds))
    with caplog.at_level(logging.WARNING):
        samples = read_reference(tmp_path / "a.wav")
    assert len(samples) == pytest.approx(seconds * RATE, abs=2)
    assert ("3 to 30 s give a voice that is more like it" in caplog.text) is not advised


def test_silence_comes_after() -> None:
    samples = np.ones(100, np.float32)
    longer = with_silence(samples, 0.5)
    assert len(longer) == 100 + RATE // 2 and longer[:100].all() and not longer[100:].any()
    assert with_silence(samples, 0).tolist() == samples.tolist()
