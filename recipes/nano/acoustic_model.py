"""Stage: a small acoustic model, which phone sounds in each 10 ms of speech.

    python recipes/nano/acoustic_model.py work --steps 1500

The decoder is judged by what its layers make of the sound (`decoder.py`): spectra that are equally far from the true
ones are not equally easy to understand.  Trained on the teacher's speech and its own timing, with noise and at any
loudness.  Resumes from its checkpoint when repeated, and prints the share of phones that it knows on a shard that it
was not trained on.
"""

import argparse
import time
from pathlib import Path

import librosa
import torch
import torch.nn.functional as F
from checkpoint import Due, load, rate_at, save
from codebooks import sounding
from corpus import audio_numbers, read_audio
from safetensors.torch import load_file
from teacher import PHONES, SAMPLE_RATE
from torch import Tensor, nn

WINDOW, HOP, FFT, MELS = 600, 240, 1024, 64
CHANNELS = 192
DILATIONS = (1, 1, 2, 4)
SEGMENT = 36_000
"""Samples that it is trained on at a time."""


class AcousticModel(nn.Module):
    """Log-mel columns of 25 ms every 10 ms, four convolutions over them, phones."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", torch.tensor(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FFT, n_mels=MELS)))
        self.register_buffer("window", F.pad(torch.hann_window(WINDOW), ((FFT - WINDOW) // 2,) * 2))
        sizes = [MELS, *[CHANNELS] * len(DILATIONS)]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv1d(before, after, 5, dilation=dilation), nn.GELU(), nn.GroupNorm(1, after))
            for before, after, dilation in zip(sizes[:-1], sizes[1:], DILATIONS, strict=True)
        )
        self.head = nn.Conv1d(CHANNELS, len(PHONES), 1)

    def features(self, samples: Tensor) -> list[Tensor]:
        """Samples (B, S) -> the layers' outputs, each (B, CHANNELS, columns); edges without context are left out."""
        spectrum = torch.stft(samples, FFT, HOP, window=self.window, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        x = torch.log(self.filters @ (power + 1e-12).sqrt() + 1e-4)
        x = x - x.mean((1, 2), keepdim=True)
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found

    def middles(self, columns: int) -> Tensor:
        """Where the columns of the last layer lie, in samples."""
        return (torch.arange(columns) + 2 * sum(DILATIONS)) * HOP + FFT // 2


class Utterances:
    """Random segments of speech and the phones that the teacher says sound in them."""

    def __init__(self, folder: Path, numbers: list[int]) -> None:
        self.spoken: list[tuple[Tensor, Tensor, Tensor]] = []
        for number in numbers:
            times = load_file(folder / f"phones-{number:04d}.safetensors")
            limits = times["offsets"].tolist()
            for samples, first, last in zip(read_audio(folder, number), limits[:-1], limits[1:], strict=True):
                if len(samples) > SEGMENT:
                    sound = torch.from_numpy(samples.copy())
                    self.spoken.append((sound, times["phones"][first:last].long(), times["ends"][first:last]))

    def batch(self, model: AcousticModel, size: int, step: int) -> tuple[Tensor, Tensor]:
        """Samples (B, SEGMENT) and phones (B, columns), drawn by the step number alone."""
        generator = torch.Generator().manual_seed(step)
        middles = model.middles((SEGMENT - FFT) // HOP + 1 - 4 * sum(DILATIONS))
        audio, phones = [], []
        for number in torch.randint(len(self.spoken), (size,), generator=generator).tolist():
            samples, named, ends = self.spoken[number]
            start = int(torch.randint(len(samples) - SEGMENT, (1,), generator=generator))
            audio.append(samples[start : start + SEGMENT].float() / 32_768)
            phones.append(named[sounding(ends, middles + start)])
        loudness = torch.exp(torch.randn(size, 1, generator=generator) * 0.7)
        quiet = 1.5 + 2.5 * torch.rand(size, 1, generator=generator)  # the noise's size, in powers of ten under 1
        noise = torch.randn(size, SEGMENT, generator=generator) * 10**-quiet
        return torch.stack(audio) * loudness + noise, torch.stack(phones)


@torch.no_grad()
def known(model: AcousticModel, utterances: Utterances) -> float:
    """Share of the columns of 64 segments whose phone is named."""
    audio, phones = utterances.batch(model, 64, 0)
    return float((model.head(model.features(audio)[-1]).argmax(1) == phones).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--shards", type=int, default=30)
    parser.add_argument("--rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = AcousticModel()
    optim = torch.optim.AdamW(model.parameters(), arguments.rate, weight_decay=0.01)
    path = arguments.work / "acoustic_model.safetensors"
    step = load(path, model, [optim])
    folder = arguments.work / "speech"
    *numbers, last = audio_numbers(folder)
    learned, new = Utterances(folder, numbers[: arguments.shards]), Utterances(folder, [last])
    due, began = Due(100, arguments.steps), time.time()
    while step < arguments.steps:
        optim.param_groups[0]["lr"] = arguments.rate * rate_at(step, arguments.steps)
        audio, phones = learned.batch(model, arguments.batch, step + 1)
        loss = F.cross_entropy(model.head(model.features(audio)[-1]), phones)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        optim.zero_grad()
        step += 1
        if due(step):
            save(path, model, [optim], step)
        if step % 100 == 0 or step == arguments.steps:
            shown = f"held out: {known(model, new):.1%} of the phones"
            print(f"{step} {time.time() - began:.0f}s loss {loss.item():.3f} | {shown}", flush=True)


if __name__ == "__main__":
    main()
