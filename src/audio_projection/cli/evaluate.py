"""`audio-projection evaluate` and `robustness`: word error rates, and missed ends, skips and repeats."""

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
    """Measure intelligibility: word error rates of the projectors beside the teacher, plain text and controls.

    \b
    Examples:
      evaluate --config nano --output runs/evaluation
      evaluate --config nano --limit 20 --row teacher --row plain --row runs/nano/linear/projector
    """
    settings = load_settings(config, overrides, {"device": device, "seed": seed, "threads": threads})
    from audio_projection.evaluation.evaluate import SYSTEMS, evaluate

    evaluate(settings, sentences, row or SYSTEMS, output, jobs, limit)


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
    """Measure robustness: sentences that miss their end, are far too long, or skip or repeat a part.

    \b
    Example:
      robustness --config nano --output runs/robustness
    """
    settings = load_settings(config, overrides, {"device": device, "seed": seed, "threads": threads})
    from audio_projection.evaluation.robustness import SYSTEMS, measure_robustness

    measure_robustness(settings, sentences, row or SYSTEMS, output, limit)
