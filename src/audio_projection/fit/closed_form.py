"""The projector without audio: a closed-form regression from LLM states to the TTS's own text rows.

Both vocabularies are frozen, so the row that each token should give is known. The linear kind is
activation(gain * n + bias) with n the standardised W h + b; a row is carried back through that chain: its pre-image
under the activation, freed of each channel's mean and scale, then standardised over the channels. W and b are a ridge
regression to that, gain and bias the least-squares line of each channel's pre-image on n.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audio_projection.alignment.token_states import TokenStates, stream_token_states
from audio_projection.data.speakers import named_speaker
from audio_projection.data_loader import transcripts_to_fit
from audio_projection.fit.assemble import assemble
from audio_projection.fit.ridge import (
    Reserve,
    RidgeFit,
    Split,
    channel_lines,
    embedding_table,
    nearest_embedding_accuracy,
    pre_image,
    r_squared,
    standardise,
)
from audio_projection.models import load_tts
from audio_projection.projector import LinearProjector, Projector

if TYPE_CHECKING:
    from audio_projection.config import Config, FitConfig
    from audio_projection.llm.language_model import LanguageModel
    from audio_projection.tts.model import Qwen3TTS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitReport:
    """What a fit reached, on texts that it never saw. R2 is over all channels, after the activation."""

    activation: str
    tokens: int  # text tokens in the regression
    held_out_tokens: int
    ridge: float
    r2: float
    nearest_row: float  # share of the held-out tokens whose own row is the nearest of all rows met

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"R2 {self.r2:.3f} after the activation ({self.activation}) and the nearest row right for "
            f"{self.nearest_row:.1%} of {self.held_out_tokens} held-out tokens "
            f"(ridge {self.ridge:g}, {self.tokens} tokens)"
        )


def run_fit(config: Config) -> Path:
    """Fits the projector that a configuration names and saves it; returns its folder.

    A base model's voice comes from recordings: a projector that is only fitted has none, and is spoken with
    a reference recording.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    tts = load_tts(config)
    texts = transcripts_to_fit(config)
    parts = assemble(config, tts, texts)
    fit_projector(config.fit, parts.llm, tts, parts.projector, texts)
    parts.projector.set_voice(None if tts.config.kind == "base" else named_speaker(config.tts, tts))
    folder = parts.projector.save_pretrained(config.trained_projector)
    log.info("fit: the projector is in %s", folder)
    return folder


@torch.no_grad()
def fit_projector(
    settings: FitConfig, llm: LanguageModel, tts: Qwen3TTS, projector: Projector, texts: Sequence[str]
) -> FitReport | None:
    """Fits `projector` in place to the TTS's own text rows, from texts alone.

    The residual kind needs no fit (g = 0 IS the plain text): that is logged and None returned.
    Raises AudioProjectionError when there are too few texts.
    """
    if not isinstance(projector, LinearProjector):
        log.info("fit: a %s projector starts as plain text (g = 0); nothing to fit", projector.kind)
        return None
    split = Split(len(set(texts)), settings)
    report = fit_linear(projector, stream_token_states(llm, tts, texts, settings.batch), split, settings.ridges)
    projector.info.measurements["fit"] = report.to_json()
    log.info("fit: %s", report)
    return report


@torch.no_grad()
def fit_linear(
    projector: LinearProjector, pairs: Iterable[tuple[str, TokenStates]], split: Split, ridges: Sequence[float]
) -> FitReport:
    """The closed form, in place; the ridge is the one with the best R2 on the calibration texts.

    Gain and bias give each channel its scale and mean, so the targets are freed of both (as far as the calibration
    texts tell them) before they are standardised.
    """
    activation, device = projector.info.activation, projector.linear.weight.device
    equations = RidgeFit(projector.info.llm_size, projector.info.tts_size, device)
    channels: tuple[Tensor, Tensor] | None = None
    for features in split.stream(pairs):
        channels = channels or _channel_moments(pre_image(split.calibration.stacked()[1], activation))
        targets = standardise((pre_image(features.text_embeddings, activation) - channels[0]) / channels[1])
        equations.add(projector.mixed(features.states.to(device)), targets, torch.tensor(features.ids))
    ridge = _choose_ridge(projector, equations, _moved(split.calibration, device), ridges)
    states, rows, ids = _moved(split.held_out, device)
    predicted = projector(states, rows)
    return FitReport(
        activation=activation,
        tokens=split.tokens,
        held_out_tokens=len(ids),
        ridge=ridge,
        r2=r_squared(predicted, rows),
        nearest_row=nearest_embedding_accuracy(predicted, ids, *embedding_table(split.table)),
    )


def _channel_moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """mean (H,) and deviation (H,) of each channel of (N, H); a channel without any has 1."""
    mean, deviation = rows.mean(0), rows.std(0, correction=0)
    return mean, torch.where(deviation > 1e-6, deviation, 1.0)


def _choose_ridge(
    projector: LinearProjector,
    equations: RidgeFit,
    calibration: tuple[Tensor, Tensor, Tensor],
    ridges: Sequence[float],
) -> float:
    """Leaves the best solution in the projector and returns its ridge."""
    states, rows, _ = calibration

    def judge(weight: Tensor, bias: Tensor) -> float:
        _apply_solution(projector, weight, bias, states, rows)
        return r_squared(projector(states, rows), rows)

    ridge, weight, bias = equations.best(ridges, judge)
    _apply_solution(projector, weight, bias, states, rows)
    return ridge


def _apply_solution(projector: LinearProjector, weight: Tensor, bias: Tensor, states: Tensor, rows: Tensor) -> None:
    projector.linear.weight.copy_(weight)
    projector.linear.bias.copy_(bias)
    normalised = standardise(projector.linear(projector.mixed(states)))
    gain, offset = channel_lines(normalised, pre_image(rows, projector.info.activation))
    projector.norm.weight.copy_(gain)
    projector.norm.bias.copy_(offset)


def _moved(reserve: Reserve, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    states, rows, ids = reserve.stacked()
    return states.to(device), rows.to(device), ids.to(device)
