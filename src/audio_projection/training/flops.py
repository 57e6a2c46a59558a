"""How many floating-point operations a training run takes, and how long that is on known GPUs.

Counted are products with weights, two operations for each weight and position: a frozen part that passes activations
on costs one product (forward), one through which the gradient comes back two (forward and the gradient of its input;
weights that are not trained have none), one that learns three. Attention over earlier positions, a few per cent at
these lengths, norms and the codec are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audio_projection.config import Config

PEAKS = {"H100 or H200": 989e12, "A100": 312e12, "RTX 4090": 165e12}
"""Dense bfloat16 operations a second, as their maker states them."""
REACHED = 0.4
"""Share of the peak that a step is taken to reach; benchmarks/training_step.py measures it."""
FORWARD, THROUGH, LEARNING = 1, 2, 3
PREFIX = 11
"""Positions before text and frames: role, language, voice, beginnings."""


@dataclass(frozen=True)
class LLMSizes:
    """Of a language model: width of a state, layers, all parameters."""

    hidden: int
    layers: int
    parameters: int

    def up_to(self, layer: int) -> float:
        """Parameters that a token goes through up to a layer, roughly: the tables are counted as layers."""
        return self.parameters * layer / self.layers


@dataclass(frozen=True)
class TTSSizes:
    """Of a Qwen3-TTS: width of a text row, talker layers and their inner width, parameters without and of the codec,
    those of the two decoder stacks alone, and those of LoRA of rank 1 on the talker."""

    hidden: int
    layers: int
    intermediate: int
    code_groups: int
    parameters: int
    codec_parameters: int
    talker_stack: int
    predictor_stack: int
    lora: int

    def finetuned(self, config: Config) -> int:
        """Parameters that `tts.finetune` trains."""
        return {"none": 0, "lora": self.lora * config.tts.lora_rank, "full": self.talker_stack}[config.tts.finetune]


@dataclass(frozen=True)
class SpeechAmount:
    """What is passed through the models: utterances with their text tokens and frames, in sum."""

    utterances: float
    tokens: float
    frames: float


def fit_operations(config: Config, llm: LLMSizes, tts: TTSSizes, layer: int) -> float:
    """Of the closed form: the states and the normal equations."""
    if config.projector.kind != "linear":
        return 0.0
    tokens = config.fit.tokens
    return 2.0 * tokens * (llm.up_to(layer) + llm.hidden * (llm.hidden + tts.hidden))


def step_operations(
    config: Config, llm: LLMSizes, tts: TTSSizes, layer: int, trained: int, seen: SpeechAmount
) -> dict[str, float]:
    """Of the training on `seen`, by part; `trained` are the projector's parameters."""
    loss = config.train.loss
    talker = THROUGH if config.tts.finetune == "none" else LEARNING
    if config.train.activation_checkpointing:
        talker += FORWARD
    if loss.distill or loss.distill_states:
        talker += FORWARD  # the teacher
    through = loss.talker or loss.distill or loss.distill_states or loss.predictor or loss.perceptual
    positions = PREFIX * seen.utterances + seen.tokens + seen.frames
    asked = tts.code_groups * (config.train.predictor_share * seen.frames if loss.predictor else 0.0)
    return {
        "LLM": 2.0 * llm.up_to(layer) * seen.tokens,
        "projector": 2.0 * THROUGH * trained * seen.tokens,  # its input needs no gradient
        "talker": 2.0 * talker * tts.talker_stack * positions if through else 0.0,
        "code predictor": 2.0 * THROUGH * tts.predictor_stack * asked,
    }


def hours(operations: float, peak: float) -> float:
    return operations / (REACHED * peak) / 3600
