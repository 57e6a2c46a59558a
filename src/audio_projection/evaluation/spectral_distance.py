"""Mel-cepstral and log-spectral distances between two recordings of a sentence, along a time alignment.

Both sounds are brought to 16 kHz and to the same level, cut into windows of 25 ms every 10 ms, and aligned by dynamic
time warping of their mel-cepstra.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

RATE = 16_000
HOP = 160
FRAMES_PER_SECOND = RATE // HOP
COEFFICIENTS = 13
"""Mel-cepstral coefficients, without the zeroth, which is the level."""

_WINDOW = 400
_FFT = 512
_BANDS = 40
_FLOOR = 1e-6  # of the mean power of a frame of speech: 60 dB under it nothing is told apart
_SILENCE = 1e-4  # of the power of the loudest frame: 40 dB under it is no speech
_BOTH, _DOWN, _ACROSS = np.int8(0), np.int8(1), np.int8(2)  # steps of a path: in both, in the left, in the right


class Frames:
    """Spectra and mel-cepstra of a sound's T frames, from mono float samples (S,) at `rate` Hz."""

    def __init__(self, samples: np.ndarray, rate: int) -> None:
        power = _power(_resampled(samples, rate))
        level = power.sum(1)
        self.speech: np.ndarray = level > level.max(initial=1e-12) * _SILENCE
        """(T,) bool: which frames are speech; the others are silence."""
        mean = level[self.speech].mean() if self.speech.any() else 1.0
        self._power = np.maximum(power / mean, _FLOOR).astype(np.float32)

    def __len__(self) -> int:
        return len(self._power)

    @cached_property
    def spectrum(self) -> np.ndarray:
        """(T, 257) dB, relative to the mean power of the speech."""
        return 10 * np.log10(self._power)

    @cached_property
    def cepstra(self) -> np.ndarray:
        """(T, 13): the c_k of ln|S| = c_0 + sum of c_k cos(k w), |S| being the magnitude in 40 mel bands."""
        return 0.5 * np.log(self._power @ _mel_bands()) @ _cosines()


@dataclass(frozen=True)
class Distances:
    """Means over the pairs of frames along the path; frames of silence are taken out before."""

    mel_cepstral: float
    """dB: 10 / ln 10 * sqrt(2 * sum of the squared differences of 13 mel-cepstral coefficients)."""
    log_spectral: float
    """dB: root mean square over the 257 bins of the difference of the spectra, the harmonics of the voice included."""


def distances(sound: Frames, reference: Frames) -> Distances:
    """Distances of a sound to a recording of the same words, aligned in time."""
    ours, theirs = _spoken(sound), _spoken(reference)
    left, right = dtw_path(sound.cepstra[ours], reference.cepstra[theirs])
    ours, theirs = ours[left], theirs[right]
    cepstral = np.square(sound.cepstra[ours] - reference.cepstra[theirs]).sum(1)
    spectral = np.square(sound.spectrum[ours] - reference.spectrum[theirs]).mean(1)
    return Distances(float(10 / np.log(10) * np.sqrt(2 * cepstral).mean()), float(np.sqrt(spectral).mean()))


def _spoken(frames: Frames) -> np.ndarray:
    """Indices of the frames of speech; of all frames, when there is no speech."""
    return np.flatnonzero(frames.speech) if frames.speech.any() else np.arange(len(frames))


def dtw_path(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest path (P,), (P,) through the pairs of rows of (N, D) and (M, D), by dynamic time warping.

    It goes from the first pair to the last; a step goes on by one row in one or in both. A pair costs the Euclidean
    distance of its rows.
    """
    cost = _euclidean(left, right)
    rows, columns = cost.shape
    flat, stride = cost.ravel(), max(columns - 1, 1)
    # by anti-diagonals, as no cell waits for another of the same one; totals[0] stands for a row before the first
    before, last = np.full(rows + 1, np.inf, np.float32), np.full(rows + 1, np.inf, np.float32)
    before[0] = 0
    choices = []
    for diagonal in range(rows + columns - 1):
        low, high = max(0, diagonal - columns + 1), min(diagonal, rows - 1)
        both, down, across = before[low : high + 1], last[low : high + 1], last[low + 1 : high + 2]
        waiting = np.minimum(down, across)
        choices.append((low, np.where(both <= waiting, _BOTH, np.where(down <= across, _DOWN, _ACROSS))))
        start = diagonal + low * (columns - 1)
        totals = np.full(rows + 1, np.inf, np.float32)
        totals[low + 1 : high + 2] = np.minimum(both, waiting) + flat[start::stride][: high - low + 1]
        before, last = last, totals
    return _traced(choices, rows, columns)


def _traced(choices: list[tuple[int, np.ndarray]], rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Backtracking: the path from its end to its beginning by the choice made at each cell."""
    row, column = rows - 1, columns - 1
    path = [(row, column)]
    while row or column:
        low, chosen = choices[row + column]
        step = chosen[row - low]
        row, column = row - (step != _ACROSS), column - (step != _DOWN)
        path.append((row, column))
    found = np.array(path[::-1])
    return found[:, 0], found[:, 1]


def _euclidean(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    squares = np.square(left).sum(1)[:, None] + np.square(right).sum(1) - 2 * left @ right.T
    return np.sqrt(np.maximum(squares, 0), dtype=np.float32)


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    import soxr

    sound = np.asarray(samples, dtype=np.float32)
    return sound if rate == RATE else soxr.resample(sound, rate, RATE)


def _power(samples: np.ndarray) -> np.ndarray:
    """(T, 257), one row for each begun 10 ms; at least one."""
    count = max(1, -(-len(samples) // HOP))
    padded: np.ndarray = np.zeros((count - 1) * HOP + _WINDOW, np.float32)
    padded[(_WINDOW - HOP) // 2 :][: len(samples)] = samples[: len(padded) - (_WINDOW - HOP) // 2]
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP]
    return np.square(np.abs(np.fft.rfft(windows * np.hanning(_WINDOW + 1)[:-1].astype(np.float32), _FFT)))


@lru_cache(maxsize=1)
def _mel_bands() -> np.ndarray:
    """(257, 40): triangles of the same area, equally wide in mel, from 0 to 8 kHz."""
    mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), _BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bins = np.linspace(0, RATE / 2, _FFT // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling))
    return triangles / triangles.sum(0)


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """(40, 13): from the log magnitudes of the bands to c_1 ... c_13."""
    angles = np.pi * (np.arange(_BANDS) + 0.5) / _BANDS
    return 2 / _BANDS * np.cos(angles[:, None] * np.arange(1, COEFFICIENTS + 1))
