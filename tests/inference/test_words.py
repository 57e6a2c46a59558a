"""Words placed in the sound of a sentence."""

from __future__ import annotations

import numpy as np

from audio_projection.inference.speech import Sentence
from audio_projection.inference.words import SpokenSentence, spoken_until

RATE = 1000
SILENCE, SOUND = np.zeros(100, np.float32), np.full(1000, 0.5, np.float32)


def test_nothing_of_a_sentence_is_heard_while_it_is_silent() -> None:
    """Speech begins with a breath: it must not count as all the words."""
    sentence = SpokenSentence(Sentence("one two three", "one two three", complete=True), 0.0)
    for _ in range(2):
        sentence.add(SILENCE, RATE)
        assert list(sentence.words()) == [] and spoken_until([sentence], 0.2) == ("", "")
    sentence.add(SOUND, RATE)
    words = list(sentence.words())
    assert words[0].text == "one" and words[0].start == 0.2
    sentence.ended = True
    assert [word.text for word in sentence.words()] == ["one", "two", "three"]
    assert list(sentence.words())[-1].end == 1.2


def test_a_sentence_that_never_sounds_still_has_its_words() -> None:
    sentence = SpokenSentence(Sentence("one two", "one two", complete=True), 0.5)
    sentence.add(SILENCE, RATE)
    sentence.ended = True
    assert [word.text for word in sentence.words()] == ["one", "two"]
    assert all(0.5 <= word.start < word.end <= 0.6 for word in sentence.words())
