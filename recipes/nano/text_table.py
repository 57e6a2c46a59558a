"""Stage: which sentences are spoken, and the tokens and first embeddings of the TTS's text table.

    python recipes/nano/text_table.py prompts.txt work --llm SmolLM2-135M-Instruct.gguf

Tokens are an LLM's, pruned to those that the sentences use (`bpe.py`).  Sentences are chosen so that every kept token
is spoken often enough: first those that hold rare tokens, then others at random, sentences of rare kinds
(`spoken_kinds.py`), and word lists for the tokens that are still short.  Writes under `work`: `sentences.txt`, the
tokenizer's files in `tts/`, and `text_table.safetensors` with the LLM's embedding of each token (`source`).
"""

import argparse
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import bpe
import numpy as np
import sentences
import source_llm
import spoken_kinds
from bpe import Merge
from safetensors.numpy import save_file
from source_llm import SourceLLM

LISTS = (
    "They spoke of{}, of{} and of{}.", "The words were{},{} and{}.", "First came{}, then{} and then{}.",
    "Which is it,{},{} or{}?", "Not{} but{}, and never{}!", "You wrote{} beside{} and{}.", "Say{},{} and{} again.",
    "It says{} here, and{} and{} there.", "Do you mean{} or{}, or even{}?", "Between{} and{} stood{}.",
)  # fmt: skip
"""Sentences for three words that each bring their own space."""
OPENINGS = (
    "{} is the first word.", "{}, they said.", "{} comes first.", "{} was written there.", "{} and nothing else.",
    "{}? No.", "{}!", "{} is what I heard.", "{}, or so it seems.", "{}.",
)  # fmt: skip
"""Sentences for a word at their beginning."""


def cover(tokens: list[list[str]], least: int) -> list[int]:
    """Sentences, in the order of choice, in which each token occurs `least` times, or as often as in all of them."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for number, sentence in enumerate(tokens):
        for token in set(sentence):
            places[token].append(number)
    chosen: dict[int, None] = {}
    spoken: Counter[str] = Counter()
    for token in sorted(places, key=lambda token: (len(places[token]), token)):
        for number in places[token]:
            if spoken[token] >= least:
                break
            if number not in chosen:
                chosen[number] = None
                spoken.update(tokens[number])
    return list(chosen)


def homes(words: list[str], merges: list[Merge], wanted: set[str]) -> dict[str, list[str]]:
    """For each wanted token the words (with the space before them) that hold it."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for word, encoded in zip(words, bpe.tokenizer(merges).encode_batch(words), strict=True):
        for token in set(encoded.tokens) & wanted:
            found[token].append(word)
    return found


def carriers(short: dict[str, int], words: dict[str, list[str]], chance: random.Random) -> list[str]:
    """Sentences that say each token as many times more as it is short of, in words that hold it."""
    needed = [chance.choice(words[token]) for token, times in short.items() if token in words for _ in range(times)]
    chance.shuffle(needed)
    inner = [word for word in needed if word.startswith(" ")]
    made = [chance.choice(OPENINGS).format(word) for word in needed if word[0].isalpha()]
    inner += inner[: -len(inner) % 3]
    for start in range(0, len(inner) - 2, 3):
        made.append(chance.choice(LISTS).format(*inner[start : start + 3]))
    return made


def word_pieces(texts: Iterable[str]) -> list[str]:
    """The different words of texts, each with the space before it, as they are cut before bytes are merged."""
    cut = bpe.tokenizer([]).pre_tokenizer
    pieces = {piece.replace("Ġ", " ") for text in texts for piece, _ in cut.pre_tokenize_str(text)}
    return sorted(piece for piece in pieces if piece.strip().isalpha() and piece.isascii())


def unused(merges: list[Merge], spoken: Counter[str], least: int) -> set[str]:
    """Kept tokens that are spoken less than `least` times and of which no other kept token is made."""
    parts = {part for merge in merges for part in merge}
    return {a + b for a, b in merges if spoken[a + b] < least and a + b not in parts and a + b != bpe.ROLE}


def choose(texts: list[str], merges: list[Merge], size: int, least: int, chance: random.Random) -> list[str]:
    """`size` of the texts: first those that say rare tokens, up to `least` times each, then any."""
    encoded = [each.tokens for each in bpe.tokenizer(merges).encode_batch(texts)]
    first = cover(encoded, least)[:size]
    rest = sorted(set(range(len(texts))) - set(first))
    return [texts[number] for number in first + chance.sample(rest, min(len(rest), size - len(first)))]


def missing(chosen: list[str], words: list[str], merges: list[Merge], least: int, chance: random.Random) -> list[str]:
    """Sentences for the tokens that the chosen ones say less than `least` times."""
    spoken = bpe.count(merges, chosen)
    kept = {a + b for a, b in merges} | {chr(code) for code in range(33, 127)}
    short = {token: least - spoken[token] for token in sorted(kept) if spoken[token] < least}
    made = map(sentences.clean, carriers(short, homes(words, merges, set(short)), chance))
    taken = {sentences.key(text) for text in chosen}
    return [text for text in made if sentences.key(text) not in taken and sentences.SPOKEN.fullmatch(text)]


def first_embeddings(merges: list[Merge], llm: SourceLLM) -> np.ndarray:
    """float32 (tokens, width): the LLM's embedding of each token, the mean of its parts' where it has none."""
    known = {token: llm.embeddings[number] for token, number in llm.tokens.items() if number < len(llm.embeddings)}
    middle = llm.embeddings.mean(0)
    for first, second in merges:
        known.setdefault(first + second, (known.get(first, middle) + known.get(second, middle)) / 2)
    vocabulary = sorted(bpe.tokenizer(merges).get_vocab().items(), key=lambda item: item[1])
    return np.stack([known.get(token, middle) for token in [*(token for token, _ in vocabulary), *bpe.SPECIAL]])


def agreement(merges: list[Merge], llm: SourceLLM, texts: list[str]) -> str:
    """How much of the texts is cut as the LLM's full merges cut it, by the same pattern."""
    ours, theirs = (bpe.tokenizer(each).encode_batch(texts) for each in (merges, llm.merges))
    same = sum(a.tokens == b.tokens for a, b in zip(ours, theirs, strict=True)) / len(texts)
    words = sum(len(text.split()) for text in texts)
    spans = [({*a.offsets}, {*b.offsets}) for a, b in zip(ours, theirs, strict=True)]
    shared = sum(len(a & b) for a, b in spans) / sum(len(b) for _, b in spans)
    per_word = [sum(len(each.ids) for each in side) / words for side in (ours, theirs)]
    return (
        f"{same:.1%} of the sentences and {shared:.1%} of the tokens as the LLM cuts them; "
        f"{per_word[0]:.2f} tokens a word, the LLM {per_word[1]:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="file of sentences, a line each")
    parser.add_argument("work", type=Path)
    parser.add_argument("--llm", type=Path, required=True, help="GGUF file or transformers folder of the LLM")
    parser.add_argument("--without", type=Path, nargs="*", default=[], help="files of sentences that must not be used")
    parser.add_argument("--sentences", type=int, default=60_000, help="so many of the text")
    parser.add_argument("--kinds", type=int, default=8_000, help="and so many of rare kinds")
    parser.add_argument("--used", type=int, default=10, help="times that the text must use a token for it to be kept")
    parser.add_argument("--spoken", type=int, default=20, help="times that each kept token is spoken")
    parser.add_argument("--longest", type=int, default=220, help="characters of a sentence; longer ones are cut")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    texts = sentences.sentences(arguments.text, arguments.longest, arguments.without, arguments.seed)
    taken = sentences.held_out_keys(arguments.without)
    kinds = [text for text in spoken_kinds.sentences(arguments.kinds) if sentences.key(text) not in taken]
    print(f"{len(texts)} usable sentences", flush=True)
    llm = source_llm.load(arguments.llm)
    merges = bpe.with_role(bpe.prune(llm.merges, texts + kinds, arguments.used))
    words = word_pieces(texts)
    while True:
        chance = random.Random(arguments.seed)
        chosen = choose(texts, merges, arguments.sentences, arguments.spoken, chance) + kinds
        chosen += missing(chosen, words, merges, arguments.spoken, chance)
        chance.shuffle(chosen)
        spoken = bpe.count(merges, chosen)
        gone = unused(merges, spoken, arguments.spoken)
        print(f"{len(merges)} merges, {len(chosen)} sentences, {len(gone)} merges too rare", flush=True)
        if not gone:
            break
        merges = [merge for merge in merges if merge[0] + merge[1] not in gone]
    bpe.save(merges, arguments.work / "tts")
    save_file({"source": first_embeddings(merges, llm)}, arguments.work / "text_table.safetensors")
    report = {
        "tokens": len(bpe.tokenizer(merges).get_vocab()),
        "merges": len(merges),
        "merges_spoken_often": sum(spoken[a + b] >= arguments.spoken for a, b in merges),
        "sentences": len(chosen),
        "agreement": agreement(merges, llm, texts),
    }
    (arguments.work / "text_table.json").write_text(json.dumps(report, indent=1) + "\n")
    part = arguments.work / "sentences.part"
    part.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    os.replace(part, arguments.work / "sentences.txt")
    print(" | ".join(f"{name} {value}" for name, value in report.items()))


if __name__ == "__main__":
    main()
