"""Decoding on a GPU at the true shape of Qwen3-TTS-12Hz-1.7B, with random weights: eager and as CUDA graphs.

    python benchmarks/gpu_decode.py [--slots 1 8 32] [--frames 120] [--device cuda] [--output results.json]

For each number of slots, in both modes: the real-time factor of each stream (time / sound; below 1 is faster than real
time) of talker and code predictor, and with the codec; milliseconds to the first sound of a short text, when it comes
alone and when it joins a full engine; and for each frame the launches from the host, the kernels on the GPU and the
times that the host waits for it. Both modes must give equal codes, greedy and sampled, or the exit code is 1. The
speech is noise; speed is that of the real model. It takes less than ten minutes on a GPU with 16 GB. Where the official
package is installed, decode_speed.py compares with it. `--tiny`: small shapes, for a test on a CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from audio_projection.sampling import Sampling
from audio_projection.tts.codec.codec import Codec
from audio_projection.tts.codec.config import CodecConfig, CodecDecoderConfig
from audio_projection.tts.config import Qwen3TTSConfig
from audio_projection.tts.engine.engine import Engine
from audio_projection.tts.engine.text import WholeText
from audio_projection.tts.engine.utterance import Request
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import text_prompt

CHUNKS = (1, 2, 4, 8, 12)
PREFIX, WORDS = 9, 24  # positions before the text, and text tokens of an utterance
STACK = {
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
    "num_code_groups": 16,
}  # fmt: skip
TRUE = {
    "talker": STACK | {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "vocab_size": 3072},
    "predictor": STACK | {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 5, "vocab_size": 2048},
    "text": {"text_vocab_size": 151936, "text_hidden_size": 2048},
    "codec": {"hidden_size": 512, "intermediate_size": 1024, "head_dim": 64},
}
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16}
TINY = {
    "talker": STACK | SMALL | {"num_key_value_heads": 2, "vocab_size": 3072},
    "predictor": STACK | SMALL | {"num_key_value_heads": 2, "vocab_size": 2048},
    "text": {"text_vocab_size": 151936, "text_hidden_size": 32},
    "codec": {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16,
        "num_key_value_heads": 2, "latent_dim": 32, "codebook_dim": 32, "decoder_dim": 32,
    },
}  # fmt: skip
CODES = {
    "codec_pad_id": 2148, "codec_bos_id": 2149, "codec_eos_token_id": 2150, "codec_think_id": 2154,
    "codec_nothink_id": 2155, "codec_think_bos_id": 2156, "codec_think_eos_id": 2157,
}  # fmt: skip
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")


def random_tts(sizes: dict[str, Any], device: torch.device) -> Qwen3TTS:
    """A Qwen3-TTS with random weights, in bfloat16 on a GPU (the codec in float32)."""
    values = {
        "model_type": "qwen3_tts",
        "tts_model_type": "voice_design",
        "talker_config": sizes["talker"] | sizes["text"] | CODES | {"code_predictor_config": sizes["predictor"]},
    }
    codec = CodecConfig(CodecDecoderConfig(**sizes["codec"]))
    with torch.device("meta"):
        tts = Qwen3TTS(Qwen3TTSConfig.from_dict(values), "random")
        tts._codec = Codec(codec)
    if device.type == "cuda":
        tts.to(torch.bfloat16)
    for module in (tts, tts.codec):
        module.to_empty(device=device)
        fill(module)
    tts.codec.decoder.to_float64()
    tts.generation = {"max_new_tokens": 8192}
    return tts.eval().requires_grad_(False)


def fill(module: nn.Module) -> None:
    """Random weights: normal of deviation 0.02, norms 1; sizes of codebook clusters 1."""
    generator = torch.Generator(next(module.parameters()).device).manual_seed(0)
    with torch.no_grad():
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if name.endswith(("norm.weight", "cluster_usage")):
                value.fill_(1.0)
            elif value.is_floating_point():
                value.normal_(std=0.02, generator=generator)


class Run:
    """One mode of decoding: a number of slots, with or without CUDA graphs."""

    def __init__(self, tts: Qwen3TTS, slots: int, graphs: bool, sampling: Sampling) -> None:
        self.tts, self.slots = tts, slots
        self.engine = Engine(tts, sampling, slots, graphs)

    def request(self, number: int, frames: int, chunks: Sequence[int] | None = None, words: int = WORDS) -> Request:
        ids = torch.arange(PREFIX + words, device=self.tts.device) + 97 * number
        embeddings = self.tts.text_embeddings(ids)
        prompt = text_prompt(self.tts, embeddings[:PREFIX], embeddings[PREFIX:], "nonstreaming")
        return Request(prompt, WholeText(self.tts, prompt), number, frames, chunks)

    def codes(self, frames: int) -> list[list[list[int]]]:
        """The codes of an utterance in each slot."""
        requests = [self.request(number, frames) for number in range(self.slots)]
        spoken = {number: torch.stack(list(one)).tolist() for number, one in self.engine.run(requests)}
        return [spoken[number] for number in range(self.slots)]

    def real_time_factor(self, frames: int, chunks: Sequence[int] | None) -> float:
        """Seconds of decoding for each second of sound of one stream, all slots being in use."""
        wait(self.tts.device)
        began = time.perf_counter()
        requests = [self.request(number, frames, chunks) for number in range(self.slots)]
        lengths = [utterance.frames for _, utterance in self.engine.run(requests)]
        wait(self.tts.device)
        return (time.perf_counter() - began) / (sum(lengths) / len(lengths) / self.tts.frame_rate)

    def first_sound(self, busy: bool) -> float:
        """Milliseconds to the first samples on the host, alone or with all other slots in use."""
        others = (
            [self.engine.submit(self.request(number, 400, CHUNKS)) for number in range(1, self.slots)] if busy else []
        )
        for _ in range(20 if others else 0):
            self.engine.step()
        wait(self.tts.device)
        began = time.perf_counter()
        utterance = self.engine.submit(self.request(0, 3, CHUNKS))
        next(utterance).cpu()
        taken = 1000 * (time.perf_counter() - began)
        for one in (utterance, *others):
            one.cancel()
        return taken

    def counts(self, frames: int = 8) -> dict[str, float]:
        """Launches, kernels and waits a frame, while all slots are in use and no chunk is delivered."""
        utterances = [self.engine.submit(self.request(number, 400, (400,))) for number in range(self.slots)]
        for _ in range(4):
            self.engine.step()
        wait(self.tts.device)
        cuda = self.tts.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with profile(activities=activities) as profiled:
            for _ in range(frames):
                self.engine.step()
        events = list(profiled.events())
        on_device = [event for event in events if event.device_type != torch.autograd.DeviceType.CPU]
        for one in utterances:
            one.cancel()
        return {
            "launches": sum(event.name in LAUNCHES for event in events) / frames,
            "kernels": sum(not event.name.startswith("Mem") for event in on_device) / frames,
            "waits": sum(event.name in WAITS for event in events) / frames,
        }


def wait(device: torch.device) -> None:
    """Waits until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(tts: Qwen3TTS, slots: int, graphs: bool, frames: int, runs: int) -> dict[str, Any]:
    """All figures of one mode: medians of `runs`, after one to warm up and capture."""
    run = Run(tts, slots, graphs, Sampling())
    talk, sound, alone, joining = [], [], [], []
    for number in range(runs + 1):
        figures = (
            run.real_time_factor(frames, None),
            run.real_time_factor(frames, CHUNKS),
            run.first_sound(busy=False),
            run.first_sound(busy=True),
        )
        for values, figure in zip((talk, sound, alone, joining), figures, strict=True):
            values.extend([figure] * bool(number))
    return {
        "slots": slots,
        "graphs": graphs,
        "real-time factor, codes": statistics.median(talk),
        "real-time factor, sound": statistics.median(sound),
        "first sound alone, ms": statistics.median(alone),
        "first sound joining, ms": statistics.median(joining),
        **{f"{what} a frame": count for what, count in run.counts().items()},
    }


def equal_codes(tts: Qwen3TTS, slots: int, frames: int) -> dict[str, bool]:
    """Whether both modes give the same codes."""
    found = {}
    for name, sampling in {"greedy": Sampling.greedy(), "sampled": Sampling()}.items():
        eager, replayed = (Run(tts, slots, graphs, sampling).codes(frames) for graphs in (False, True))
        found[name] = eager == replayed
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--frames", type=int, default=120, help="of each utterance, at most")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to test this script")
    parser.add_argument("--output", type=Path, help="also write the results to this JSON file")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_decode: no CUDA device is here; --device cpu --tiny tests the script")
    tts = random_tts(TINY if given.tiny else TRUE, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {'tiny' if given.tiny else 'true'} shape, {tts.dtype}")
    modes = (False, True) if device.type == "cuda" else (False,)
    results: dict[str, Any] = {"device": name, "modes": []}
    for slots in given.slots:
        for graphs in modes:
            figures = measure(tts, slots, graphs, given.frames, given.runs)
            results["modes"].append(figures)
            print("  ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True)
    equal = True
    if len(modes) == 2:
        results["equal codes"] = {slots: equal_codes(tts, slots, min(given.frames, 60)) for slots in given.slots}
        equal = all(all(found.values()) for found in results["equal codes"].values())
        print(f"codes of graphs and eager: {'equal' if equal else results['equal codes']}")
    else:
        print("skipped: CUDA graphs need a CUDA device")
    if given.output:
        given.output.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
