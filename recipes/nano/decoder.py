"""Stage: the codec's decoder, trained to turn the fixed codes into speech.

    python recipes/nano/decoder.py work --steps 12000 --critics-from 7000

Log-mel and log-magnitude distances at four window lengths, and the distance of what an acoustic model hears
(`acoustic_model.py`: feature matching with a listener in the critic's place).  Later critics of the sound join
(`critics.py`): spectra alone leave a buzz.  Every fourth batch holds the first frames of utterances, so that speech
learns to begin; of the others, the first two frames lack their past and do not count.  Resumes from its checkpoint when
repeated.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import librosa
import torch
from acoustic_model import AcousticModel
from checkpoint import Due, load, prepared, rate_at, save
from codebooks import ENTRIES, FRAME, GROUPS, LATENT
from corpus import audio_numbers, read_audio
from critics import Critics
from replayed import Replayed
from safetensors.torch import load_file
from snake import fuse
from teacher import SAMPLE_RATE
from torch import Tensor, nn

from audio_projection.tts.codec.config import CodecDecoderConfig
from audio_projection.tts.codec.decoder import CodecDecoder

CONFIG = CodecDecoderConfig(
    num_quantizers=GROUPS, codebook_size=ENTRIES, codebook_dim=2 * LATENT, latent_dim=192, hidden_size=192,
    intermediate_size=384, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, head_dim=48,
    sliding_window=32, decoder_dim=256, upsample_rates=(8, 5, 4, 3), upsampling_ratios=(2, 2),
    layer_scale_initial_scale=0.1,
)  # fmt: skip
HEARD = 8.0
"""Weight of what is heard beside the spectra."""
FOOLING, MATCHING = 0.2, 0.6
"""Weights of the critics' verdict and of their features."""
WINDOWS = ((256, 20), (512, 40), (1024, 80), (2048, 120))


def build(books: dict[str, Tensor]) -> CodecDecoder:
    """A new decoder around the fixed codebooks; its two quantisers start side by side in the latent."""
    decoder = CodecDecoder(CONFIG)
    quantizer = decoder.quantizer
    first = torch.nn.functional.pad(books["first"], (0, LATENT - books["first"].shape[1]))
    slots = [*quantizer.rvq_first.vq.layers, *quantizer.rvq_rest.vq.layers]
    for slot, book in zip(slots, [first, *books["rest"]], strict=True):
        slot._codebook.embedding_sum.copy_(book)
    identity = torch.eye(LATENT)[:, :, None]
    with torch.no_grad():
        quantizer.rvq_rest.output_proj.weight.copy_(torch.cat((identity, torch.zeros_like(identity))))
        quantizer.rvq_first.output_proj.weight.copy_(torch.cat((torch.zeros_like(identity), identity)))
    return decoder


def with_critics(decoder: CodecDecoder) -> nn.ModuleDict:
    """What a checkpoint of this stage holds."""
    return nn.ModuleDict({"decoder": decoder, "critics": Critics()})


class SpectralLoss(nn.Module):
    """Mean log-mel and log-magnitude distance of two batches of samples (B, S), over four window lengths."""

    def __init__(self) -> None:
        super().__init__()
        for size, mels in WINDOWS:
            filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=size, n_mels=mels)
            self.register_buffer(f"filters_{size}", torch.tensor(filters))
            self.register_buffer(f"window_{size}", torch.hann_window(size))

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        return sum((self.scale(made, true, size) for size, _ in WINDOWS), made.new_zeros(()))

    def scale(self, made: Tensor, true: Tensor, size: int) -> Tensor:
        window, filters = getattr(self, f"window_{size}"), getattr(self, f"filters_{size}")
        spectra = torch.stft(torch.cat((made, true)), size, size // 4, window=window, return_complex=True)
        magnitudes = (spectra.real.square() + spectra.imag.square() + 1e-9).sqrt()
        logs, mels = torch.log(magnitudes + 1e-3), torch.log(filters @ magnitudes + 1e-3)
        return distance(mels) + 0.5 * distance(logs)


class HeardLoss(nn.Module):
    """Mean difference of the layers of the acoustic model for two batches of samples (B, S), in parts of their size."""

    def __init__(self, listener: AcousticModel) -> None:
        super().__init__()
        self.listener = listener.requires_grad_(False)

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        layers = self.listener.features(torch.cat((made, true)))
        return torch.stack([distance(x) / x.detach().abs().mean() for x in layers]).mean()


def distance(pair: Tensor) -> Tensor:
    """Mean absolute difference of the two halves of a batch."""
    made, true = pair.chunk(2)
    return (made - true).abs().mean()


class Segments:
    """Random segments of `frames` frames: codes (B, frames, 16) and samples (B, frames * FRAME)."""

    def __init__(self, folder: Path, shards: int, frames: int) -> None:
        self.frames = frames
        self.codes: list[Tensor] = []
        self.audio: list[Tensor] = []
        for number in audio_numbers(folder)[:shards]:
            coded = load_file(folder / f"codes-{number:04d}.safetensors")
            utterances = coded["codes"].split(coded["offsets"].diff().tolist())
            for codes, samples in zip(utterances, read_audio(folder, number), strict=True):
                if len(codes) > frames:
                    self.codes.append(codes)
                    self.audio.append(torch.from_numpy(samples.copy()))

    def batch(self, size: int, step: int) -> tuple[Tensor, Tensor]:
        """Drawn by the step number alone; every fourth batch begins where utterances begin."""
        generator = torch.Generator().manual_seed(step)
        codes, audio = [], []
        for number in torch.randint(len(self.codes), (size,), generator=generator).tolist():
            start = int(torch.randint(len(self.codes[number]) - self.frames, (1,), generator=generator))
            start *= not opens(step)
            codes.append(self.codes[number][start : start + self.frames].long())
            audio.append(self.audio[number][start * FRAME : (start + self.frames) * FRAME].float() / 32_768)
        return torch.stack(codes), torch.stack(audio)


def opens(step: int) -> bool:
    """Whether the batch of a step begins where utterances begin."""
    return step % 4 == 0


@dataclass(frozen=True)
class Kind:
    """What is different between steps, but for their data."""

    opens: bool
    """Whether the segments begin where utterances begin; the first two frames of others lack their past."""
    judged: int
    """Frames that the critics see, or 0."""


class Training:
    """The decoder, all that tells its samples from true ones, and the optimisers of both."""

    def __init__(self, parts: nn.ModuleDict, listener: AcousticModel) -> None:
        self.parts, self.decoder, self.critics = parts, parts["decoder"], parts["critics"]
        device = next(parts.parameters()).device
        self.spectral, self.heard = SpectralLoss().to(device), HeardLoss(listener).to(device)
        self.optims = [self.optimiser(self.decoder, device), self.optimiser(self.critics, device)]

    @staticmethod
    def optimiser(module: nn.Module, device: torch.device) -> torch.optim.Optimizer:
        """Its rate, set before each step, is a tensor: a CUDA graph reads a new one in every step."""
        replayed, rate = device.type == "cuda", torch.zeros((), device=device)
        return torch.optim.AdamW(module.parameters(), rate, betas=(0.8, 0.99), fused=replayed, capturable=replayed)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate; that of the critics is half of it."""
        for optim, share in zip(self.optims, (1.0, 0.5), strict=True):
            optim.param_groups[0]["lr"].fill_(share * rate)

    def update(self, kind: Kind, codes: Tensor, audio: Tensor, start: Tensor) -> dict[str, Tensor]:
        """One step with codes (B, F, 16), samples (B, F * FRAME) and where the part that the critics see begins."""
        settled = 0 if kind.opens else 2 * FRAME
        made, true = self.decoder.synthesize(self.decoder.quantizer(codes))[:, settled:], audio[:, settled:]
        found = {"spectral": self.spectral(made, true), "heard": self.heard(made, true)}
        loss = found["spectral"] + HEARD * found["heard"]
        if kind.judged:
            part = start + torch.arange(kind.judged * FRAME, device=start.device)
            short = made[:, part], true[:, part]
            found["critics"] = self.critics.own_loss(*short)
            found["critics"].backward()
            self.optims[1].step()
            found["fooling"], found["matching"] = self.critics.losses(*short)
            loss = loss + FOOLING * found["fooling"] + MATCHING * found["matching"]
        loss.backward()
        nn.utils.clip_grad_norm_(self.decoder.parameters(), 3.0)
        self.optims[0].step()
        return {name: value.detach() for name, value in found.items()}

    def update_afresh(self, kind: Kind, *inputs: Tensor) -> dict[str, Tensor]:
        self.parts.zero_grad()
        return self.update(kind, *inputs)


def beginning(kind: Kind, frames: int, step: int) -> Tensor:
    """A random sample (1,) at which the part that the critics see begins, drawn by the step number."""
    size = (frames - (0 if kind.opens else 2) - kind.judged) * FRAME
    return torch.randint(max(1, size), (1,), generator=torch.Generator().manual_seed(step))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--critics-from", type=int, default=7_000, help="first step that the critics judge")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--judged", type=int, default=5, help="frames of them that the critics see, the dearest part")
    parser.add_argument("--shards", type=int, default=30)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--device", type=torch.device, default="cpu")
    arguments = parser.parse_args()
    judged = min(arguments.judged, arguments.frames - 2)
    torch.manual_seed(0)
    device = prepared(arguments.device)
    parts = with_critics(build(load_file(arguments.work / "codebooks.safetensors"))).to(device)
    listener = AcousticModel()
    if not load(arguments.work / "acoustic_model.safetensors", listener, []):
        parser.error(f"{arguments.work} has no acoustic model: run acoustic_model.py first")
    training = Training(parts, listener)
    if device.type == "cpu":
        fuse(training.decoder)
    path = arguments.work / "decoder.safetensors"
    step = load(path, parts, training.optims)
    update = Replayed(training.update, parts.zero_grad) if device.type == "cuda" else training.update_afresh
    segments = Segments(arguments.work / "speech", arguments.shards, arguments.frames)
    print(
        f"{sum(p.numel() for p in training.decoder.parameters()) / 1e6:.2f} M parameters, from step {step}", flush=True
    )
    due, began = Due(arguments.save_every, arguments.steps), time.time()
    average: dict[str, Tensor] = {}
    while step < arguments.steps:
        training.set_rate(arguments.rate * rate_at(step, arguments.steps))
        kind = Kind(opens(step), judged if step >= arguments.critics_from else 0)
        new = update(kind, *segments.batch(arguments.batch, step), beginning(kind, arguments.frames, step))
        step += 1
        average = {name: 0.97 * average.get(name, value) + 0.03 * value for name, value in new.items()}
        if step % 20 == 0 or step == arguments.steps:
            shown = ", ".join(f"{name} {float(value):.4f}" for name, value in average.items())
            print(f"{step} {time.time() - began:.0f}s {shown}", flush=True)
        if due(step):
            save(path, parts, training.optims, step)


if __name__ == "__main__":
    main()
