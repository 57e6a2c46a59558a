"""Alignment and distances against their definitions, and what they say of sounds whose distance is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.audio_utils import mel_filter_bank

from audio_projection.evaluation.spectral_distance import Frames, distances, dtw_path
from audio_projection.evaluation.spectrograms import draw
from helpers.evaluation import RATE, babble

SPEECH = np.concatenate(babble(20))


def frames(samples: np.ndarray, rate: int = RATE) -> Frames:
    return Frames(samples, rate)


def cheapest(left: np.ndarray, right: np.ndarray) -> float:
    """The cost of the best path by the definition of dynamic time warping."""
    cost = np.linalg.norm(left[:, None] - right, axis=2)
    for i, j in np.ndindex(cost.shape):
        before = [cost[k, m] for k, m in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if k >= 0 and m >= 0]
        cost[i, j] += min(before, default=0.0)
    return float(cost[-1, -1])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
def test_the_path_is_a_cheapest_one(rows: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    left, right = random.normal(size=(rows, 3)), random.normal(size=(columns, 3))
    i, j = dtw_path(left, right)
    assert (i[0], j[0], i[-1], j[-1]) == (0, 0, rows - 1, columns - 1)
    steps = set(zip(np.diff(i).tolist(), np.diff(j).tolist(), strict=True))
    assert steps <= {(1, 1), (1, 0), (0, 1)}
    assert np.linalg.norm(left[i] - right[j], axis=1).sum() == pytest.approx(cheapest(left, right), rel=1e-5)


def test_spectrum_and_cepstra_are_those_of_other_programs() -> None:
    found = frames(SPEECH)
    # torch sets its 400 samples in the middle of 512; a frame's own 160 are in the middle of both.
    padded = torch.nn.functional.pad(torch.from_numpy(SPEECH), (120 + 56, 512))
    power = torch.stft(padded, 512, 160, 400, torch.hann_window(400), center=False, return_complex=True).abs() ** 2
    power = power[:, : len(found)].T.numpy()
    power = np.maximum(power / power.sum(1).mean(), 1e-6)
    np.testing.assert_allclose(found.spectrum, 10 * np.log10(power), atol=0.01)
    bands = mel_filter_bank(257, 40, 0.0, RATE / 2, RATE, norm=None, mel_scale="htk")
    logarithms = np.log(np.sqrt(power @ (bands / bands.sum(0))))
    angles = (np.arange(40) + 0.5) * np.pi / 40
    for number in range(1, 14):
        expected = 2 * (logarithms * np.cos(number * angles)).mean(1)
        np.testing.assert_allclose(found.cepstra[:, number - 1], expected, atol=1e-3)


def test_mel_cepstral_distance_is_the_rms_of_the_smoothed_spectra_in_db() -> None:
    left, right = frames(SPEECH), frames(np.concatenate(babble(20, seed=1)))
    assert left.speech.all() and right.speech.all()
    i, j = dtw_path(left.cepstra, right.cepstra)
    angles = np.pi * (np.arange(4000) + 0.5) / 4000
    cosines = np.cos(np.arange(1, 14)[:, None] * angles)
    decibels = 20 / np.log(10) * (left.cepstra[i] - right.cepstra[j]) @ cosines
    rms = np.sqrt(np.square(decibels).mean(1))
    assert distances(left, right).mel_cepstral == pytest.approx(rms.mean(), rel=1e-4)


def test_neither_level_nor_rate_nor_pauses_make_a_distance() -> None:
    first, second = SPEECH[:16_000], SPEECH[16_000:]
    pause = np.zeros(4_000, np.float32)
    reference = frames(SPEECH)
    assert distances(frames(0.1 * SPEECH), reference).log_spectral == pytest.approx(0, abs=1e-3)
    resampled = distances(frames(soxr.resample(SPEECH, RATE, 24_000), 24_000), reference)
    assert resampled.mel_cepstral < 0.2
    paused = distances(frames(np.concatenate([pause, first, pause, second, pause])), reference)
    assert paused.mel_cepstral < 0.5 and paused.log_spectral < 1
    other = distances(frames(np.concatenate(babble(20, seed=1))), reference)
    assert other.mel_cepstral > 6 and other.log_spectral > 6


def test_silence_is_no_speech() -> None:
    pause = np.zeros(1_600, np.float32)
    mixed = frames(np.concatenate([pause, SPEECH[:3_200], pause]))
    assert mixed.speech.tolist() == [False] * 9 + [True] * 22 + [False] * 9
    assert not frames(np.zeros(1_600)).speech.any() and len(frames(np.zeros(0))) == 1


def test_spectrograms_share_their_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    spoken = [("teacher", frames(SPEECH)), ("a-linear-projector", frames(SPEECH[:16_000]))]
    draw(spoken, "A title.", tmp_path / "drawn.png")
    first, second = drawn[0].axes[:2]
    assert first.get_xlim() == second.get_xlim() == (0, 2) and first.get_ylim() == second.get_ylim() == (0, 8)
    assert first.images[0].get_clim() == second.images[0].get_clim()
    assert "teacher" in first.get_ylabel() and "a-linear-" in second.get_ylabel()
    assert second.images[0].get_extent()[:2] == [0, 1]
