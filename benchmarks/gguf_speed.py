"""Frames a second of talker and code predictor in llama.cpp at true shape, beside the floor that memory sets.

    python benchmarks/gguf_speed.py CONFIG.json [--types F16 Q8_0 Q4_K_M] [--threads 2] [--frames 20] [--layers N]

CONFIG.json is a Qwen3-TTS's; the weights are random, so nothing is downloaded and nothing that is said makes sense.
Every frame reads all of the talker's matrices once and the predictor's once for each of its positions; the floor is
those bytes divided by the bandwidth with which this machine reads memory, measured in the same run. Embeddings, heads
and the rest stay in torch, as in speaking, and are timed with the frames. --layers makes the talker shallower: for a
look whether everything works, not for a figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from audio_projection.gguf.decoder_stack import LlamaStack
from audio_projection.gguf.llama_cpp_runtime import LlamaWeights
from audio_projection.gguf.quantise import K_QUANTS, describe_types, quantise
from audio_projection.gguf.reader import GGUFFile
from audio_projection.gguf.talker_file import Checkpoint, write_predictor, write_talker
from audio_projection.tts.config import Qwen3TTSConfig
from audio_projection.tts.generate import Decoder
from audio_projection.tts.loading import source
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import Prompt
from audio_projection.tts.sampling import Sampling
from audio_projection.tts.tokenizer import TextTokenizer

PREFILL = 40


def shapes(config: Qwen3TTSConfig, layers: int | None) -> Qwen3TTSConfig:
    """The configuration with so many layers in the talker (None: all) and few text ids, of which none is read."""
    stack = config.talker.transformer
    stack = replace(stack, num_layers=layers or stack.num_layers, windows=stack.windows[:layers])
    return replace(config, talker=replace(config.talker, transformer=stack, text_vocab_size=512))


class RandomTensors:
    """Tensors of a checkpoint's shapes with random numbers, made when they are asked for."""

    def __init__(self, config: Qwen3TTSConfig) -> None:
        with torch.device("meta"):
            tts = Qwen3TTS(config)
        self._shapes = {
            part: shape
            for name, value in (*prefixed("talker", tts.talker), *prefixed("code_predictor", tts.code_predictor))
            for part, shape in source(name, tuple(value.shape), config).parts
        }

    def names(self) -> list[str]:
        return sorted(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def tensor(self, name: str) -> torch.Tensor:
        norm = len(self._shapes[name]) == 1
        return torch.ones(self._shapes[name]) if norm else 0.02 * torch.randn(self._shapes[name])


def prefixed(prefix: str, module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(f"{prefix}.{name}", value) for name, value in module.state_dict().items()]


def byte_tokenizer() -> TextTokenizer:
    """A vocabulary of bytes and one merge: the file must have one, and nothing is read with it here."""
    alphabet = {character: number for number, character in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(alphabet | {"ab": len(alphabet)}, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    return TextTokenizer(tokenizer)


def random_file(checkpoint: Checkpoint, part: str, folder: Path, wanted: str, threads: int) -> GGUFFile:
    """A stack of the true shape, of the type asked for."""
    plain = "F16" if wanted in K_QUANTS else wanted
    write = {"talker": write_talker, "predictor": write_predictor}[part]
    made = write(checkpoint, folder / f"{part}.{plain}.gguf", plain)
    return made if plain == wanted else quantise(made.path, folder / f"{part}.{wanted}.gguf", wanted, threads)


def matrix_bytes(file: GGUFFile) -> int:
    """Bytes that one position reads: all but the table, of which it reads one row."""
    return sum(info.size for info in file.tensors.values() if info.name != "token_embd.weight")


def bandwidth(threads: int) -> float:
    """Bytes a second with which this machine reads memory: the best of five sums over 1 GiB."""
    torch.set_num_threads(threads)
    block = torch.ones(1 << 28, dtype=torch.float32)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        block.sum()
        seconds.append(time.perf_counter() - start)
    return block.numel() * 4 / min(seconds)


def frame_seconds(tts: Qwen3TTS, frames: int) -> list[float]:
    """Seconds of each frame after the prefill and one frame to warm up."""
    rows = 0.02 * torch.randn(PREFILL, tts.config.hidden_size)
    decoder = Decoder(tts, [Prompt(rows[:-1], rows[-1], rows[:1], PREFILL)], Sampling.greedy())
    seconds = []
    for _ in range(frames + 1):
        start = time.perf_counter()
        decoder.step(rows[:1])
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def measure(config: Qwen3TTSConfig, wanted: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    checkpoint = Checkpoint(config, RandomTensors(config), byte_tokenizer(), "random")
    files = {part: random_file(checkpoint, part, folder, wanted, given.threads) for part in ("talker", "predictor")}
    stacks = {"talker": config.talker.transformer, "predictor": config.predictor.transformer}
    tts = Qwen3TTS.from_config(shapes(config, 1))
    tts.talker.transformer, tts.code_predictor.transformer = (  # type: ignore[assignment]
        LlamaStack(stacks[part], LlamaWeights(file, "copy"), given.threads) for part, file in files.items()
    )
    seconds = frame_seconds(tts.eval().requires_grad_(False), given.frames)
    read = matrix_bytes(files["talker"]) + config.code_groups * matrix_bytes(files["predictor"])
    return {
        "type": wanted,
        "frames_a_second": 1 / statistics.median(seconds),
        "megabytes_a_frame": read / 1e6,
        "floor_frames_a_second": bandwidth(given.threads) / read,
        "tensors": {part: describe_types(file) for part, file in files.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("config", type=Path, help="config.json of a Qwen3-TTS")
    parser.add_argument("--types", nargs="+", default=["F16", "Q8_0", "Q4_K_M"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--layers", type=int, help="layers of the talker, for a quick look")
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    config = shapes(Qwen3TTSConfig.from_dict(json.loads(given.config.read_text())), given.layers)
    for wanted in given.types:
        with TemporaryDirectory() as folder:
            print(json.dumps(measure(config, wanted, Path(folder), given)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
