"""Conversion between official checkpoint tensors and the modules' parameters, with strict checks.

Some official tensors are fused in the modules (query, key and value; gate and up; the code predictor's embeddings and
heads); `official_state_dict` splits them again. Every tensor must be present and of its shape, and none unknown.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from audio_projection.files.tensor_folder import Shape, TensorFolder, check_tensors
from audio_projection.tts.config import Qwen3TTSConfig, TransformerConfig
from audio_projection.tts.interface import SpeechModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Names and shapes of the official tensors that make up one parameter: concatenated on dimension 0, or stacked."""

    parts: tuple[tuple[str, Shape], ...]
    stacked: bool = False

    def join(self, tensors: list[Tensor]) -> Tensor:
        """The parameter, from the official tensors in the order of `parts`."""
        if self.stacked:
            return torch.stack(tensors)
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """The official tensors by name, from the parameter."""
        pieces = tensor.unbind() if self.stacked else tensor.split([shape[0] for _, shape in self.parts])
        return {name: piece.contiguous() for (name, _), piece in zip(self.parts, pieces, strict=True)}


_RENAMED = (
    (r"^talker\.transformer\.", "talker.model."),
    (r"^talker\.(codec|text)_embedding\.", r"talker.model.\1_embedding."),
    (r"^code_predictor\.transformer\.", "talker.code_predictor.model."),
    (r"^code_predictor\.codec_embedding$", "talker.code_predictor.model.codec_embedding"),
    (r"^code_predictor\.", "talker.code_predictor."),
)
_CODEC_HEAD = "talker.codec_head.weight"
_SPEAKER_ENCODER = "speaker_encoder."
_EXPANDING = ("qkv_proj.weight", "gate_up_proj.weight", "codec_head.weight", "lm_head")


def source(name: str, shape: Shape, config: Qwen3TTSConfig) -> Source:
    """The official tensors of the parameter `name` of a `Qwen3TTS`, which has this `shape`."""
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
    """For each fused matrix the official ones and how many rows each has."""
    queries, keys = stack.num_heads * stack.head_dim, stack.num_kv_heads * stack.head_dim
    return {
        "qkv_proj": {"q_proj": queries, "k_proj": keys, "v_proj": keys},
        "gate_up_proj": {"gate_proj": stack.intermediate_size, "up_proj": stack.intermediate_size},
    }


def load_weights(tts: SpeechModel, folder: str | Path, dtype: torch.dtype) -> None:
    """Loads the tensors of `folder` in `dtype` into the modules of `tts`, which may be on the meta device.

    The speaker encoder stays float32. AudioProjectionError names tensors that are missing, misshapen or unknown.
    """
    files = TensorFolder(folder)
    sources = {name: source(name, tuple(value.shape), tts.config) for name, value in _weights(tts)}
    if tts.config.talker.tied and _CODEC_HEAD not in files.names():
        sources[_CODEC_HEAD] = sources["talker.codec_embedding.weight"]
    others = _SPEAKER_ENCODER if tts.speaker_encoder is None else None
    if others is not None and any(name.startswith(others) for name in files.names()):
        kind = tts.config.kind
        log.info("%s: its speaker encoder is not used: a %s model takes no voice from a recording", folder, kind)
    check_tensors({name: shape for origin in sources.values() for name, shape in origin.parts}, files, others)
    state: dict[str, Tensor] = {}
    for name, origin in sources.items():
        kept = torch.float32 if name.startswith(_SPEAKER_ENCODER) else dtype
        state[name] = _laid_out(name, origin.join([files.tensor(part).to(kept) for part, _ in origin.parts]))
    for owner, module in _owners(tts):
        own = {name.removeprefix(f"{owner}."): value for name, value in state.items() if name.startswith(f"{owner}.")}
        module.load_state_dict(own, assign=True)


def _laid_out(name: str, value: Tensor) -> Tensor:
    """The matrices that give more numbers than they take, column by column in memory: a CPU multiplies one position, or
    a few, by them in little more than half the time. Shape and values stay."""
    if value.dtype != torch.float32 or not name.endswith(_EXPANDING):
        return value
    return value.transpose(-1, -2).contiguous().transpose(-1, -2)


def official_state_dict(tts: SpeechModel) -> dict[str, Tensor]:
    """All weights except the codec's under their official names and in their official shapes, detached.

    Saved as model.safetensors they make a folder that the official package loads.
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
    """Names and values of all weights of `tts` except the codec's."""
    for owner, module in _owners(tts):
        for name, value in module.state_dict().items():
            yield f"{owner}.{name}", value
