"""`audio-projection evaluate` and `robustness`: what a recogniser understands, and what goes astray."""

from __future__ import annotations

from audio_projection.cli import options
from audio_projection.cli.settings import load_settings


def evaluate(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    sentences: options.Sentences = None,
    row: options.Rows = None,
    output: options.SoundFolder = None,
    limit: options.Limit = None,
    jobs: options.Jobs = 2,
    device: options.Device = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
) -> None:
    """Measure how well the speech is understood: word error rates of the projectors beside their controls.

    \b
    Examples:
      evaluate --config configs/nano.yaml --output runs/evaluation
      evaluate --config configs/nano.yaml --limit 20 --row teacher --row plain --row runs/nano/linear/projector
    """
    settings = load_settings(config, overrides, {"device": device, "seed": seed, "threads": threads})
    from audio_projection.evaluation.evaluate import ROWS, run

    run(settings, sentences, row or ROWS, output, jobs, limit)


def robustness(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    sentences: options.Sentences = None,
    row: options.Rows = None,
    output: options.SoundFolder = None,
    limit: options.Limit = None,
    device: options.Device = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
) -> None:
    """Count the sentences that miss their end, are far too long, or leave out or repeat a part.

    \b
    Example:
      robustness --config configs/nano.yaml --output runs/robustness
    """
    settings = load_settings(config, overrides, {"device": device, "seed": seed, "threads": threads})
    from audio_projection.evaluation.robustness import ROWS, run

    run(settings, sentences, row or ROWS, output, limit)
