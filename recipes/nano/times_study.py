"""When the teacher's phones sound, beside what its durations say: a map from spectra to phones at several shifts.

    python recipes/nano/times_study.py work/speech

Prints the share of log-mel columns whose phone the map names, on utterances that it was not fitted on, with the times
of the corpus moved by -50 to 50 ms.  The best is near 0 where `teacher.LEAD` is right.
"""

import argparse
from pathlib import Path

import torch
from codebooks import HOP, MELS, mel_patches, sounding
from corpus import read_audio
from safetensors.torch import load_file
from teacher import PHONES, SAMPLE_RATE
from torch import Tensor

AROUND = 3
"""Columns on each side of one that the map sees too."""
UTTERANCES = 150


def columns(samples: Tensor) -> Tensor:
    """float32 samples -> (columns, 7 * MELS): each log-mel column with those around it."""
    mels = mel_patches(samples).view(-1, MELS)
    return torch.nn.functional.pad(mels, (0, 0, AROUND, AROUND)).unfold(0, 2 * AROUND + 1, 1).flatten(1)


def named(seen: Tensor, phones: Tensor) -> float:
    """Share of the last fifth of the columns whose phone a ridge regression on the others names."""
    split = len(seen) * 4 // 5
    x = torch.cat((seen - seen[:split].mean(0), torch.ones(len(seen), 1)), 1)
    wanted = torch.nn.functional.one_hot(phones, len(PHONES)).float()
    weights = torch.linalg.solve(x[:split].T @ x[:split] + 100 * torch.eye(x.shape[1]), x[:split].T @ wanted[:split])
    return float(((x[split:] @ weights).argmax(1) == phones[split:]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("speech", type=Path)
    folder = parser.parse_args().speech
    times = load_file(folder / "phones-0000.safetensors")
    limits = times["offsets"].tolist()
    seen = [columns(torch.from_numpy(samples.copy()).float() / 32_768) for samples in read_audio(folder, 0)][
        :UTTERANCES
    ]
    for shift in range(-50, 51, 10):
        phones = []
        for number, part in enumerate(seen):
            span = slice(limits[number], limits[number + 1])
            middles = (torch.arange(len(part)) + 0.5) * HOP + shift * SAMPLE_RATE / 1_000
            phones.append(times["phones"][span].long()[sounding(times["ends"][span], middles.clamp_min(0))])
        print(f"{shift:4} ms: {named(torch.cat(seen), torch.cat(phones)):.1%}", flush=True)


if __name__ == "__main__":
    main()
