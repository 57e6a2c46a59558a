"""FLOPs (floating-point operations) of a fit and a training run, and their time on known GPUs.

Counted are matrix products with weights, two FLOPs for each weight and position. A part with a forward pass alone
takes one product; a frozen part with a backward pass takes two (forward, and the gradient of its input; frozen weights
have no gradient); a trained part takes three. Left out are attention scores (a few per cent at these lengths), norms
and the codec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from audio_projection.fit.refine import BATCH, RIVALS
from audio_projection.projector import Projector

if TYPE_CHECKING:
    from audio_projection.config import Config, TTSConfig

PEAKS = {"H100 or H200": 989e12, "A100": 312e12, "RTX 4090": 165e12}
"""Dense bfloat16 FLOP/s, as the maker states them."""
REACHED = 0.4
"""Assumed share of the peak that a step reaches (model FLOPs utilisation); benchmarks/training_step.py measures it."""
FORWARD, THROUGH, LEARNING = 1, 2, 3
"""Products for each weight and position: forward alone, with a backward pass through it, with its own gradient too."""
PREFIX = 11
"""Talker positions before text and frames: role, language, voice, begin tokens."""


@dataclass(frozen=True)
class LLMSizes:
    """Sizes of an LLM: hidden size, number of layers, of parameters, and of rows in its embedding matrix."""

    hidden: int
    layers: int
    parameters: int
    vocabulary: int
    tied: bool = False  # the output head is the embedding matrix

    def reading(self, layer: int) -> int:
        """Parameters that reading up to a layer needs: the embeddings and the layers below, no output head."""
        table = self.vocabulary * self.hidden
        inside = self.parameters - table * (1 if self.tied else 2)
        return table + inside * max(layer, 1) // self.layers

    def up_to(self, layer: int) -> float:
        """Parameters that a token passes up to a layer, roughly: embedding and output matrices count as layers."""
        return self.parameters * layer / self.layers


@dataclass(frozen=True)
class StackSizes:
    """Sizes of a decoder stack; `query` and `key` are heads times head size (values are as large as keys)."""

    hidden: int
    layers: int
    intermediate: int
    query: int
    key: int


@dataclass(frozen=True)
class TTSSizes:
    """Sizes of a Qwen3-TTS; the numbers from `parameters` on count parameters."""

    talker: StackSizes
    predictor: StackSizes
    vocabulary: int  # of the text
    codes: int  # of the talker, special ones among them
    predictor_codes: int
    code_groups: int
    parameters: int  # without the codec
    codec_parameters: int
    talker_stack: int  # the talker's transformer alone
    predictor_stack: int  # the code predictor's transformer alone
    lora: int  # LoRA of rank 1 on the talker

    @property
    def hidden(self) -> int:
        """Size of a text embedding and of a talker state."""
        return self.talker.hidden

    def finetuned(self, settings: TTSConfig) -> int:
        """Number of parameters that `tts.finetune` trains."""
        return {"none": 0, "lora": self.lora * settings.lora_rank, "full": self.talker_stack}[settings.finetune]


@dataclass(frozen=True)
class SpeechAmount:
    """Amount of speech that passes through the models: utterances, and their text tokens and frames in total."""

    utterances: float
    tokens: float
    frames: float


def refines(config: Config) -> bool:
    """Whether the fit ends with the refinement."""
    return config.projector.kind == "mlp" or (config.projector.kind == "linear" and config.fit.refine != "none")


def fit_flops(config: Config, llm: LLMSizes, tts: TTSSizes, layer: int, projector: Projector) -> float:
    """FLOPs of the fit: LLM states up to `layer`, the normal equations, and the products of the refinement."""
    if config.projector.kind == "residual":
        return 0.0
    inputs = projector.info.hidden or projector.input_size  # of the regression
    solved = 2.0 * config.fit.tokens * (llm.up_to(layer) + inputs * (inputs + tts.hidden))
    if not refines(config):
        return solved
    products = THROUGH * (projector.parameter_count + tts.hidden * (RIVALS + BATCH))
    return solved + 2.0 * config.fit.refine_steps * BATCH * products


def training_flops(
    config: Config, llm: LLMSizes, tts: TTSSizes, layer: int, trained: int, seen: SpeechAmount
) -> dict[str, float]:
    """FLOPs of the training on `seen`, by model; `trained` is the number of the projector's parameters."""
    loss = config.train.loss
    talker = THROUGH if config.tts.finetune == "none" else LEARNING
    if config.train.activation_checkpointing:
        talker += FORWARD
    if loss.distill or loss.distill_states:
        talker += FORWARD  # the teacher
    through = loss.talker or loss.distill or loss.distill_states or loss.predictor or loss.perceptual
    positions = PREFIX * seen.utterances + seen.tokens + seen.frames
    predicted = tts.code_groups * (config.train.predictor_share * seen.frames if loss.predictor else 0.0)
    return {
        "LLM": 2.0 * llm.up_to(layer) * seen.tokens,
        "projector": 2.0 * THROUGH * trained * seen.tokens,  # its input needs no gradient
        "talker": 2.0 * talker * tts.talker_stack * positions if through else 0.0,
        "code predictor": 2.0 * THROUGH * tts.predictor_stack * predicted,
    }


def hours(flops: float, peak: float) -> float:
    """Time of so many FLOPs on a GPU of `peak` FLOP/s."""
    return flops / (REACHED * peak) / 3600
