"""Stage: sentences spoken by the teacher, in shards, with the times of their phones and words.

    python recipes/nano/corpus.py work/sentences.txt work/speech --audio-shards 60
    python recipes/nano/corpus.py work/sentences.txt work/speech --books work/codebooks.safetensors

The first call speaks the first shards and keeps their sound, for the codec; the second speaks the rest, encodes it at
once and keeps the codes alone.  A shard is four files with one number:

    text-0000.json           the texts; written last, so that a shard that has it is complete
    phones-0000.safetensors  `phones` (index into teacher.PHONES), `ends` (samples), `spans` (characters of the phone's
                             word), `offsets` of utterances
    audio-0000.safetensors   `audio` int16 at 24 kHz, `offsets` of utterances; of the first shards only
    codes-0000.safetensors   `codes` int16 (frames, 16), `offsets` of utterances

Shards that exist are kept, so each call resumes.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from codebooks import encode
from safetensors.numpy import load_file, save_file
from teacher import SAMPLE_RATE, Spoken, teacher

SHARD = 250
"""Sentences of a shard."""


def bounds(parts: Sequence[Sequence[object] | np.ndarray]) -> np.ndarray:
    """Where each part begins when all stand one after another, and where the last one ends."""
    return np.cumsum([0, *map(len, parts)])


def replace(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a file whole or not at all."""
    part = path.with_suffix(".part")
    save_file(tensors, part)
    os.replace(part, path)


def speak(texts: Sequence[str]) -> tuple[list[str], list[Spoken]]:
    """The texts that the teacher reads word for word, and their speech."""
    found = [(text, spoken) for text in texts if (spoken := teacher().speak(text)) is not None]
    return [text for text, _ in found], [spoken for _, spoken in found]


def write_shard(folder: Path, number: int, texts: Sequence[str], books: Path | None) -> None:
    """Speak one shard; without codebooks its sound is kept, with them its codes."""
    kept, spoken = speak(texts)
    times = {
        "phones": np.concatenate([np.array(each.phones, np.uint8) for each in spoken]),
        "ends": np.concatenate([np.array(each.ends, np.int32) for each in spoken]),
        "spans": np.concatenate([np.array(each.spans, np.int16) for each in spoken]),
        "offsets": bounds([each.phones for each in spoken]),
    }
    replace(folder / f"phones-{number:04d}.safetensors", times)
    audio = [each.audio for each in spoken]
    if books is None:
        sound = {"audio": np.concatenate(audio), "offsets": bounds(audio)}
        replace(folder / f"audio-{number:04d}.safetensors", sound)
    else:
        encode(audio, books, folder / f"codes-{number:04d}.safetensors")
    part = folder / f"text-{number:04d}.part"
    part.write_text(json.dumps(kept), encoding="utf-8")
    os.replace(part, part.with_suffix(".json"))


def shard_numbers(folder: Path) -> list[int]:
    """Numbers of the complete shards."""
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob("text-*.json"))


def audio_numbers(folder: Path) -> list[int]:
    """Numbers of the complete shards whose sound was kept."""
    return [number for number in shard_numbers(folder) if (folder / f"audio-{number:04d}.safetensors").exists()]


def read_texts(folder: Path, number: int) -> list[str]:
    texts: list[str] = json.loads((folder / f"text-{number:04d}.json").read_text(encoding="utf-8"))
    return texts


def read_audio(folder: Path, number: int) -> Iterator[np.ndarray]:
    """The utterances of one shard, int16."""
    shard = load_file(folder / f"audio-{number:04d}.safetensors")
    for start, end in zip(shard["offsets"], shard["offsets"][1:], strict=False):
        yield shard["audio"][start:end]


def hours(folder: Path) -> float:
    """How long the speech of all complete shards is."""
    samples = 0
    for number in shard_numbers(folder):
        shard = load_file(folder / f"phones-{number:04d}.safetensors")
        samples += int(shard["ends"][shard["offsets"][1:] - 1].sum())
    return samples / SAMPLE_RATE / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sentences", type=Path, help="file of chosen sentences, a line each, in their order")
    parser.add_argument("folder", type=Path)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--audio-shards", type=int, help="speak so many shards and keep their sound")
    group.add_argument("--books", type=Path, help="speak the others too and keep their codes by these codebooks")
    parser.add_argument("--shard", type=int, default=SHARD, help="sentences of a shard")
    parser.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1), help="1.3 GB of memory each")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    lines = arguments.sentences.read_text(encoding="utf-8").splitlines()
    shards = [lines[start : start + arguments.shard] for start in range(0, len(lines), arguments.shard)]
    present = set(shard_numbers(arguments.folder))
    wanted = list(enumerate(shards))[: arguments.audio_shards]
    new = [(number, texts) for number, texts in wanted if number not in present]
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        spoken_shards = {
            pool.submit(write_shard, arguments.folder, number, texts, arguments.books): number for number, texts in new
        }
        for done in as_completed(spoken_shards):
            done.result()
            print(f"shard {spoken_shards[done]} of {len(wanted)} spoken", flush=True)
    spoken = sum(len(read_texts(arguments.folder, number)) for number in shard_numbers(arguments.folder))
    print(f"{spoken} sentences, {hours(arguments.folder):.2f} hours of speech in {arguments.folder}")


if __name__ == "__main__":
    main()
