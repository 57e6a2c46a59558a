"""Stage 1: sentences from a text file, spoken by flite's `rms` voice, in shards.

    python recipes/nano/corpus.py prompts.txt work/ --sentences 50000 --processes 2

The text file holds a sentence a line (of a TSV, the last column).  Sentences are cleaned to plain
English letters and stops, long ones cut at their clauses, shuffled by the seed, and spoken.  A shard
is `speech-0000.safetensors` beside `speech-0000.json` (the texts): `audio` int16 at 16 kHz with
`offsets` int64, and when flite said which phone: `phones` (index into PHONES), `ends` (samples), `spans`
(the characters of the word it belongs to, empty for a pause) with `phone_offsets`.  Shards that exist
are kept, so the command resumes.
"""

import argparse
import ctypes
import json
import os
import random
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

SAMPLE_RATE = 16_000
SPOKEN = re.compile(r"[A-Za-z ,.'?!]+")
PHONES = (
    "pau", "aa", "ae", "ah", "ao", "aw", "ax", "ay", "b", "ch", "d", "dh", "eh", "er", "ey", "f", "g", "hh", "ih",
    "iy", "jh", "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t", "th", "uh", "uw", "v", "w", "y", "z",
    "zh",
)  # fmt: skip
QUOTES = str.maketrans({"’": "'", "‘": "", "“": "", "”": "", '"': "", "(": "", ")": "", ";": ",", ":": ",", "-": " "})


def clean(line: str) -> str:
    """One line of text in letters, apostrophes and stops, single-spaced."""
    text = re.sub(r"\s+", " ", line.translate(QUOTES)).strip(" ,.'")
    text = re.sub(r" ([,.?!])", r"\1", text)
    return text if text.endswith(("?", "!")) or not text else text + "."


def clauses(text: str, longest: int) -> list[str]:
    """The text itself when short enough, else its clauses."""
    if len(text) <= longest:
        return [text]
    return [clean(part) for part in re.split(r"(?<=[,.?!])\s", text)]


def sentences(path: Path, shortest: int = 10, longest: int = 75, seed: int = 0) -> list[str]:
    """All usable sentences of a file, each once, in seeded random order."""
    found = set()
    for line in path.read_text(encoding="utf-8", errors="ignore").splitlines():
        for text in clauses(clean(line.split("\t")[-1]), longest):
            if shortest <= len(text) <= longest and SPOKEN.fullmatch(text):
                found.add(text[0].upper() + text[1:])
    chosen = sorted(found)
    random.Random(seed).shuffle(chosen)
    return chosen


class Wave(ctypes.Structure):
    """flite's `cst_wave`."""

    _fields_ = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


@dataclass(frozen=True)
class Spoken:
    """An utterance: int16 samples and, for each phone, its index, its end in samples and its word's characters."""

    audio: np.ndarray
    phones: list[int]
    ends: list[int]
    spans: list[tuple[int, int]]


class Flite:
    """flite's `rms` voice, in process (Debian: libflite1)."""

    WORD = b"R:SylStructure.parent.parent.R:Token.parent.name"

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libflite.so.1")
        self.library.flite_init()
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        self.declare("flite_synth_text", pointer, [text, pointer])
        self.declare("utt_wave", ctypes.POINTER(Wave), [pointer])
        self.declare("utt_relation", pointer, [pointer, text])
        self.declare("relation_head", pointer, [pointer])
        self.declare("item_next", pointer, [pointer])
        self.declare("item_feat_string", text, [pointer, text])
        self.declare("item_feat_float", ctypes.c_float, [pointer, text])
        self.declare("ffeature_string", text, [pointer, text])
        self.declare("delete_utterance", None, [pointer])
        register = ctypes.CDLL("libflite_cmu_us_rms.so.1").register_cmu_us_rms
        register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
        self.voice = register(None)

    def declare(self, name: str, result: object, arguments: list[object]) -> None:
        function = getattr(self.library, name)
        function.restype, function.argtypes = result, arguments

    def speak(self, text: str) -> Spoken:
        """Speak a text; silence at the end is cut to 120 ms."""
        utterance = self.library.flite_synth_text(text.encode(), self.voice)
        wave = self.library.utt_wave(utterance).contents
        assert wave.sample_rate == SAMPLE_RATE
        audio = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).copy()
        segments = list(self.segments(utterance))
        self.library.delete_utterance(utterance)
        loud = np.flatnonzero(np.abs(audio) > 200)
        if len(loud):
            audio = audio[: loud[-1] + SAMPLE_RATE * 12 // 100]
        spans, place = [], 0
        for previous, (_, _, word) in zip([None, *segments], segments, strict=False):
            if word is not None and (previous is None or previous[2] != word):
                found = text.find(word, place)
                if found >= 0:
                    start, place = found, found + len(word)
            spans.append((start, place) if word is not None and place else (place, place))
        return Spoken(audio, [PHONES.index(name) for name, _, _ in segments], [end for _, end, _ in segments], spans)

    def segments(self, utterance: int) -> Iterator[tuple[str, int, str | None]]:
        """(phone, end in samples, word) in order; a pause has no word."""
        item = self.library.relation_head(self.library.utt_relation(utterance, b"Segment"))
        while item:
            word = self.library.ffeature_string(item, self.WORD).decode()
            end = round(self.library.item_feat_float(item, b"end") * SAMPLE_RATE)
            yield self.library.item_feat_string(item, b"name").decode(), end, None if word == "0" else word
            item = self.library.item_next(item)


def bounds(parts: list) -> np.ndarray:
    return np.cumsum([0] + [len(part) for part in parts])


def write_shard(folder: Path, number: int, texts: list[str]) -> int:
    """Speak one shard; the JSON is written last and marks it complete."""
    flite = Flite()
    stem = folder / f"speech-{number:04d}"
    spoken = [flite.speak(text) for text in texts]
    tensors = {
        "audio": np.concatenate([each.audio for each in spoken]),
        "offsets": bounds([each.audio for each in spoken]),
        "phones": np.concatenate([np.array(each.phones, np.uint8) for each in spoken]),
        "ends": np.concatenate([np.array(each.ends, np.int32) for each in spoken]),
        "spans": np.concatenate([np.array(each.spans, np.int16) for each in spoken]),
        "phone_offsets": bounds([each.phones for each in spoken]),
    }
    save_file(tensors, str(stem) + ".part")
    os.replace(str(stem) + ".part", str(stem) + ".safetensors")
    part = folder / f"part-{number:04d}.json"
    part.write_text(json.dumps(texts))
    os.replace(part, stem.with_suffix(".json"))
    return number


def hours(folder: Path, shards: int) -> float:
    """How long the speech of the first shards is."""
    samples = 0
    for number in range(shards):
        with safe_open(folder / f"speech-{number:04d}.safetensors", "numpy") as file:
            samples += int(file.get_tensor("offsets")[-1])
    return samples / SAMPLE_RATE / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sentences", type=int, default=50_000)
    parser.add_argument("--longest", type=int, default=125, help="characters of a sentence; longer ones are cut")
    parser.add_argument("--without", type=Path, help="file of sentences that must not be used")
    parser.add_argument("--shard", type=int, default=1_000, help="sentences of a shard")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    chosen = sentences(arguments.text, longest=arguments.longest)
    if arguments.without:
        held_out = {clean(line).lower() for line in arguments.without.read_text().splitlines()}
        chosen = [text for text in chosen if text.lower() not in held_out]
    print(f"{len(chosen)} usable sentences", flush=True)
    chosen, size = chosen[: arguments.sentences], arguments.shard
    shards = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    new = [n for n in range(len(shards)) if not (arguments.work / f"speech-{n:04d}.json").exists()]
    with ProcessPoolExecutor(arguments.processes) as pool:
        folders = [arguments.work] * len(new)
        for number in pool.map(write_shard, folders, new, [shards[n] for n in new]):
            print(f"shard {number} of {len(shards)} spoken", flush=True)
    print(f"{len(chosen)} sentences, {hours(arguments.work, len(shards)):.2f} hours of speech in {arguments.work}")


if __name__ == "__main__":
    main()
