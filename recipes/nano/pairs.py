"""Stage 8: pairs of text and the teacher's codes, for training projectors.

    python recipes/nano/pairs.py work/ pairs/ --shards 2

Some of the talker's own training data as a folder that `data.source=pairs data.path=pairs` reads.
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file

from audio_projection.data.pairs import Pair, PairFolder

VOICE = "rms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=2)
    arguments = parser.parse_args()
    folder = PairFolder(arguments.folder, {"voice": VOICE, "shards": arguments.shards})
    for number in range(arguments.shards):
        shard = load_file(arguments.work / f"codes-{number:04d}.safetensors")
        codes = shard["codes"].long().split(shard["offsets"].diff().tolist())
        texts = json.loads((arguments.work / f"speech-{number:04d}.json").read_text())
        pairs = [Pair(f"{number}-{i}", text, codes[i], VOICE, VOICE) for i, text in enumerate(texts)]
        folder.add(pairs, number)
    print(f"{arguments.folder}: {len(folder.read())} pairs")


if __name__ == "__main__":
    main()
