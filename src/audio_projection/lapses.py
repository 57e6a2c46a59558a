"""Parts of a sentence that are left out or said twice, found by its alignment with the teacher's same sentence.

The two are aligned by dynamic time warping of their mel-cepstra. Along that path both go on in time; a part of the
text is *skipped* where the teacher speaks for 0.4 s or more and the other for less than a quarter of that, and
something is *repeated* (or put in) where it is the other way round. Only speech counts, so that pauses may be longer
or shorter.

How far this can be trusted, on the first 60 sentences of benchmarks/robustness.txt: nothing is found in flite's
voices `slt`, `awb` and `kal16`, in `rms` at 0.85 and 1.15 times its length, or in `rms` through nano's first codec,
which blurs most words. Of `rms` with 0.6 s, 0.9 s or 1.3 s cut out or doubled at a random place 98 to 100 % are found.
In another speaker's voice parts said twice are found less often (1.3 s: 9 in 10). A part of under 0.4 s is not looked
for, and wrong words of the right length are for the word error rate; but speech of other words altogether is mostly
(7 in 10) called skipped or repeated too, so that the shares tell of clauses only where the words are right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audio_projection.acoustics import FRAMES_PER_SECOND, Frames, align

SHORTEST = 0.4
"""Seconds of speech that one says and the other does not, to be called skipped or repeated."""
SHARE = 0.25
"""Of its time, that the other may still take."""


@dataclass(frozen=True)
class Lapses:
    """What went wrong in a sentence, in seconds from its beginning; None: nothing."""

    skipped: float | None
    """Where the teacher's sentence begins to say what the other leaves out."""
    repeated: float | None
    """Where the speech begins to say what the teacher does not, or has said."""


def find_lapses(sound: Frames, teacher: Frames) -> Lapses:
    """Compare a sentence with the teacher's; see the top of this file."""
    ours, theirs = align(sound.cepstra, teacher.cepstra)
    said, told = sound.speech.cumsum()[ours], teacher.speech.cumsum()[theirs]
    skipped, repeated = _stall(told, said), _stall(said, told)
    return Lapses(
        None if skipped is None else float(theirs[skipped]) / FRAMES_PER_SECOND,
        None if repeated is None else float(ours[repeated]) / FRAMES_PER_SECOND,
    )


def _stall(going: np.ndarray, standing: np.ndarray) -> int | None:
    """Where on the path the worst stretch begins in which `going` has SHORTEST and `standing` less than SHARE of it.

    Both count frames of speech along the path. A longer such stretch has one of this length in it.
    """
    length = round(SHORTEST * FRAMES_PER_SECOND)
    begins = np.searchsorted(going, going - length, side="right") - 1
    ends = np.flatnonzero(begins >= 0)
    if not len(ends):
        return None
    gone = standing[ends] - standing[begins[ends]]
    worst = int(gone.argmin())
    return int(begins[ends[worst]]) if gone[worst] < SHARE * length else None
