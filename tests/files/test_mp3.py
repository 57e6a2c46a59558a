"""MP3 files whose length is a guess: they are read to their end, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio
from audio_projection.files.mp3 import find_frames

RATE = 16000


def two_halves(path: Path, loud_first: bool, channels: int = 1, rate: int = RATE) -> Path:
    """12 s, one half noise, one half almost silent, at a variable bit rate."""
    draw = np.random.default_rng(0)
    noise = draw.normal(0, 0.2, (6 * rate, channels)).astype(np.float32)
    quiet = noise * 1e-3
    halves = (noise, quiet) if loud_first else (quiet, noise)
    kind = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE", "compression_level": 0.3}
    soundfile.write(path, np.concatenate(halves), rate, **kind)
    return path


def without_announcement(path: Path) -> Path:
    """The same file without its Xing frame."""
    data = path.read_bytes()
    first = find_frames(data).sound[0].start
    path.write_bytes(data[first:])
    return path


def levels(samples: np.ndarray) -> tuple[float, float]:
    """Root mean square of the second and of the last but one sixth."""
    sixth = len(samples) // 6
    return tuple(float(np.sqrt(np.square(part).mean())) for part in (samples[sixth : 2 * sixth], samples[-2 * sixth :]))


@pytest.mark.parametrize("loud_first", [True, False])
@pytest.mark.parametrize(("channels", "rate"), [(1, 16000), (2, 44100), (1, 8000)])
def test_a_guessed_length_loses_nothing(tmp_path: Path, loud_first: bool, channels: int, rate: int) -> None:
    path = without_announcement(two_halves(tmp_path / "a.mp3", loud_first, channels, rate))
    assert abs(soundfile.info(path).duration - 12) > 1, "libsndfile guesses wrong, or this test shows nothing"
    samples, found = audio.decode(path)
    assert found == rate and len(samples) / rate == pytest.approx(12, abs=0.3)
    assert audio.duration(path) == pytest.approx(12, abs=0.3)
    first, last = levels(samples)
    assert (first > 50 * last) is loud_first and (last > 50 * first) is not loud_first


def test_an_announced_length_is_kept_to_the_sample(tmp_path: Path) -> None:
    path = two_halves(tmp_path / "a.mp3", True)
    assert len(audio.decode(path)[0]) == 12 * RATE and audio.duration(path) == 12


def test_tags_and_two_files_in_one(tmp_path: Path) -> None:
    path = two_halves(tmp_path / "a.mp3", True)
    once = path.read_bytes()
    tag = b"ID3\x04\x00\x00" + bytes((0, 0, 2, 0)) + b"\xff\xfb\x90" * 85 + b"\0"
    path.write_bytes(tag + once + b"TAG" + b"\0" * 125)
    assert audio.duration(path) == pytest.approx(12, abs=0.2)
    path.write_bytes(once + tag + once)
    assert audio.duration(path) == pytest.approx(24, abs=0.3)
    assert len(audio.decode(path)[0]) / RATE == pytest.approx(24, abs=0.3)


def test_half_of_an_announced_file_is_refused(tmp_path: Path) -> None:
    path = two_halves(tmp_path / "a.mp3", False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(AudioProjectionError, match="breaks off after .* of 12.00 s"):
        audio.decode(path)


def test_what_cannot_be_decoded_to_its_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = without_announcement(two_halves(tmp_path / "a.mp3", True))
    monkeypatch.setattr(audio, "with_length", lambda data, frames: data)
    with pytest.raises(AudioProjectionError, match=r"a.mp3: \d\.\d\d s at its end cannot be decoded; convert it"):
        audio.decode(path)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_segments_are_cut_where_they_are(tmp_path: Path, name: str) -> None:
    tones = [np.sin(np.arange(RATE) * 2 * np.pi * hertz / RATE) / 2 for hertz in (300, 1000, 3000)]
    soundfile.write(tmp_path / name, np.concatenate(tones), RATE)
    samples, _ = audio.decode(tmp_path / name, 1.0, 1.0)
    assert len(samples) == RATE
    assert np.argmax(np.abs(np.fft.rfft(samples[:, 0]))) == pytest.approx(1000, abs=2)
    assert len(audio.decode(tmp_path / name, 2.0)[0]) / RATE == pytest.approx(1, abs=0.01)
    with pytest.raises(AudioProjectionError, match="breaks off after 3.0. of 3.50 s"):
        audio.decode(tmp_path / name, 2.0, 1.5)


def test_a_flac_of_unknown_length_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros(RATE), RATE)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(AudioProjectionError, match="does not say how long it is"):
        audio.decode(path)
