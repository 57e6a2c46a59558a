"""Skipped and repeated parts of a spoken sentence, found by aligning it with the teacher's same sentence.

The two are aligned by dynamic time warping of their mel-cepstra. Along that path both advance in time; a part of the
text is *skipped* where the teacher speaks for a while and the other for less than a quarter of that, and something is
*repeated* (or put in) where it is the other way round. Only speech counts, so that pauses may be longer or shorter. A
while is 0.4 s, a word of some length, or 0.8 s, a short clause.

How far this can be trusted, on the first 60 sentences of benchmarks/robustness.txt. From 0.4 s on nothing is found in
flite's voices `slt`, `awb` and `kal16`, in `rms` at 0.85 and 1.15 times its length, or in `rms` through nano's first
codec, which blurs most words; of `rms` with 0.6 s, 0.9 s or 1.3 s cut out or doubled at a random place 98 to 100 % are
found. In another speaker's voice parts said twice are found less often (1.3 s: 9 in 10). From 0.8 s on 98 % of 0.9 s
and all of 1.1 s are found, and nothing of 0.6 s. Wrong words of the right length are for the word error rate; but
speech of other words altogether is mostly (7 in 10, from 0.4 s on) called skipped or repeated too, so that the shares
mean something left out only where the words are right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audio_projection.evaluation.spectral_distance import FRAMES_PER_SECOND, Frames, dtw_path

WORD, CLAUSE = 0.4, 0.8
"""Seconds of speech that one says and the other does not, to be called skipped or repeated."""
SHARE = 0.25
"""Of its time, that the other may still take."""


@dataclass(frozen=True)
class SkipsAndRepeats:
    """Where a sentence has a skip or a repeat, in seconds from its beginning; None: nowhere."""

    skipped: float | None
    """Start, in the teacher's sentence, of what the other leaves out."""
    repeated: float | None
    """Start, in the sentence, of what the teacher does not say, or has said before."""


def find_skips_and_repeats(sound: Frames, teacher: Frames, *shortest: float) -> list[SkipsAndRepeats]:
    """Compare a sentence with the teacher's, for each of some lengths in seconds of speech."""
    ours, theirs = dtw_path(sound.cepstra, teacher.cepstra)
    our_speech, their_speech = sound.speech.cumsum()[ours], teacher.speech.cumsum()[theirs]
    found = []
    for length in (round(seconds * FRAMES_PER_SECOND) for seconds in shortest):
        skipped, repeated = _stall(their_speech, our_speech, length), _stall(our_speech, their_speech, length)
        found.append(
            SkipsAndRepeats(
                None if skipped is None else float(theirs[skipped]) / FRAMES_PER_SECOND,
                None if repeated is None else float(ours[repeated]) / FRAMES_PER_SECOND,
            )
        )
    return found


def _stall(moving: np.ndarray, stalled: np.ndarray, length: int) -> int | None:
    """Where on the path the worst stretch begins in which `moving` has `length` and `stalled` less than SHARE of it.

    Both count frames of speech along the path. A longer such stretch has one of this length in it.
    """
    begins = np.searchsorted(moving, moving - length, side="right") - 1
    ends = np.flatnonzero(begins >= 0)
    if not len(ends):
        return None
    gained = stalled[ends] - stalled[begins[ends]]
    worst = int(gained.argmin())
    return int(begins[ends[worst]]) if gained[worst] < SHARE * length else None
