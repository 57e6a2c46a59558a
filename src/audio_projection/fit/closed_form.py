"""Fits a linear projector without audio: ridge regression from LLM hidden states to the TTS's text embeddings.

The TTS's text embeddings are frozen, so the target of each token is known. The linear kind is activation(gain * n +
bias) with n the standardised W h + b; the targets are taken back through that chain: their pre-image under the
activation, without each channel's mean and scale, then standardised over the channels. W and b are a ridge regression
to that; gain and bias are the least-squares line of each channel's pre-image on n. Of the mlp kind the last linear map
is solved for; the refinement trains the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from audio_projection.alignment.token_states import TokenStates, stream_token_states
from audio_projection.data.speakers import named_speaker
from audio_projection.data_loader import check_data, transcripts_to_fit
from audio_projection.errors import AudioProjectionError
from audio_projection.files.interruption import Interrupted
from audio_projection.files.locations import is_projector
from audio_projection.files.lock import folder_lock
from audio_projection.files.progress import shown
from audio_projection.fit.assemble import assemble
from audio_projection.fit.compatibility import compare
from audio_projection.fit.refine import TokenPool, refine_fitted
from audio_projection.fit.report import FitReport
from audio_projection.fit.ridge import (
    RidgeFit,
    Split,
    channel_lines,
    pre_image,
    r_squared,
    standardise,
)
from audio_projection.models import check_layers, load_tts, use_threads
from audio_projection.projector import LinearProjector, MLPProjector, Projector

if TYPE_CHECKING:
    from audio_projection.config import Config, FitConfig
    from audio_projection.llm.language_model import LanguageModel
    from audio_projection.tts.model import Qwen3TTS

log = logging.getLogger(__name__)


def run_fit(config: Config) -> Path:
    """Fits the projector of a configuration from texts alone and saves it; returns its folder.

    A base TTS takes its voice from recordings: a projector that is fitted but not trained stores none, so speaking
    needs a reference recording. Raises AudioProjectionError for missing models or too few texts.
    """
    use_threads(config.threads)
    check_layers(config)
    _check_untrained(config)
    check_data(config.data)
    with folder_lock(config.run_dir):
        try:
            return _fitted(config)
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; nothing was replaced: the same command begins again, the probe is kept"
            ) from None


def _fitted(config: Config) -> Path:
    log.info("fit: loading the speech model %s", config.tts.name)
    tts = load_tts(config)
    texts = transcripts_to_fit(config)
    models = assemble(config, tts, texts)
    measurements = models.projector.info.measurements
    report = compare(models.llm, tts, texts, measurements.get("probe", {}))
    for line in report.lines():
        log.info(line)
    measurements["compatibility"] = report.to_json()
    fit_projector(config.fit, models.llm, tts, models.projector, texts)
    models.projector.set_voice(None if tts.config.kind == "base" else named_speaker(config.tts, tts))
    return models.projector.save_pretrained(config.trained_projector)


def _check_untrained(config: Config) -> None:
    """Raises AudioProjectionError where a fit would replace a projector that was trained."""
    folder = config.trained_projector
    steps = Projector.from_pretrained(folder).info.steps if is_projector(folder) else 0
    if steps or any((config.run_dir / "checkpoints").glob("step-*")):
        held = f"a projector that was trained for {steps} steps" if steps else "a training run"
        raise AudioProjectionError(
            f"{config.run_dir} holds {held}, which a fit would replace: give another folder with output_dir=..., or "
            "delete that one"
        )


@torch.no_grad()
def fit_projector(
    settings: FitConfig, llm: LanguageModel, tts: Qwen3TTS, projector: Projector, texts: Sequence[str]
) -> FitReport | None:
    """Fits `projector` in place to the TTS's own text embeddings, from texts alone.

    The residual kind needs no fit (with g = 0 it gives the text embeddings): that is logged and None is returned.
    With `fit.refine`, and always for the mlp kind, a softmax over text embeddings follows the ridge regression. Raises
    AudioProjectionError when there are too few texts.
    """
    if not isinstance(projector, LinearProjector | MLPProjector):
        log.info("fit: a %s projector starts as plain text (g = 0); nothing to fit", projector.kind)
        return None
    refined = settings.refine == "softmax" or isinstance(projector, MLPProjector)
    split = Split(len(set(texts)), settings)
    stream = shown(stream_token_states(llm, tts, texts, settings.batch), "fitting the projector", len(texts))
    pool = TokenPool(settings.refine_tokens if refined else 0)
    if isinstance(projector, LinearProjector):
        report = fit_linear(projector, stream, split, settings.ridges, pool)
    else:
        report = fit_mlp(projector, stream, split, settings.ridges, pool)
    if refined:
        rows = tts.text_embeddings, tts.config.talker.text_vocab_size
        report = replace(report, refined=refine_fitted(projector, pool, split, *rows, settings.refine_steps))
    projector.info.measurements["fit"] = report.to_json()
    log.info("fit: %s", report)
    return report


@torch.no_grad()
def fit_linear(
    projector: LinearProjector,
    pairs: Iterable[tuple[str, TokenStates]],
    split: Split,
    ridges: Sequence[float],
    pool: TokenPool,
) -> FitReport:
    """Solves the closed form in place, with the ridge strength that has the best R2 on the calibration texts.

    Tokens that are fitted on go into `pool` too, while it has room.
    Gain and bias give each channel its scale and mean, so both (as estimated on the calibration texts) are taken out
    of the targets before these are standardised.
    """
    activation, device = projector.info.activation, projector.linear.weight.device
    equations = RidgeFit(projector.input_size, projector.info.tts_size, device)
    channels: tuple[Tensor, Tensor] | None = None
    for tokens in split.stream(pairs):
        channels = channels or _channel_moments(pre_image(split.calibration.stacked()[1], activation))
        targets = standardise((pre_image(tokens.text_embeddings, activation) - channels[0]) / channels[1])
        pool.add(tokens.states, tokens.ids)
        equations.add(projector.mixed(tokens.states.to(device)), targets, torch.tensor(tokens.ids))
    states, embeddings, _ = calibration = split.calibration.moved(device)

    def apply(weight: Tensor, bias: Tensor) -> None:
        projector.linear.weight.copy_(weight)
        projector.linear.bias.copy_(bias)
        normalised = standardise(projector.linear(projector.mixed(states)))
        gain, offset = channel_lines(normalised, pre_image(embeddings, activation))
        projector.norm.weight.copy_(gain)
        projector.norm.bias.copy_(offset)

    return FitReport.measure(projector, split, _choose_ridge(projector, equations, calibration, ridges, apply))


@torch.no_grad()
def fit_mlp(
    projector: MLPProjector,
    pairs: Iterable[tuple[str, TokenStates]],
    split: Split,
    ridges: Sequence[float],
    pool: TokenPool,
) -> FitReport:
    """Solves for the last linear map in place, the first one left random: where its refinement begins.

    Tokens that are fitted on go into `pool` too, while it has room.
    """
    device = projector.linear.weight.device
    equations = RidgeFit(projector.output.in_features, projector.info.tts_size, device)
    for tokens in split.stream(pairs):
        pool.add(tokens.states, tokens.ids)
        features = projector.features(tokens.states.to(device))
        equations.add(features, tokens.text_embeddings, torch.tensor(tokens.ids))

    def apply(weight: Tensor, bias: Tensor) -> None:
        projector.output.weight.copy_(weight)
        projector.output.bias.copy_(bias)

    calibration = split.calibration.moved(device)
    return FitReport.measure(projector, split, _choose_ridge(projector, equations, calibration, ridges, apply))


def _channel_moments(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """mean (H,) and standard deviation (H,) of each channel of (N, H); the deviation of a constant channel is 1."""
    mean, deviation = embeddings.mean(0), embeddings.std(0, correction=0)
    return mean, torch.where(deviation > 1e-6, deviation, 1.0)


def _choose_ridge(
    projector: Projector,
    equations: RidgeFit,
    calibration: tuple[Tensor, Tensor, Tensor],
    ridges: Sequence[float],
    apply: Callable[[Tensor, Tensor], None],
) -> float:
    """Writes the solution with the best R2 on the calibration tokens into the projector by `apply`; its ridge."""
    states, embeddings, _ = calibration

    def score(weight: Tensor, bias: Tensor) -> float:
        apply(weight, bias)
        return r_squared(projector(states, embeddings), embeddings)

    ridge, weight, bias = equations.best(ridges, score)
    apply(weight, bias)
    return ridge
