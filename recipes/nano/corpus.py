"""Stage 1: sentences from a text file, spoken by flite's `rms` voice, in shards.

    python recipes/nano/corpus.py prompts.txt work/ --sentences 100000

The text file holds a sentence a line (of a TSV, the last column).  Sentences are cleaned to plain
English letters and stops, long ones cut at their clauses, shuffled by the seed, and spoken.  A shard
is `speech-0000.safetensors` (`audio` int16 at 16 kHz, `offsets` int64) beside `speech-0000.json` (the
texts).  Shards that exist are kept, so the command resumes.
"""

import argparse
import ctypes
import json
import os
import random
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SAMPLE_RATE = 16_000
SHARD = 1_000
SPOKEN = re.compile(r"[A-Za-z ,.'?!]+")
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


class Flite:
    """flite's `rms` voice, in process (Debian: libflite1)."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libflite.so.1")
        self.library.flite_init()
        self.library.flite_text_to_wave.restype = ctypes.POINTER(Wave)
        self.library.flite_text_to_wave.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
        self.library.delete_wave.argtypes = [ctypes.POINTER(Wave)]
        register = ctypes.CDLL("libflite_cmu_us_rms.so.1").register_cmu_us_rms
        register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
        self.voice = register(None)

    def speak(self, text: str) -> np.ndarray:
        """int16 samples, silence at the end cut to 120 ms."""
        wave = self.library.flite_text_to_wave(text.encode(), self.voice)
        audio = np.ctypeslib.as_array(wave.contents.samples, (wave.contents.num_samples,)).copy()
        assert wave.contents.sample_rate == SAMPLE_RATE
        self.library.delete_wave(wave)
        loud = np.flatnonzero(np.abs(audio) > 200)
        return audio[: loud[-1] + SAMPLE_RATE * 12 // 100] if len(loud) else audio


def write_shard(folder: Path, number: int, texts: list[str], flite: Flite) -> None:
    """Speak one shard; the JSON is written last and marks it complete."""
    stem = folder / f"speech-{number:04d}"
    spoken = [flite.speak(text) for text in texts]
    offsets = np.cumsum([0] + [len(audio) for audio in spoken])
    save_file({"audio": np.concatenate(spoken), "offsets": offsets}, str(stem) + ".part")
    os.replace(str(stem) + ".part", str(stem) + ".safetensors")
    (folder / "part.json").write_text(json.dumps(texts))
    os.replace(folder / "part.json", stem.with_suffix(".json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--without", type=Path, help="file of sentences that must not be used")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    chosen = sentences(arguments.text)
    if arguments.without:
        held_out = {clean(line).lower() for line in arguments.without.read_text().splitlines()}
        chosen = [text for text in chosen if text.lower() not in held_out]
    print(f"{len(chosen)} usable sentences", flush=True)
    flite = Flite()
    for start in range(0, min(arguments.sentences, len(chosen)) - SHARD + 1, SHARD):
        if not (arguments.work / f"speech-{start // SHARD:04d}.json").exists():
            write_shard(arguments.work, start // SHARD, chosen[start : start + SHARD], flite)
            print(f"{start + SHARD} sentences spoken", flush=True)


if __name__ == "__main__":
    main()
