"""The codec's target latents, its codebooks and its codes (`fit_codebooks.py` makes them).

A frame is 80 ms: eight log-mel columns, reduced by PCA to a latent.  Codebook 0 is k-means on the directions of the
latent that tell phones apart (canonical correlation analysis, Hotelling, 1936): what is being said.  The other
codebooks are residual k-means of the whole latent: how it sounds.  So each of the two quantisers of the official codec
can be computed from the latent alone, as its encoder does.
"""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import librosa
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from teacher import PHONES, SAMPLE_RATE
from torch import Tensor

FRAME = 1_920
HOP = 240
FFT = 1_024
MELS = 100
FLOOR = 2e-3
LATENT = 96
LEADING = 16
"""Components whose mean variance is made 1."""
PHONETIC = 64
ENTRIES = 512
GROUPS = 16
QUARTERS = 4


def frames_of(samples: int) -> int:
    """Frames that cover the samples, the last one padded."""
    return -(-samples // FRAME)


@cache
def mel_filters() -> Tensor:
    return torch.tensor(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FFT, n_mels=MELS))


def mel_patches(audio: Tensor) -> Tensor:
    """float32 samples (S,) or (B, S) -> log-mel patches (frames, 800) or (B, frames, 800), centred on the frames."""
    *batch, samples = audio.shape
    frames = frames_of(samples)
    margin = (FFT - HOP) // 2
    padded = torch.nn.functional.pad(audio, (margin, frames * FRAME - samples + margin))
    window = torch.hann_window(FFT, device=audio.device)
    spectrum = torch.stft(padded, FFT, HOP, window=window, center=False, return_complex=True).abs()
    return torch.log(mel_filters().to(audio.device) @ spectrum + FLOOR).mT.reshape(*batch, frames, -1)


def quarters(ends: Tensor, frames: int) -> Tensor:
    """Which phone of an utterance, int64 (frames, 4), sounds in the middle of each quarter of a frame.

    Phones are given by their `ends` (P,) in samples; the last one goes on for ever.
    """
    middles = (torch.arange(frames * QUARTERS) + 0.5) * FRAME / QUARTERS
    return sounding(ends, middles).view(frames, QUARTERS)


def sounding(ends: Tensor, places: Tensor) -> Tensor:
    """Which phone, by the `ends` (P,) of all, sounds at each of some places, both in samples."""
    return torch.searchsorted(ends, places, right=True).clamp_max(len(ends) - 1)


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Index of each point's nearest centre."""
    sizes = centres.square().sum(1)
    return torch.cat([(sizes - 2 * part @ centres.T).argmin(1) for part in points.split(20_000)])


def kmeans(points: Tensor, rounds: int = 15) -> Tensor:
    """(n, d) -> (ENTRIES, d) centres by Lloyd's algorithm; an empty centre moves to a random point."""
    centres = points[torch.randperm(len(points))[:ENTRIES]].clone()
    for _ in range(rounds):
        labels = nearest(points, centres)
        counts = torch.bincount(labels, minlength=ENTRIES)
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        lost = points[torch.randint(len(points), (ENTRIES,))]
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], lost)
    return centres


def inverse_root(covariance: Tensor, floor: float) -> Tensor:
    """Symmetric C^-1/2; `floor` is added to the eigenvalues."""
    values, vectors = torch.linalg.eigh(covariance.double())
    return (vectors * (values.clamp_min(0) + floor).rsqrt() @ vectors.T).float()


def phonetic_directions(latents: Tensor, phones: Tensor) -> Tensor:
    """(LATENT, PHONETIC): canonical directions of latents (n, LATENT) with phones (n, 4), as long as they correlate."""
    named = torch.nn.functional.one_hot(phones, len(PHONES)).float().flatten(1)
    named = named - named.mean(0)
    centred = latents - latents.mean(0)
    white = inverse_root(centred.T @ centred / len(latents), 1e-6)
    cross = white @ (centred.T @ named / len(latents)) @ inverse_root(named.T @ named / len(latents), 1e-3)
    directions, correlations, _ = torch.linalg.svd(cross, full_matrices=False)
    return white @ directions[:, :PHONETIC] * correlations[:PHONETIC]


def fit(patches: Tensor, phones: Tensor) -> dict[str, Tensor]:
    """PCA and codebooks from log-mel patches (n, 800) and their phones (n, 4)."""
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    basis = vectors.flip(1)[:, :LATENT]
    print(f"variance kept by {LATENT} components: {values[-LATENT:].sum() / values.sum():.4f}", flush=True)
    scale = values[-LEADING:].mean().sqrt()
    latents = (patches - mean) @ basis / scale
    phonetic = phonetic_directions(latents, phones)
    first = kmeans(latents @ phonetic)
    print(f"codebook 0: {known(nearest(latents @ phonetic, first), phones):.1%} of the phones known", flush=True)
    rest, residual = [], latents
    for group in range(1, GROUPS):
        rest.append(kmeans(residual))
        residual = residual - rest[-1][nearest(residual, rest[-1])]
        left = residual.square().mean() / latents.square().mean()
        print(f"codebook {group}: {left:.4f} of the variance left", flush=True)
    basis = (basis / scale).contiguous()
    return {"mean": mean, "basis": basis, "phonetic": phonetic, "first": first, "rest": torch.stack(rest)}


def known(codes: Tensor, phones: Tensor) -> float:
    """Share of the phones (n, 4) that are the most frequent one of their code (n,) in their quarter."""
    counts = torch.zeros(ENTRIES, QUARTERS, len(PHONES))
    for quarter in range(QUARTERS):
        counts[:, quarter].index_put_((codes, phones[:, quarter]), torch.ones(()), accumulate=True)
    return counts.amax(-1).sum().item() / phones.numel()


def latents_of(patches: Tensor, books: dict[str, Tensor]) -> Tensor:
    """Log-mel patches (n, 800) -> latents (n, LATENT)."""
    return (patches - books["mean"]) @ books["basis"]


def quantise(latents: Tensor, books: dict[str, Tensor]) -> Tensor:
    """Latents (n, LATENT) -> codes (n, 16)."""
    codes = [nearest(latents @ books["phonetic"], books["first"])]
    residual = latents
    for book in books["rest"]:
        codes.append(nearest(residual, book))
        residual = residual - book[codes[-1]]
    return torch.stack(codes, 1)


def encode(audio: Sequence[np.ndarray], books: Path, path: Path) -> None:
    """Write the codes of utterances (int16 samples) as one shard."""
    tables = load_file(books)
    patches = [mel_patches(torch.from_numpy(samples).float() / 32_768) for samples in audio]
    codes = quantise(latents_of(torch.cat(patches), tables), tables)
    offsets = torch.tensor([0, *map(len, patches)]).cumsum(0)
    part = path.with_suffix(".part")
    save_file({"codes": codes.short(), "offsets": offsets}, part)
    os.replace(part, path)


def read_phones(folder: Path, number: int) -> list[Tensor]:
    """The phone in each quarter of each frame of the utterances of one shard, int64 (frames, 4)."""
    shard = load_file(folder / f"phones-{number:04d}.safetensors")
    limits = shard["offsets"].tolist()
    found = []
    for first, last in zip(limits, limits[1:], strict=False):
        ends = shard["ends"][first:last]
        found.append(shard["phones"][first:last].long()[quarters(ends, frames_of(int(ends[-1])))])
    return found


def usage(folder: Path) -> str:
    """How many frames were coded, and how evenly codebook 0 is used."""
    codes = torch.cat([load_file(path)["codes"][:, 0] for path in sorted(folder.glob("codes-*.safetensors"))])
    shares = torch.bincount(codes.long(), minlength=ENTRIES) / len(codes)
    entropy = -(shares * shares.clamp_min(1e-9).log2()).sum()
    return f"{len(codes)} frames in {folder}, {entropy:.2f} of {np.log2(ENTRIES):.0f} bits a frame in codebook 0"
