"""Stage: the codec's encoder, trained to find the latents of speech from its waveform.

    python recipes/nano/encoder.py work --steps 5000

Plain regression, to the latents and to their phonetic directions alike: those vary little, and codebook 0
is read from them.  The codebooks are those of the decoder, so encoding speech gives the codes that the
talker was trained on.  Resumes from its checkpoint when repeated, and prints the share of equal codes on
a shard that it was not trained on.
"""

import argparse
import time
from pathlib import Path

import torch
from checkpoint import Due, load, prepared, rate_at, save
from codebooks import ENTRIES, FRAME, GROUPS, LATENT, latents_of, mel_patches, quantise
from corpus import audio_numbers, read_audio
from safetensors.torch import load_file
from teacher import SAMPLE_RATE
from torch import Tensor, nn

from audio_projection.tts.codec.encoder import CodecEncoder

CONFIG = {
    "model_type": "mimi", "sampling_rate": SAMPLE_RATE, "frame_rate": 12.5, "audio_channels": 1,
    "codebook_size": ENTRIES, "codebook_dim": LATENT, "vector_quantization_hidden_dimension": LATENT,
    "hidden_size": 192, "num_filters": 20, "num_quantizers": GROUPS, "num_semantic_quantizers": 1,
    "upsample_groups": 192, "num_hidden_layers": 2, "intermediate_size": 384, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 48, "upsampling_ratios": [8, 6, 5, 4], "use_causal_conv": False,
    "sliding_window": 250, "use_cache": False, "layer_scale_initial_scale": 0.1, "hidden_act": "gelu",
    "max_position_embeddings": 8000, "rope_theta": 10000.0,
}  # fmt: skip


def build(books: dict[str, Tensor]) -> CodecEncoder:
    """A new encoder whose quantisers read the latent from its first channels, codebook 0 its phonetic directions."""
    encoder = CodecEncoder(CONFIG, GROUPS)
    semantic = encoder.quantizer.semantic_residual_vector_quantizer
    acoustic = encoder.quantizer.acoustic_residual_vector_quantizer
    first = torch.nn.functional.pad(books["first"], (0, LATENT - books["first"].shape[1]))
    layers = [*semantic.layers, *acoustic.layers]
    with torch.no_grad():
        for layer, book in zip(layers, [first, *books["rest"]], strict=True):
            layer.codebook.embed_sum.copy_(book)
            layer.codebook.cluster_usage.fill_(1.0)
        acoustic.input_proj.weight.copy_(torch.eye(LATENT, CONFIG["hidden_size"])[..., None])
        phonetic = books["phonetic"]
        semantic.input_proj.weight.zero_()
        semantic.input_proj.weight[: phonetic.shape[1], :LATENT, 0] = phonetic.T
    encoder.quantizer.requires_grad_(False)
    return encoder


class Utterances:
    """Segments of speech and the latents of their frames."""

    def __init__(self, folder: Path, numbers: list[int], books: dict[str, Tensor], frames: int) -> None:
        self.books, self.frames = books, frames
        utterances = (torch.from_numpy(samples.copy()) for number in numbers for samples in read_audio(folder, number))
        self.audio = [samples for samples in utterances if len(samples) > (frames + 1) * FRAME]

    def batch(self, size: int, step: int) -> tuple[Tensor, Tensor]:
        """Samples (B, S) and latents (B, frames, LATENT), on the device of the codebooks."""
        generator = torch.Generator().manual_seed(step)
        found = []
        for number in torch.randint(len(self.audio), (size,), generator=generator).tolist():
            whole = self.audio[number]
            start = int(torch.randint(len(whole) // FRAME - self.frames, (1,), generator=generator))
            # a frame more on either side: spectra reach beyond their frame
            around = torch.nn.functional.pad(whole, (FRAME, FRAME))
            found.append(around[start * FRAME : (start + self.frames + 2) * FRAME])
        audio = torch.stack(found).to(self.books["mean"].device).float() / 32_768
        return audio[:, FRAME:-FRAME], latents_of(mel_patches(audio), self.books)[:, 1:-1]


def missed(found: Tensor, true: Tensor) -> Tensor:
    """Mean square of the error, in parts of the mean square of what is sought."""
    return (found - true).square().mean() / true.square().mean()


@torch.no_grad()
def equal_codes(encoder: CodecEncoder, utterances: Utterances) -> str:
    """Variance explained and share of equal codes on 64 segments."""
    audio, latents = utterances.batch(64, step=0)
    found = encoder.latents(audio).transpose(1, 2)[..., :LATENT]
    left = missed(found, latents)
    true = quantise(latents.flatten(0, 1), utterances.books)
    same = (encoder(audio).flatten(0, 1) == true).float().mean(0)
    return f"{1 - left:.3f} of the variance; equal codes by codebook: " + " ".join(f"{s:.0%}" for s in same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--shards", type=int, default=30)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--device", type=torch.device, default="cpu")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = prepared(arguments.device)
    books = load_file(arguments.work / "codebooks.safetensors", str(device))
    encoder = build(books).to(device)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    optim = torch.optim.AdamW(trained, arguments.rate, betas=(0.9, 0.98))
    path = arguments.work / "encoder.safetensors"
    step = load(path, encoder, [optim])
    folder = arguments.work / "speech"
    *numbers, last = audio_numbers(folder)
    known = Utterances(folder, numbers[: arguments.shards], books, arguments.frames)
    new = Utterances(folder, [last], books, arguments.frames)
    print(f"{sum(p.numel() for p in trained) / 1e6:.2f} M parameters, from step {step}", flush=True)
    due, began = Due(arguments.save_every, arguments.steps), time.time()
    while step < arguments.steps:
        optim.param_groups[0]["lr"] = arguments.rate * rate_at(step, arguments.steps)
        audio, latents = known.batch(arguments.batch, step + 1)
        found = encoder.latents(audio).transpose(1, 2)[..., :LATENT]
        directions = books["phonetic"]
        loss = missed(found, latents) + missed(found @ directions, latents @ directions)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optim.step()
        optim.zero_grad()
        step += 1
        if due(step):
            save(path, encoder, [optim], step)
        if step % 200 == 0 or step == arguments.steps:
            shown = equal_codes(encoder, new)
            print(f"{step} {time.time() - began:.0f}s loss {loss.item():.3f} | held out {shown}", flush=True)


if __name__ == "__main__":
    main()
