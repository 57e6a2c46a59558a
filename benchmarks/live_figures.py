"""Live answers with figures: are they heard as their words, and does the first sound of other answers come as soon?

    python benchmarks/live_figures.py --config configs/nano.yaml      # pocketsphinx; some minutes of a core

The LLM is made to say ten answers with figures, and ten without. Those with figures are spoken live, and beside them
their words are read aloud; both are recognised. The time until the first chunk of the others is measured with and
without the rereading, in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from audio_projection.evaluation.recognisers import PocketSphinx
from audio_projection.evaluation.word_errors import WordErrors, word_errors
from audio_projection.inference import Voice
from audio_projection.llm.language_model import GeneratedToken
from audio_projection.text.input_text import Reading
from audio_projection.text.token_spans import token_bytes

FIGURES = [
    "The house was sold for $250 in 1987.",
    "She was 22 when the war began.",
    "The train leaves at 10:30 in the morning.",
    "It is 5 km from here to the river.",
    "He paid 12% of the money back.",
    "There were 300 men on the ship.",
    "They met on May 3rd, 2021.",
    "The city has 1.5 million people.",
    "Dr. Lee lives at 45 Main St. now.",
    "About 2/3 of the school came.",
]
PLAIN = [
    "The river is long and very cold.",
    "She said that she was not afraid.",
    "He was the first man on the ship.",
    "They had to wait for the train.",
    "It was a good day for a walk.",
    "We never saw the old house again.",
    "The children were in the garden.",
    "I do not know where he went.",
    "There is a school near the river.",
    "The night was dark and long.",
]
QUESTION = [{"role": "user", "content": "Tell me something."}]


def make_it_say(voice: Voice, answer: str) -> None:
    """From now on the voice's LLM answers with this text, one step for each token, with the states that it then has."""
    llm = voice.llm

    def generate(messages: Sequence[Any], *_: Any) -> Iterator[GeneratedToken]:
        cache, _, _ = llm._step(None, llm.chat_ids(messages))
        for token in llm.tokenize(answer):
            cache, _, state = llm._step(cache, [token])
            yield GeneratedToken(token, token_bytes(llm.tokenizer)(token), state)

    llm.generate = generate  # type: ignore[method-assign, assignment]


def first_sound(voice: Voice, reading: Reading) -> float:
    """Seconds from the question to the first samples."""
    voice.defaults = replace(voice.defaults, reading=reading, normalise=reading.normalise)
    began = time.perf_counter()
    next(voice.chat_stream(QUESTION, seed=0))
    return time.perf_counter() - began


def total(errors: Sequence[WordErrors]) -> WordErrors:
    whole = errors[0]
    for each in errors[1:]:
        whole = whole + each
    return whole


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--config", default="configs/nano.yaml")
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    voice, recognizer = Voice.from_config(given.config), PocketSphinx()
    reading = voice.reading
    live, read = [], []
    for answer in FIGURES:
        words = reading.spoken(answer)
        make_it_say(voice, answer)
        spoken = voice.chat(QUESTION, seed=0)
        assert spoken.text == words, (spoken.text, words)
        aloud = voice.speak(words, seed=0)
        heard = [recognizer.transcribe(speech.samples, speech.sample_rate) for speech in (spoken, aloud)]
        live.append(word_errors(words, heard[0]))
        read.append(word_errors(words, heard[1]))
        print(json.dumps({"words": words, "live": heard[0], "read aloud": heard[1]}), flush=True)
    times: dict[str, list[float]] = {"with rereading": [], "without": []}
    for _ in range(given.rounds):
        for answer in PLAIN:
            make_it_say(voice, answer)
            times["with rereading"].append(first_sound(voice, reading))
            times["without"].append(first_sound(voice, Reading("none", characters=reading.characters)))
    print(
        json.dumps(
            {
                "words wrong, live": f"{100 * total(live).rate:.1f} %",
                "words wrong, the same words read aloud": f"{100 * total(read).rate:.1f} %",
                "words": total(live).words,
                "first sound, median ms": {
                    name: round(1000 * statistics.median(all_), 1) for name, all_ in times.items()
                },
                "ratio of the two, median": round(
                    statistics.median(a / b for a, b in zip(times["with rereading"], times["without"], strict=True)), 3
                ),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
