"""Stage of its own: heteronyms spoken in both readings, to train projectors on and to judge them by.

    python recipes/nano/heteronym_speech.py work prompts.tsv

Writes under `work/heteronyms`:

    pairs/       sentences with heteronyms, both readings of each about equally often, and sentences without, with the
                 teacher's codes; `data.source=pairs data.path=work/heteronyms/pairs` reads them
    renderings/  the sentences of the benchmark (`heteronyms.tsv`, and the answers of `heteronym_questions.tsv`), each
                 spoken as it is labelled and in the word's other reading; renderings.json has the times of the word

In the pairs the teacher's tagger decides the reading.  Sentences of the text come first; where a reading is rare,
sentences are made of frames.  No sentence of a benchmark is among the pairs.  Parts that are there are kept.
"""

import argparse
import csv
import json
import os
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import sentences
import soundfile
import torch
from codebooks import latents_of, mel_patches, quantise
from folder import VOICE
from safetensors.torch import load_file
from teacher import SAMPLE_RATE, Spoken, teacher, word_numbers, word_places

from audio_projection.data.pairs import Pair, PairFolder

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TABLES = ("heteronyms.tsv", "heteronym_questions.tsv")
HELD_OUT = ("heldout.txt", "robustness.txt")
PART = 250
"""Pairs of a part."""
FRAMES = (
    "They {w} {o} every year.", "We will {w} {o} soon.", "She wants to {w} {o}.", "Did he {w} {o}?",
    "You must never {w} {o}.", "I used to {w} {o}.", "Nobody can {w} {o} here.", "Let us {w} {o} now!",
    "Please {w} {o}.", "He tried to {w} {o} alone.", "Why would anyone {w} {o}?", "The men had to {w} {o}.",
    "Yesterday she {w} {o}.", "Last night he {w} {o} again.", "They have {w} {o} twice.", "I had {w} {o} before.",
    "The {w} of {o} was a surprise.", "I saw the {w} beside {o}.", "There was no {w} near {o}.",
    "Where is the {w} for {o}?", "It is a good {w} for {o}.", "His {w} was about {o}.", "Another {w} came after {o}.",
    "We talked about the {w} and {o}.", "This {w} belongs to {o}.", "A {w} like that would help {o}.",
    "It was a {w} one, like {o}.", "They are {w} and so is {o}.", "Two {w} rooms were kept for {o}.",
)  # fmt: skip
"""Sentences for any word; the tagger decides which of its readings each is."""
OBJECTS = (
    "the children", "a letter", "the old story", "this song", "these people", "the string", "the paper", "her friends",
    "the visitors", "a small part", "the results", "his brother", "the whole country", "their meeting", "the garden",
)  # fmt: skip


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a TSV file of the benchmark."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def readings_of(rows: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """The two readings of each word, in phones."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        found.setdefault(row["word"], {})[row["phones"]] = None
    return {word: list(phones) for word, phones in found.items()}


def place_of(text: str, word: str) -> tuple[int, int] | None:
    """Where the word stands in a text that holds it once."""
    places = [found.span() for found in re.finditer(rf"\b{word}\b", text, re.IGNORECASE)]
    return places[0] if len(places) == 1 else None


def reading_in(text: str, word: str) -> str | None:
    """The phones of a word that stands once in a text; None where the teacher reads other words than stand there."""
    place = place_of(text, word)
    said = [phones for symbols in teacher().readings(text) for phones in word_phones(symbols)]
    words = word_places(text)
    if place is None or len(said) != len(words):
        return None
    return next(phones for phones, (start, end) in zip(said, words, strict=True) if start <= place[0] < end)


def word_phones(symbols: str) -> list[str]:
    """The phones of each word of a sentence."""
    found: dict[int, str] = {}
    for symbol, word in zip(symbols, word_numbers(symbols), strict=True):
        if word is not None:
            found[word] = found.get(word, "") + symbol
    return list(found.values())


def choose(texts: Sequence[str], readings: dict[str, list[str]], most: int) -> list[str]:
    """Up to `most` texts for each reading of each word; made ones where the texts have fewer."""
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for word, wanted in readings.items():
        objects = random.Random(word)
        made = [frame.format(w=word, o=thing) for frame, thing in product(FRAMES, OBJECTS)]
        objects.shuffle(made)
        for text in [*(text for text in texts if place_of(text, word)), *made]:
            if all(len(groups[word, phones]) >= most for phones in wanted):
                break
            phones = reading_in(text, word)
            if phones in wanted and len(groups[word, phones]) < most:
                groups[word, phones].append(text)
        counts = ", ".join(f"{phones} {len(groups[word, phones])}" for phones in wanted)
        print(f"{word}: {counts}", flush=True)
    return list(dict.fromkeys(text for group in groups.values() for text in group))


def write_pairs(folder: PairFolder, texts: Sequence[str], books: dict[str, torch.Tensor]) -> None:
    """The parts that are missing; texts that the teacher does not read word for word are left out."""
    for number, first in enumerate(range(0, len(texts), PART)):
        if folder.has(number):
            continue
        pairs = []
        for place, text in enumerate(texts[first : first + PART], first):
            spoken = teacher().speak(text)
            if spoken is not None:
                samples = torch.from_numpy(spoken.audio).float() / 32_768
                codes = quantise(latents_of(mel_patches(samples), books), books)
                pairs.append(Pair(f"heteronyms-{place}", text, codes, VOICE, VOICE))
        folder.add(pairs, number)


def rendered(row: dict[str, str], phones: str) -> tuple[np.ndarray, list[float]]:
    """int16 samples of a row's sentence with the word in one reading, and when the word begins and ends, in seconds."""
    text, place = row["sentence"], place_of(row["sentence"], row["word"])
    assert place is not None, f"{row['word']} stands once in {text!r}"
    start, end = place
    marked = f"{text[:start]}[{text[start:end]}](/{phones}/){text[end:]}"
    spoken = teacher().speak(marked)
    assert spoken is not None, f"the teacher reads {marked!r} word for word"
    return spoken.audio, word_times(spoken, next(span for span in word_places(marked) if span[0] <= start < span[1]))


def word_times(spoken: Spoken, span: tuple[int, int]) -> list[float]:
    """When the word with that span of characters begins and ends, in seconds."""
    phones = [number for number, each in enumerate(spoken.spans) if each == span]
    begin = spoken.ends[phones[0] - 1] if phones[0] else 0
    return [begin / SAMPLE_RATE, spoken.ends[phones[-1]] / SAMPLE_RATE]


def write_renderings(folder: Path, rows: Sequence[dict[str, str]], readings: dict[str, list[str]]) -> None:
    """Both renderings of every row as NNNN-labelled.wav and NNNN-other.wav, and renderings.json."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, row in enumerate(rows, 1):
        (other,) = (phones for phones in readings[row["word"]] if phones != row["phones"])
        entry = {"word": row["word"], "sentence": row["sentence"], "question": row.get("question")}
        for name, phones in (("labelled", row["phones"]), ("other", other)):
            audio, times = rendered(row, phones)
            file = f"{number:04d}-{name}.wav"
            soundfile.write(folder / file, audio, SAMPLE_RATE)
            entry[name] = {"phones": phones, "sound": file, "word": times}
        entries.append(entry)
    part = folder / "renderings.part"
    part.write_text(json.dumps(entries, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(part, part.with_suffix(".json"))


def usable(text_file: Path, rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Sentences of a text that no benchmark holds."""
    kept = {sentences.key(row["sentence"]) for row in rows}
    held_out = [BENCHMARKS / name for name in HELD_OUT]
    return (text for text in sentences.sentences(text_file, without=held_out) if sentences.key(text) not in kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="a run's folder with codebooks.safetensors")
    parser.add_argument("text", type=Path, help="file of sentences, a line each")
    parser.add_argument("--most", type=int, default=100, help="sentences of each reading of each word")
    parser.add_argument("--others", type=int, default=1600, help="sentences without these words")
    arguments = parser.parse_args()
    sets = [table(BENCHMARKS / name) for name in TABLES]
    rows = [row for each in sets for row in each]
    readings, home = readings_of(sets[0]), arguments.work / "heteronyms"
    write_renderings(home / "renderings", rows, readings)
    print(f"{home / 'renderings'}: {len(rows)} sentences in both readings", flush=True)
    texts = list(usable(arguments.text, rows))
    any_word = re.compile(rf"\b({'|'.join(readings)})\b", re.IGNORECASE)
    with_words = choose([text for text in texts if any_word.search(text)], readings, arguments.most)
    without = [text for text in texts if not any_word.search(text)][: arguments.others]
    mixed = with_words + without
    random.Random(0).shuffle(mixed)
    books = load_file(arguments.work / "codebooks.safetensors")
    folder = PairFolder(home / "pairs", {"voice": VOICE, "most": arguments.most, "others": arguments.others})
    write_pairs(folder, mixed, books)
    print(f"{home / 'pairs'}: {len(folder.read())} pairs, {len(with_words)} of them with heteronyms")


if __name__ == "__main__":
    main()
