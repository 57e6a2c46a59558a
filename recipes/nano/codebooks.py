"""Stage 2: the codec's target latents, codebooks and the codes of all speech.

    python recipes/nano/codebooks.py work/codec
    python recipes/nano/codebooks.py work/talker --books work/codec/codebooks.safetensors

A frame is 80 ms: five log-mel columns, reduced by PCA to a 64-dimensional latent.  Codebook 0 is
k-means on the directions of the latent that tell flite's phones apart (canonical correlation analysis,
Hotelling, 1936): what is being said.  Codebooks 1-3 are residual k-means of the whole latent: how it
sounds.  So each of the two quantisers of the official codec can be computed from the latent alone, as
its encoder does.  Writes `codebooks.safetensors`, then `codes-0000.safetensors` for each speech shard
(`codes` int16 (frames, 4), `offsets` int64); codes that exist are kept.
"""

import argparse
import os
import shutil
from pathlib import Path

import librosa
import numpy as np
import torch
from corpus import PHONES
from safetensors.torch import load_file, save_file
from torch import Tensor

SAMPLE_RATE = 16_000
FRAME = 1_280
HOP = 256
FFT = 1_024
MELS = 80
LATENT = 64
LEADING = 16
"""Components whose mean variance is made 1."""
PHONETIC = 48
ENTRIES = 512
GROUPS = 4
QUARTERS = 4


def frames_of(audio: Tensor) -> int:
    """Frames that cover the samples, the last one padded."""
    return -(-len(audio) // FRAME)


def mel_patches(audio: Tensor) -> Tensor:
    """float32 samples (S,) -> log-mel patches (frames, 400), each centred on its 80 ms."""
    filters = torch.tensor(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FFT, n_mels=MELS))
    frames = frames_of(audio)
    margin = (FFT - HOP) // 2
    padded = torch.nn.functional.pad(audio, (margin, frames * FRAME - len(audio) + margin))
    spectrum = torch.stft(padded, FFT, HOP, window=torch.hann_window(FFT), center=False, return_complex=True).abs()
    return torch.log(filters @ spectrum + 1e-3).T.reshape(frames, -1)


def read_speech(folder: Path, number: int) -> list[Tensor]:
    """The utterances of one speech shard, float32 in [-1, 1]."""
    shard = load_file(folder / f"speech-{number:04d}.safetensors")
    audio = shard["audio"].float() / 32_768
    bounds = shard["offsets"].tolist()
    return [audio[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def quarters(phones: Tensor, ends: Tensor, frames: int) -> Tensor:
    """Which phone of an utterance, int64 (frames, 4), sounds in the middle of each quarter of a frame.

    `phones` (P,) gives their number only; `ends` (P,) are in samples.
    """
    middles = (torch.arange(frames * QUARTERS) + 0.5) * FRAME / QUARTERS
    return sounding(ends, middles).view(frames, QUARTERS)


def sounding(ends: Tensor, places: Tensor) -> Tensor:
    """Which phone, by the `ends` (P,) of all, sounds at each of some places, both in samples."""
    return torch.searchsorted(ends, places, right=True).clamp_max(len(ends) - 1)


def read_phones(folder: Path, number: int) -> list[Tensor]:
    """The phone in each quarter of each frame of the utterances of one shard, int64 (frames, 4)."""
    shard = load_file(folder / f"speech-{number:04d}.safetensors")
    samples, bounds = shard["offsets"].diff().tolist(), shard["phone_offsets"].tolist()
    found = []
    for length, a, b in zip(samples, bounds[:-1], bounds[1:], strict=True):
        phones = shard["phones"][a:b].long()
        found.append(phones[quarters(phones, shard["ends"][a:b], -(-length // FRAME))])
    return found


def shard_numbers(folder: Path) -> list[int]:
    """Numbers of the complete speech shards (their JSON is written last)."""
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob("speech-*.json"))


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Index of each point's nearest centre."""
    return torch.cat([torch.cdist(part, centres).argmin(1) for part in points.split(20_000)])


def kmeans(points: Tensor, rounds: int = 20) -> Tensor:
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
    """(64, PHONETIC): the canonical directions of latents (n, 64) with phones (n, 4), as long as they correlate."""
    named = torch.nn.functional.one_hot(phones, len(PHONES)).float().flatten(1)
    named = named - named.mean(0)
    centred = latents - latents.mean(0)
    white = inverse_root(centred.T @ centred / len(latents), 1e-6)
    cross = white @ (centred.T @ named / len(latents)) @ inverse_root(named.T @ named / len(latents), 1e-3)
    directions, correlations, _ = torch.linalg.svd(cross, full_matrices=False)
    return white @ directions[:, :PHONETIC] * correlations[:PHONETIC]


def fit(patches: Tensor, phones: Tensor) -> dict[str, Tensor]:
    """PCA and codebooks from log-mel patches (n, 400) and their phones (n, 4)."""
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
        left = residual.pow(2).mean() / latents.pow(2).mean()
        print(f"codebook {group}: {left:.4f} of the variance left", flush=True)
    basis = (basis / scale).contiguous()
    return {"mean": mean, "basis": basis, "phonetic": phonetic, "first": first, "rest": torch.stack(rest)}


def known(codes: Tensor, phones: Tensor) -> float:
    """Share of the phones (n, 4) that are the most frequent one of their code (n,) in their quarter."""
    counts = torch.zeros(ENTRIES, QUARTERS, len(PHONES))
    for quarter in range(QUARTERS):
        counts[:, quarter].index_put_((codes, phones[:, quarter]), torch.ones(()), accumulate=True)
    return counts.amax(-1).sum().item() / phones.numel()


def quantise(latents: Tensor, books: dict[str, Tensor]) -> Tensor:
    """Latents (n, 64) -> codes (n, 4)."""
    codes = [nearest(latents @ books["phonetic"], books["first"])]
    residual = latents
    for book in books["rest"]:
        codes.append(nearest(residual, book))
        residual = residual - book[codes[-1]]
    return torch.stack(codes, 1)


def encode_shard(folder: Path, number: int, books: dict[str, Tensor]) -> None:
    """Write the codes of one speech shard."""
    patches = [mel_patches(audio) for audio in read_speech(folder, number)]
    latents = (torch.cat(patches) - books["mean"]) @ books["basis"]
    offsets = torch.tensor(np.cumsum([0] + [len(patch) for patch in patches]))
    part = folder / f"codes-{number:04d}.part"
    save_file({"codes": quantise(latents, books).short(), "offsets": offsets}, part)
    os.replace(part, part.with_suffix(".safetensors"))


def usage(folder: Path) -> str:
    """How many frames were coded, and how evenly codebook 0 is used."""
    codes = torch.cat([load_file(path)["codes"][:, 0] for path in sorted(folder.glob("codes-*.safetensors"))])
    shares = torch.bincount(codes.long(), minlength=ENTRIES) / len(codes)
    entropy = -(shares * shares.clamp_min(1e-9).log2()).sum()
    return f"{len(codes)} frames in {folder}, {entropy:.2f} of {np.log2(ENTRIES):.0f} bits a frame in codebook 0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--fit-shards", type=int, default=6)
    parser.add_argument("--books", type=Path, help="codebooks.safetensors fitted on other speech, used as they are")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    path = arguments.work / "codebooks.safetensors"
    if arguments.books:
        shutil.copyfile(arguments.books, path)
    if not path.exists():
        numbers = shard_numbers(arguments.work)[: arguments.fit_shards]
        patches = [mel_patches(audio) for n in numbers for audio in read_speech(arguments.work, n)]
        phones = [each for n in numbers for each in read_phones(arguments.work, n)]
        save_file(fit(torch.cat(patches), torch.cat(phones)), path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)
    books = load_file(path)
    for number in shard_numbers(arguments.work):
        if not (arguments.work / f"codes-{number:04d}.safetensors").exists():
            encode_shard(arguments.work, number, books)
            print(f"shard {number} encoded", flush=True)
    print(usage(arguments.work))


if __name__ == "__main__":
    main()
