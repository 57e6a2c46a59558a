"""Writes models of the true shape with random weights in the folder layouts of the real ones, without a download.

    python benchmarks/random_models.py WORK --tts-config CONFIG.json --codec-config CONFIG.json \\
        --tts-tokenizer FOLDER --llm-tokenizer FOLDER [--no-llm]

Writes WORK/tts, an official Qwen3-TTS folder in bfloat16; WORK/llm, a Llama 3.1 8B (16 GB; `--llm-layers N` for a
shallower one); WORK/projector, a `linear` one between them at the last layer; and WORK/config.yaml, which names all
three. Speed, memory and file sizes are those of the real models; the speech is noise. Folders that exist are kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from audio_projection.llm.language_model import vocabulary_hash
from audio_projection.projector import ProjectorInfo, build_projector
from audio_projection.tts.codec.codec import Codec
from audio_projection.tts.codec.config import CodecConfig
from audio_projection.tts.config import Qwen3TTSConfig
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.tokenizer import TextTokenizer
from audio_projection.tts.weights import source

LLAMA = {  # Llama-3.1-8B-Instruct
    "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "bos_token_id": 128000, "eos_token_id": 128009, "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}  # fmt: skip
GENERATION = {
    "do_sample": True, "repetition_penalty": 1.05, "temperature": 0.9, "top_p": 1.0, "top_k": 50,
    "subtalker_dosample": True, "subtalker_temperature": 0.9, "subtalker_top_p": 1.0, "subtalker_top_k": 50,
    "max_new_tokens": 8192,
}  # fmt: skip
TOKENIZER = ("vocab.json", "merges.txt", "tokenizer_config.json")


def random_tensor(name: str, shape: Sequence[int]) -> Tensor:
    """A random weight in bfloat16: normal with deviation 0.02; 1 for norms."""
    if name.endswith("norm.weight"):
        return torch.ones(*shape, dtype=torch.bfloat16)
    return torch.empty(*shape, dtype=torch.bfloat16).normal_(std=0.02)


def official_shapes(config: Qwen3TTSConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of an official model.safetensors."""
    with torch.device("meta"):
        tts = Qwen3TTS(config)
    owners = {"talker": tts.talker, "code_predictor": tts.code_predictor}
    return {
        part: shape
        for owner, module in owners.items()
        for name, value in module.state_dict().items()
        for part, shape in source(f"{owner}.{name}", tuple(value.shape), config).parts
    }


def write_tts(folder: Path, given: argparse.Namespace) -> None:
    """Writes an official Qwen3-TTS folder with random weights."""
    settings = json.loads(given.tts_config.read_text())
    config = Qwen3TTSConfig.from_dict(settings)
    (folder / "speech_tokenizer").mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER:
        shutil.copyfile(given.tts_tokenizer / name, folder / name)
    (folder / "generation_config.json").write_text(json.dumps(GENERATION, indent=1))
    Codec(CodecConfig.from_dict(json.loads(given.codec_config.read_text()))).save_pretrained(
        folder / "speech_tokenizer"
    )
    tensors = {name: random_tensor(name, shape) for name, shape in sorted(official_shapes(config).items())}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(settings, indent=1))


def llm_shards(config: LlamaConfig) -> Iterator[dict[str, Tensor]]:
    """The LLM's random tensors, one layer at a time."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in LlamaForCausalLM(config).state_dict().items()}
    groups: dict[str, list[str]] = {}
    for name in shapes:
        groups.setdefault(".".join(name.split(".")[:3]), []).append(name)
    for names in groups.values():
        yield {name: random_tensor(name, shapes[name]) for name in names}


def write_llm(folder: Path, layers: int, tokenizer: PreTrainedTokenizerFast) -> None:
    """Writes a Hugging Face folder of a Llama with random weights, one shard a layer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(num_hidden_layers=layers, **LLAMA)
    places: dict[str, str] = {}
    for number, tensors in enumerate(llm_shards(config)):
        name = f"model-{number:05d}.safetensors"
        save_file(tensors, folder / name, {"format": "pt"})
        places |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    tokenizer.save_pretrained(folder)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)


def llama_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder with tokenizer.json, with Llama 3.1's tokens for begin and end of a text."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )


def write_projector(folder: Path, layers: int, tts: Path, llm: Path) -> None:
    """Writes an untrained linear projector from the LLM's last layer to the TTS."""
    config = Qwen3TTSConfig.from_folder(tts)
    info = ProjectorInfo(
        kind="linear",
        llm_size=LLAMA["hidden_size"],  # type: ignore[arg-type]
        tts_size=config.hidden_size,
        layers=[layers],
        llm=str(llm),
        tts=str(tts),
        llm_tokenizer_hash=vocabulary_hash(AutoTokenizer.from_pretrained(llm).backend_tokenizer),
        tts_tokenizer_hash=TextTokenizer.from_folder(tts).hash,
        voice=next(iter(config.talker.speakers), None),
    )
    build_projector(info).save_pretrained(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--tts-config", type=Path, required=True, help="config.json of a Qwen3-TTS")
    parser.add_argument("--codec-config", type=Path, required=True, help="config.json of its speech_tokenizer")
    parser.add_argument("--tts-tokenizer", type=Path, required=True, help=f"folder with {', '.join(TOKENIZER)}")
    parser.add_argument("--llm-tokenizer", type=Path, required=True, help="folder with Llama 3's tokenizer.json")
    parser.add_argument("--llm-layers", type=int, default=32)
    parser.add_argument("--no-llm", action="store_true", help="the TTS alone")
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    tts, llm, projector = (given.work / name for name in ("tts", "llm", "projector"))
    if not (tts / "config.json").exists():
        write_tts(tts, given)
    print(tts, flush=True)
    if given.no_llm:
        return 0
    if not (llm / "config.json").exists():
        write_llm(llm, given.llm_layers, llama_tokenizer(given.llm_tokenizer))
    print(llm, flush=True)
    write_projector(projector, given.llm_layers, tts, llm)
    names = {"root": ".", "llm": {"name": str(llm.resolve())}, "tts": {"name": str(tts.resolve())}, "device": "cpu"}
    (given.work / "config.yaml").write_text(yaml.safe_dump(names, sort_keys=False))
    print(given.work / "config.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
