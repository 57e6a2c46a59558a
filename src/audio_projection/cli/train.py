"""`audio-projection train` and `fit`: the projector trained on audio tokens, or fitted from text alone."""

from __future__ import annotations

import logging

import typer

from audio_projection.cli import options
from audio_projection.cli.settings import load_settings
from audio_projection.config import Config, ProjectorKind
from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import check_for_fitting, check_for_training, check_trainable

log = logging.getLogger(__name__)


def train(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    projector: options.ProjectorKind = None,
    resume: options.Resume = True,
    dry_run: options.DryRun = False,
    device: options.Device = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
) -> None:
    """Train the projector: the closed-form fit, then next-token losses on audio tokens through the frozen TTS.

    \b
    Examples:
      train --config default --dry-run
      train --config nano train.steps=50
      train --config nano --projector residual --no-resume
      train --config nano train.loss.distill=1 train.loss.rows=0.1 train.sample_every=50
      train --config nano tts.finetune=lora train.tensorboard=true
    """
    settings = _training_settings(config, overrides, projector, device, seed, threads)
    check_trainable(settings.tts)
    if dry_run:
        from audio_projection.training.estimates.dry_run import describe

        typer.echo(describe(settings))
        return
    check_for_training(settings)
    log.info("train: the run is in %s; loading the libraries", settings.run_dir)
    from audio_projection.train import run_training

    outcome = run_training(settings, resume=resume)
    typer.echo(outcome)
    if outcome.interrupted:
        raise typer.Exit(130)


def fit(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    projector: options.ProjectorKind = None,
    device: options.Device = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
) -> None:
    """Fit the projector in closed form, from text alone.

    \b
    Example:
      fit --config nano fit.tokens=20000
    """
    settings = _training_settings(config, overrides, projector, device, seed, threads)
    check_for_fitting(settings)
    log.info("fit: the projector goes to %s; loading the libraries", settings.trained_projector)
    from audio_projection.fit.closed_form import run_fit

    typer.echo(f"the projector is in {run_fit(settings)}")


def _training_settings(
    config: str,
    overrides: list[str] | None,
    projector: ProjectorKind | None,
    device: str | None,
    seed: int | None,
    threads: int | None,
) -> Config:
    chosen = {"projector.kind": projector, "device": device, "seed": seed, "threads": threads}
    settings = load_settings(config, overrides, chosen)
    if settings.projector.path is not None:
        raise AudioProjectionError(
            "projector.path is for speaking and has no meaning here: to begin a training from that projector set "
            f"train.start={settings.projector.path}"
        )
    return settings
