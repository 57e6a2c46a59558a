"""Official checkpoint tensors to and from the modules here, strictly: every tensor present, of its shape, none left.

The modules keep some official tensors fused (query, key and value; gate and up; the predictor's embeddings and
heads); `official_state_dict` takes them apart again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from audio_projection.files.tensor_folder import Shape, TensorFolder, check_tensors
from audio_projection.tts.config import Qwen3TTSConfig, TransformerConfig
from audio_projection.tts.interface import SpeechModel


@dataclass(frozen=True)
class Source:
    """The official tensors that one parameter here is made of: joined along dimension 0, or stacked."""

    parts: tuple[tuple[str, Shape], ...]
    stacked: bool = False

    def join(self, tensors: list[Tensor]) -> Tensor:
        if self.stacked:
            return torch.stack(tensors)
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        pieces = tensor.unbind() if self.stacked else tensor.split([shape[0] for _, shape in self.parts])
        return {name: piece.contiguous() for (name, _), piece in zip(self.parts, pieces, strict=True)}


_RENAMED = (
    (r"^talker\.transformer\.", "talker.model."),
    (r"^talker\.(codec|text)_embedding\.", r"talker.model.\1_embedding."),
    (r"^code_predictor\.transformer\.", "talker.code_predictor.model."),
    (r"^code_predictor\.codec_embedding$", "talker.code_predictor.model.codec_embedding"),
    (r"^code_predictor\.", "talker.code_predictor."),
)
CODEC_HEAD = "talker.codec_head.weight"


def source(name: str, shape: Shape, config: Qwen3TTSConfig) -> Source:
    """Where the parameter `name` of a `Qwen3TTS` comes from. `shape` is its own."""
    official = name
    for pattern, replacement in _RENAMED:
        official, found = re.subn(pattern, replacement, official)
        if found:
            break
    if name in ("code_predictor.codec_embedding", "code_predictor.lm_head"):
        return Source(tuple((f"{official}.{i}.weight", shape[1:]) for i in range(shape[0])), stacked=True)
    stack = config.predictor.transformer if name.startswith("code_predictor.") else config.talker.transformer
    for fused, parts in _fused(stack).items():
        if f".{fused}." in official:
            return Source(tuple((official.replace(fused, part), (rows, *shape[1:])) for part, rows in parts.items()))
    return Source(((official, shape),))


def _fused(stack: TransformerConfig) -> dict[str, dict[str, int]]:
    """For each fused matrix its official parts and their rows."""
    queries, keys = stack.num_heads * stack.head_dim, stack.num_kv_heads * stack.head_dim
    return {
        "qkv_proj": {"q_proj": queries, "k_proj": keys, "v_proj": keys},
        "gate_up_proj": {"gate_proj": stack.intermediate_size, "up_proj": stack.intermediate_size},
    }


def load_weights(tts: SpeechModel, folder: str | Path, dtype: torch.dtype) -> None:
    """Give the modules of `tts` (built on the meta device) the tensors of `folder`, in `dtype`.

    The speaker encoder stays float32. AudioProjectionError names tensors that are missing, misshapen or unknown.
    """
    files = TensorFolder(folder)
    sources = {name: source(name, tuple(value.shape), tts.config) for name, value in _weights(tts)}
    if tts.config.talker.tied and CODEC_HEAD not in files.names():
        sources["talker.codec_head.weight"] = sources["talker.codec_embedding.weight"]
    check_tensors({name: shape for origin in sources.values() for name, shape in origin.parts}, files)
    state: dict[str, Tensor] = {}
    for name, origin in sources.items():
        kept = torch.float32 if name.startswith("speaker_encoder.") else dtype
        state[name] = origin.join([files.tensor(part).to(kept) for part, _ in origin.parts])
    for owner, module in _owners(tts):
        own = {name.removeprefix(f"{owner}."): value for name, value in state.items() if name.startswith(f"{owner}.")}
        module.load_state_dict(own, assign=True)


def official_state_dict(tts: SpeechModel) -> dict[str, Tensor]:
    """All weights but the codec's under their official names and in their official shapes, detached.

    What `save_file(..., 'model.safetensors')` needs for a folder that the official package loads.
    """
    state: dict[str, Tensor] = {}
    for name, value in _weights(tts):
        state |= source(name, tuple(value.shape), tts.config).split(value.detach())
    return state


def _owners(tts: SpeechModel) -> list[tuple[str, nn.Module]]:
    owners: list[tuple[str, nn.Module]] = [("talker", tts.talker), ("code_predictor", tts.code_predictor)]
    if tts.speaker_encoder is not None:
        owners.append(("speaker_encoder", tts.speaker_encoder))
    return owners


def _weights(tts: SpeechModel) -> Iterator[tuple[str, Tensor]]:
    for owner, module in _owners(tts):
        for name, value in module.state_dict().items():
            yield f"{owner}.{name}", value
