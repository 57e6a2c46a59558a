"""Stage: fits the codec's codebooks, and codes the speech whose sound was kept.

    python recipes/nano/fit_codebooks.py work

Writes `work/codebooks.safetensors`, then `codes-0000.safetensors` beside each shard with sound; what exists is kept.
"""

import argparse
import os
from pathlib import Path

import torch
from codebooks import encode, fit, mel_patches, read_phones, usage
from corpus import audio_numbers, read_audio
from safetensors.torch import save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--fit-shards", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    folder, path = arguments.work / "speech", arguments.work / "codebooks.safetensors"
    numbers = audio_numbers(folder)
    if not path.exists():
        chosen = numbers[: arguments.fit_shards]
        patches = [mel_patches(torch.from_numpy(a).float() / 32_768) for n in chosen for a in read_audio(folder, n)]
        phones = [each for n in chosen for each in read_phones(folder, n)]
        save_file(fit(torch.cat(patches), torch.cat(phones)), path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)
    for number in numbers:
        codes = folder / f"codes-{number:04d}.safetensors"
        if not codes.exists():
            encode(list(read_audio(folder, number)), path, codes)
            print(f"shard {number} encoded", flush=True)
    print(usage(folder))


if __name__ == "__main__":
    main()
