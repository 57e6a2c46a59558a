"""Sound files are written atomically, in every format, and read back unchanged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio


def tone(rate: int, seconds: float = 0.5, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def strongest(samples: np.ndarray, rate: int) -> float:
    return float(np.fft.rfftfreq(len(samples), 1 / rate)[np.abs(np.fft.rfft(samples)).argmax()])


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3", ".WAV"])
@pytest.mark.parametrize("rate", [16000, 24000])
def test_every_format_round_trips(tmp_path: Path, suffix: str, rate: int) -> None:
    path = tmp_path / f"füße mit leer {suffix}"
    audio.write(path, tone(rate), rate)
    with path.open("rb") as file:
        magic = file.read(4)
    assert magic in {b"RIFF", b"fLaC", b"OggS"} or (suffix == ".mp3" and magic[0] == 0xFF or magic[:3] == b"ID3")
    assert soundfile.info(str(path)).samplerate == rate
    samples = audio.read(path, rate)
    assert samples.dtype == np.float32 and abs(strongest(samples, rate) - 440) < 6
    if suffix.lower() in {".wav", ".flac"}:
        np.testing.assert_allclose(samples, tone(rate), atol=1 / 32000)


def test_opus_of_a_rate_that_it_does_not_have(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.opus", tone(22050), 22050)
    info = soundfile.info(str(tmp_path / "a.opus"))
    assert (info.samplerate, info.format, info.subtype) == (48000, "OGG", "OPUS")
    assert abs(strongest(audio.read(tmp_path / "a.opus", 22050), 22050) - 440) < 6


def test_long_vorbis_is_written(tmp_path: Path) -> None:
    samples = tone(16000, seconds=240)
    audio.write(tmp_path / "long.ogg", samples, 16000)
    assert soundfile.info(str(tmp_path / "long.ogg")).frames == len(samples)


def test_reading_mixes_down_and_resamples(tmp_path: Path) -> None:
    stereo = np.stack([tone(48000), np.zeros(24000, np.float32)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 48000)
    samples = audio.read(tmp_path / "stereo.wav", 16000)
    assert samples.shape == (8000,)
    assert abs(strongest(samples, 16000) - 440) < 3
    assert 0.2 < np.abs(samples).max() < 0.3


def test_samples_are_clipped(tmp_path: Path) -> None:
    audio.write(tmp_path / "loud.wav", np.array([3.0, -3.0, 0.0], np.float32), 16000)
    np.testing.assert_allclose(audio.read(tmp_path / "loud.wav", 16000), [1, -1, 0], atol=1e-4)


@pytest.mark.parametrize("samples", [np.zeros(0), np.array([0.0, np.nan]), np.zeros((2, 2))])
def test_bad_samples_leave_the_file_alone(tmp_path: Path, samples: np.ndarray) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with pytest.raises(AudioProjectionError):
        audio.write(path, samples, 16000)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.wav"]


def test_a_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    with pytest.raises(AudioProjectionError, match="No space left"):
        audio.write(path, tone(16000), 16000)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.posix
def test_an_existing_file_keeps_its_mode_and_links_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real.wav", tmp_path / "link.wav"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    audio.write(link, tone(16000), 16000)
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o640
    assert len(audio.read(real, 16000)) == 8000


@pytest.mark.posix
def test_unwritable_paths_are_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "file").write_text("x")
    for path, words in [
        (tmp_path / "absent" / "a.wav", "no folder"),
        (tmp_path / "folder.wav", "regular file"),
        (tmp_path / "file" / "a.wav", "no folder"),
        (tmp_path / "a.txt", r"\.wav, \.flac"),
        (tmp_path / "noname", r"\.wav, \.flac"),
        (tmp_path / f"{'x' * 300}.wav", "too long"),
        (Path("/dev/null.d/a.wav"), "no folder"),
        (Path("/proc/a.wav"), "cannot write"),
    ]:
        with pytest.raises(AudioProjectionError, match=words) as caught:
            audio.check_writable(path)
        assert "\n" not in str(caught.value)
    audio.check_writable(tmp_path / "fine.wav")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.wav"]


@pytest.mark.posix
def test_a_read_only_folder_is_unwritable(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(AudioProjectionError, match="Permission denied"):
        audio.check_writable(tmp_path / "a.wav")


@pytest.mark.parametrize("content", [b"", b"no sound at all", b"RIFF\x00\x00\x00\x00WAVE"])
def test_files_that_are_no_sound(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioProjectionError, match="a.wav"):
        audio.read(tmp_path / "a.wav", 16000)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AudioProjectionError, match="no sound file"):
        audio.read(tmp_path / "none.wav", 16000)
