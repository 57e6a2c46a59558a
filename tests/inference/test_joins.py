"""Long texts with nano: the sentences' joins, their voice and their pace."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from audio_projection.inference import Voice
from audio_projection.sampling import Sampling

TEXT = (
    "The river is long and very cold. She said that she was not afraid. He was the first man on the ship. "
    "They had to wait for the train."
)


def pitch(samples: np.ndarray, rate: int) -> float:
    """Median fundamental frequency in Hz, by autocorrelation of the voiced parts."""
    found = []
    for start in range(0, len(samples) - 1024, 512):
        part = samples[start : start + 1024]
        correlation = np.correlate(part, part, "full")[1023:]
        lag = rate // 300 + int(np.argmax(correlation[rate // 300 : rate // 70]))
        if np.sqrt(np.mean(part**2)) > 0.02 and correlation[lag] > correlation[0] / 2:
            found.append(rate / lag)
    return float(np.median(found))


def test_sentences_keep_voice_and_pace_and_their_joins_are_smooth() -> None:
    voice = Voice.from_config("configs/nano.yaml", ["threads=1"])
    voice.defaults = replace(voice.defaults, sampling=Sampling.greedy())
    stream, rate = voice.stream(TEXT), voice.sample_rate
    samples, words = np.concatenate(list(stream)), stream.words
    alone = [speech.samples for speech in voice.speak_all(f"{each.strip('. ')}." for each in TEXT.split(". "))]
    np.testing.assert_array_equal(samples, np.concatenate(alone))
    steps, joins = np.abs(np.diff(samples)), np.cumsum([len(each) for each in alone])[:-1]
    assert len(joins) == 3 and max(steps[join - 1] for join in joins) < 0.01 < np.percentile(steps, 99) / 2
    ends = [0, *(number for number, word in enumerate(words, 1) if word.text.endswith("."))]
    sentences = [words[start:end] for start, end in pairwise(ends)]
    parts = [samples[round(each[0].start * rate) : round(each[-1].end * rate)] for each in sentences]
    pace = [len(part) / sum(len(word.text) + 1 for word in each) for part, each in zip(parts, sentences, strict=True)]
    pitches = [pitch(part, rate) for part in parts]
    loudness = [20 * np.log10(np.sqrt(np.mean(part**2))) for part in parts]
    assert max(pace) / min(pace) < 1.5 and max(pitches) / min(pitches) < 1.25 and np.ptp(loudness) < 4
