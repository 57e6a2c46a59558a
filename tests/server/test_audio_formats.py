"""Encoders: the first bytes come with the first samples, and together they are the sound."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from audio_projection.server.audio_formats import RATE, Recoder, complete

FRAME = RATE * 8 // 100


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("kind", "frames"), [("wav", 1), ("pcm", 1), ("mp3", 2), ("opus", 1), ("flac", 3), ("aac", 2)])
def test_sound_comes_after_so_many_frames(kind: str, frames: int) -> None:
    """A header alone is no sound: what came so far decodes to something that is not silence."""
    av = pytest.importorskip("av", reason="PyAV is not installed (audio-projection[aac])")
    recoder, sound = Recoder(kind, RATE), tone(frames * 0.08)
    data = b"".join(recoder.encode(sound[start : start + FRAME]) for start in range(0, len(sound), FRAME))
    if kind == "pcm":
        assert len(data) == 2 * len(sound)
        return
    with av.open(io.BytesIO(data)) as file:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    assert len(heard) >= FRAME // 4 and np.abs(heard).max() > 0


def test_another_rate_is_resampled_without_a_loss_at_the_joins() -> None:
    recoder, sound = Recoder("pcm", 16_000), tone(1.0, 16_000)
    data = b"".join(recoder.encode(sound[start : start + 1280]) for start in range(0, len(sound), 1280))
    heard = np.frombuffer(data + recoder.finish(), "<i2") / 32767
    assert len(heard) == RATE
    assert np.abs(heard - tone(1.0))[100:-100].max() < 2e-3


def test_a_whole_wav_says_its_length() -> None:
    recoder, sound = Recoder("wav", RATE), tone(0.5)
    data = complete("wav", recoder.encode(sound) + recoder.finish())
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == RATE and np.abs(samples - sound).max() < 1e-4
    assert int.from_bytes(data[4:8], "little") == len(data) - 8


def test_samples_beyond_the_range_are_clipped() -> None:
    data = Recoder("pcm", RATE).encode(np.array([2.0, -2.0], np.float32))
    assert np.frombuffer(data, "<i2").tolist() == [32767, -32767]
