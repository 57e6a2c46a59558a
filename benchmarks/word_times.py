"""How far the places of words (`SpeechStream.words`) are from those that a recogniser hears.

    python benchmarks/word_times.py --whisper models/whisper-base        # pip install faster-whisper; some minutes

Speaks held-out sentences, recognises them by faster-whisper with word timestamps, and compares the words of both.
Whisper's own times are some hundredths of a second off.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from audio_projection.evaluation.sentence_sets import read_sentences
from audio_projection.files.audio import resample
from audio_projection.inference import Voice, Word

_RATE = 16_000  # Whisper's


def bare(word: str) -> str:
    return re.sub(r"[^a-z']", "", word.lower())


def errors(words: list[Word], heard: list[Any]) -> Iterator[tuple[float, float]]:
    """(start, end) in seconds: ours minus the recogniser's, for each word that both have."""
    ours, theirs = [bare(word.text) for word in words], [bare(word.word) for word in heard]
    for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        for offset in range(block.size):
            mine, other = words[block.a + offset], heard[block.b + offset]
            yield mine.start - other.start, mine.end - other.end


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--config", default="configs/nano.yaml")
    options.add_argument("--whisper", type=Path, required=True, help="folder of a faster-whisper model")
    options.add_argument("--sentences", type=Path, help="text file, a sentence a line; without it the project's own")
    options.add_argument("--limit", type=int, default=40)
    given = options.parse_args()
    from faster_whisper import WhisperModel

    voice, whisper = (
        Voice.from_config(given.config),
        WhisperModel(str(given.whisper), device="cpu", compute_type="int8"),
    )
    found: list[tuple[float, float]] = []
    spoken = 0
    for number, sentence in enumerate(read_sentences(given.sentences, given.limit)):
        stream = voice.stream(sentence, seed=number)
        samples = resample(np.concatenate(list(stream)), voice.sample_rate, _RATE)
        segments, _ = whisper.transcribe(samples, language="en", word_timestamps=True)
        found += errors(stream.words, [word for segment in segments for word in segment.words or ()])
        spoken += len(stream.words)
    ends = sorted(abs(end) for _, end in found)
    print(
        json.dumps(
            {
                "words spoken": spoken,
                "words that the recogniser has too": len(found),
                "end of a word, median error, s": round(statistics.median(ends), 3),
                "nine of ten within, s": round(ends[int(0.9 * len(ends))], 3),
                "mean error, s (ours is later: positive)": round(statistics.mean(end for _, end in found), 3),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
