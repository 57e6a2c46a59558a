"""GPU memory of a fit and a training run at its two peaks, part by part, and which GPUs have it.

What a decoder layer keeps for the backward pass is counted by tensor; `benchmarks/training_memory.py` compares the sum
with runs. Frozen weights have neither gradient nor optimizer state, and what is multiplied with them is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audio_projection.fit.layer_probe import probe_memory
from audio_projection.fit.refine import refine_memory
from audio_projection.fit.ridge import reserve_memory, ridge_memory
from audio_projection.llm.hidden_states import layers_to_probe
from audio_projection.projector import Projector
from audio_projection.training.estimates.flops import LLMSizes, StackSizes, TTSSizes, refines

if TYPE_CHECKING:
    from audio_projection.config import Config

GPUS = {24: "RTX 3090 or 4090", 48: "RTX 6000 or L40S", 80: "A100 or H100"}
"""Sizes of usual GPUs in GiB."""
RESERVE = 1e9
"""Bytes that a GPU needs besides: CUDA's context, workspaces, and what the allocator cannot use."""
_QUANTISED = {"none": None, "8bit": 1.0, "4bit": 0.57}
"""Bytes for each weight of a layer; 4 bit: with a scale for each block of 64."""


@dataclass(frozen=True)
class Batch:
    """The longest micro-batch: utterances, and of each its text tokens, frames and talker positions."""

    utterances: int
    tokens: int
    frames: int
    positions: int


@dataclass(frozen=True)
class Peaks:
    """Bytes by part while the projector is fitted, and while it is trained."""

    fitting: Mapping[str, float]
    training: Mapping[str, float]

    @property
    def total(self) -> float:
        """The larger of the two sums."""
        return max(sum(self.fitting.values()), sum(self.training.values()))


def fits(total: float, gigabytes: int) -> bool:
    """Whether a run of `total` bytes fits a GPU of that many GiB."""
    return total + RESERVE <= gigabytes * 2**30


def memory_peaks(
    config: Config,
    llm: LLMSizes,
    tts: TTSSizes,
    projector: Projector,
    batch: Batch,
    texts: int | None,
    cached: bool,
) -> Peaks:
    """`texts`: tokens of all training texts, if known; `cached`: their states are on the disk. With `llm.layers=probe`
    the projector is that of the deepest candidate."""
    layers = projector.info.layers
    bf16 = _dtype_width(config.tts.dtype, config.device) == 2
    computes_bf16 = bf16 or config.train.precision == "bf16"
    speech = float((2 if bf16 else 4) * tts.parameters + 4 * tts.codec_parameters)
    probing = config.llm.layers == "probe"
    candidates = layers_to_probe(config.fit.probe_layers, llm.layers) if probing else []
    held = 4.0 * (texts or 0) * (len(layers) * llm.hidden + tts.hidden)
    in_memory = not cached and texts is not None and held <= config.train.states_memory * 1e9
    reads = not (in_memory or cached) or config.train.sample_every is not None
    fitting = {
        "LLM weights": _llm_bytes(config, llm, max(layers)),
        "TTS weights": speech,
        "probe of the layers": probe_memory(len(candidates), llm.hidden, tts.hidden) if probing else 0.0,
        "normal equations": _fit_bytes(projector, refines(config)) if config.projector.kind != "residual" else 0.0,
        "text embeddings of the tokens met": 8.0 * tts.hidden * min(config.fit.tokens, tts.vocabulary),
    }
    if probing:  # one after the other
        fitting["normal equations"] = max(0.0, fitting["normal equations"] - fitting["probe of the layers"])
    training = {
        "LLM weights": _llm_bytes(config, llm, max(layers)) if reads else 0.0,
        "TTS weights": speech,
        "projector, gradient, Adam moments": 16.0 * projector.parameter_count,
        "the same of the fine-tuned talker": 16.0 * tts.finetuned(config.tts),
        "bfloat16 copies of the talker's weights": 2.0 * tts.talker_stack * (computes_bf16 and not bf16),
        "LLM states in memory": held if in_memory else 0.0,
        "activations of the talker": _talker_activations(config, tts, batch, computes_bf16),
        "activations of the code predictor": _predictor_activations(config, tts, batch, computes_bf16),
    }
    return Peaks(*({name: float(size) for name, size in part.items() if size} for part in (fitting, training)))


def stack_activations(stack: StackSizes, bf16: bool) -> int:
    """Bytes that one frozen layer keeps for its backward pass, for each position.

    Inputs of the two norms and of the query and key norms; query, key, value and output of the attention; gate, its
    activation and up. The norms compute in float32, and their inputs are kept so.
    """
    normed = 2 * stack.hidden + stack.query + stack.key
    others = 2 * (stack.query + stack.key) + 3 * stack.intermediate
    return 4 * normed + 2 * (stack.query + stack.key) + 2 * others if bf16 else 4 * (normed + others)


def _fit_bytes(projector: Projector, refined: bool) -> int:
    """The fit: its equations or, when they are solved, its refinement; and the states kept aside."""
    info = projector.info
    solving = ridge_memory(info.hidden or projector.input_size, info.tts_size)
    refining = refine_memory(projector.parameter_count, projector.input_size, info.tts_size) if refined else 0
    return max(solving, refining) + reserve_memory(len(info.layers) * info.llm_size)


def _talker_activations(config: Config, tts: TTSSizes, batch: Batch, bf16: bool) -> float:
    layer = stack_activations(tts.talker, bf16)
    positions = batch.utterances * batch.positions
    # states, their logits and the logits' log-probabilities
    last = batch.utterances * (batch.frames + 1) * (8 * tts.hidden + 4 * 2 * tts.codes)
    if config.train.activation_checkpointing:
        width = 2 if bf16 else 4
        return float(positions * (tts.talker.layers * width * tts.hidden + layer) + last)
    return float(positions * tts.talker.layers * layer + last)


def _predictor_activations(config: Config, tts: TTSSizes, batch: Batch, bf16: bool) -> float:
    if not config.train.loss.predictor:
        return 0.0
    frames = config.train.predictor_share * batch.utterances * batch.frames
    layers = tts.predictor.layers * stack_activations(tts.predictor, bf16)
    return float(frames * (tts.code_groups * layers + 7 * (tts.code_groups - 1) * tts.predictor_codes))


def _llm_bytes(config: Config, llm: LLMSizes, layer: int) -> float:
    """On the GPU, without the output head and the layers above; llama.cpp keeps its weights in main memory."""
    if config.llm.by_llama_cpp:
        return 0.0
    width = 4 if config.llm.dtype == "float32" or (config.llm.dtype == "auto" and config.device == "cpu") else 2
    table = llm.vocabulary * llm.hidden
    inside = llm.reading(layer) - table
    return float(width * table + (_QUANTISED[config.llm.quantise] or width) * inside)


def _dtype_width(dtype: str, device: str) -> int:
    return 4 if dtype == "float32" or (dtype == "auto" and device == "cpu") else 2
