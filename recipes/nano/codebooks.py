"""Stage 2: the codec's target latents, codebooks and the codes of all speech.

    python recipes/nano/codebooks.py work/codec
    python recipes/nano/codebooks.py work/talker --books work/codec/codebooks.safetensors

A frame is 80 ms: five log-mel columns, reduced by PCA to a 64-dimensional latent.  Codebook 0 is
k-means on the leading components (what is being said); codebooks 1-7 are residual k-means of the whole
latent.  So each of the two quantisers of the official codec can be computed from the latent alone, as
its encoder does.  Writes `codebooks.safetensors`, then `codes-0000.safetensors` for each speech shard
(`codes` int16 (frames, 8), `offsets` int64); codes that exist are kept.
"""

import argparse
import os
import shutil
from pathlib import Path

import librosa
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SAMPLE_RATE = 16_000
FRAME = 1_280
HOP = 256
FFT = 1_024
MELS = 80
LATENT = 64
LEADING = 16
ENTRIES = 512
GROUPS = 8


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


def fit(patches: Tensor) -> dict[str, Tensor]:
    """PCA and codebooks from log-mel patches (n, 400)."""
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    basis = vectors.flip(1)[:, :LATENT]
    print(f"variance kept by {LATENT} components: {values[-LATENT:].sum() / values.sum():.4f}", flush=True)
    scale = values[-LEADING:].mean().sqrt()
    latents = (patches - mean) @ basis / scale
    first = kmeans(latents[:, :LEADING])
    rest, residual = [], latents
    for group in range(1, GROUPS):
        rest.append(kmeans(residual))
        residual = residual - rest[-1][nearest(residual, rest[-1])]
        left = residual.pow(2).mean() / latents.pow(2).mean()
        print(f"codebook {group}: {left:.4f} of the variance left", flush=True)
    return {"mean": mean, "basis": (basis / scale).contiguous(), "first": first, "rest": torch.stack(rest)}


def quantise(latents: Tensor, books: dict[str, Tensor]) -> Tensor:
    """Latents (n, 64) -> codes (n, 8)."""
    codes = [nearest(latents[:, :LEADING], books["first"])]
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
        fitted = fit(torch.cat([mel_patches(a) for n in numbers for a in read_speech(arguments.work, n)]))
        save_file(fitted, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)
    books = load_file(path)
    for number in shard_numbers(arguments.work):
        if not (arguments.work / f"codes-{number:04d}.safetensors").exists():
            encode_shard(arguments.work, number, books)
            print(f"shard {number} encoded", flush=True)
    print(usage(arguments.work))


if __name__ == "__main__":
    main()
