"""What was spoken: whole speech, and the sentences of a stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Speech:
    """A synthesised waveform and the text that it speaks."""

    samples: np.ndarray
    """(S,) float32, mono, in [-1, 1]."""
    sample_rate: int
    """Samples per second."""
    text: str
    """The text as given; of a chat, what was spoken of the LLM's answer."""
    ended: bool = True
    """Whether the speech ended by itself; False where it was cut at a limit, `VoiceDefaults.max_frames` or that of its
    text's length."""


@dataclass
class Sentence:
    """The text of one utterance; of an answer, as far as the LLM has written it."""

    text: str = ""
    """As it is given to the TTS: in words, where figures are spelled out."""
    written: str = ""
    """As the LLM, or the user, wrote it."""
    complete: bool = False
    """Whether the sentence is whole."""
