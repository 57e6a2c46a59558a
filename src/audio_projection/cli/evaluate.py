"""`audio-projection evaluate` and `robustness`: word error rates, and missed ends, skips and repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from audio_projection.cli import options
from audio_projection.cli.settings import load_settings
from audio_projection.config import PROJECTOR_KINDS, Config
from audio_projection.files.locations import locate_projector

if TYPE_CHECKING:
    from audio_projection.evaluation.recognisers import Recogniser

CONTROLS = ("shuffled", "other")


def evaluate(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    sentences: options.Sentences = None,
    row: options.Rows = None,
    recogniser: options.Recognisers = None,
    whisper_model: options.WhisperModel = "base",
    output: options.SoundFolder = None,
    limit: options.Limit = None,
    jobs: options.Jobs = 2,
    projector: options.Projector = None,
    device: options.Device = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
) -> None:
    """Measure intelligibility: word error rates of the projectors beside the teacher, plain text and controls.

    \b
    Examples:
      evaluate --config nano --output runs/evaluation
      evaluate --config nano --projector runs/nano/linear
      evaluate --config nano --limit 20 --row teacher --row plain --row runs/nano/linear/projector
      evaluate --config nano --recogniser whisper --whisper-model small.en --output runs/evaluation
    """
    settings = load_settings(config, overrides, {"device": device, "seed": seed, "threads": threads})
    from audio_projection.evaluation.evaluate import SYSTEMS, evaluate
    from audio_projection.evaluation.recognisers import PocketSphinx, Whisper

    known: dict[str, Recogniser] = {"pocketsphinx": PocketSphinx(), "whisper": Whisper(whisper_model)}
    recognisers = [known[name] for name in dict.fromkeys(recogniser or ["pocketsphinx"])]
    evaluate(settings, sentences, row or _systems(settings, projector, SYSTEMS), output, jobs, limit, recognisers)


def _systems(settings: Config, projector: str | None, all_systems: Sequence[str]) -> list[str]:
    """The systems of a whole evaluation; with a projector that one alone, which the controls take too."""
    if projector is None:
        return list(all_systems)
    settings.projector.path, _ = locate_projector(settings, projector)
    others = [system for system in all_systems if system not in PROJECTOR_KINDS]
    place = len([system for system in others if system not in CONTROLS])
    return [*others[:place], str(settings.projector.path), *others[place:]]


def robustness(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    sentences: options.Sentences = None,
    row: options.Rows = None,
    output: options.SoundFolder = None,
    limit: options.Limit = None,
    projector: options.Projector = None,
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

    measure_robustness(settings, sentences, row or _systems(settings, projector, SYSTEMS), output, limit)
