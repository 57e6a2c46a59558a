"""Stage: pairs of text and the teacher's codes, for training projectors.

    python recipes/nano/pairs.py work --shards 64

Some of the talker's own training data as a folder, `work/pairs`, that `data.source=pairs data.path=work/pairs` reads.
"""

import argparse
from pathlib import Path

from corpus import read_texts, shard_numbers
from folder import VOICE
from safetensors.torch import load_file

from audio_projection.data.pairs import Pair, PairFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--shards", type=int, default=64)
    arguments = parser.parse_args()
    speech = arguments.work / "speech"
    folder = PairFolder(arguments.work / "pairs", {"voice": VOICE, "shards": arguments.shards})
    for number in shard_numbers(speech)[: arguments.shards]:
        shard = load_file(speech / f"codes-{number:04d}.safetensors")
        codes = shard["codes"].long().split(shard["offsets"].diff().tolist())
        texts = read_texts(speech, number)
        pairs = [Pair(f"{number}-{i}", text, codes[i], VOICE, VOICE) for i, text in enumerate(texts)]
        folder.add(pairs, number)
    print(f"{arguments.work / 'pairs'}: {len(folder.read())} pairs")


if __name__ == "__main__":
    main()
