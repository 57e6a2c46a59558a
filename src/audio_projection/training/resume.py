"""Whether a run may resume: the settings that its coming steps depend on, compared with those of the checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_projection.data.pairs import Pair
from audio_projection.errors import AudioProjectionError
from audio_projection.projector import ProjectorInfo
from audio_projection.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from audio_projection.config import Config

FREE = {
    "checkpoint_every",
    "keep_checkpoints",
    "eval_every",
    "sample_every",
    "tensorboard",
    "activation_checkpointing",  # gives the same gradients
    "grad_accumulation",  # counted in micro_batches
    "extend",
    "start",
}
"""Keys of `train` that may change on resume."""


def fixed_settings(config: Config, info: ProjectorInfo, pairs: Sequence[Pair], micro_batches: int) -> dict[str, Any]:
    """Settings, models and data that must not change on resume; they are stored in every checkpoint.

    `micro_batches` is the number in an optimizer step over all processes, so that the number of processes may change.
    """
    lines = [f"{pair.id} {len(pair.codes)} {pair.text}" for pair in pairs]
    return {
        **_settings_alone(config),
        "projector": info.to_json(),
        "data": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "micro_batches": micro_batches,
    }


LENGTH = ("train.steps", "train.epochs", "train.max_minutes")
"""Settings that say how long a run is."""


def check_same(saved: dict[str, Any], present: dict[str, Any], folder: Path, extend: bool = False) -> None:
    """Raises AudioProjectionError naming the first setting that differs; measurements and the voice may differ.

    With `extend` (`train.extend`) the length of the run may differ too.
    """
    now = dict(_flat(present))
    for name, value in _flat(saved):
        if name.startswith(("projector.measurements", "projector.voice")) or now.get(name) == value:
            continue
        if name in LENGTH:
            if extend:
                continue
            raise AudioProjectionError(
                f"the run in {folder.parent.parent} was begun with another {name} ({value}, now {now.get(name)}); set "
                "it back, set train.extend=true to go on from its last step, start anew with --no-resume, or choose "
                "another output_dir"
            )
        if name == "data":
            name = "data set, that is with other ids, lengths or texts of its pairs"
            now[name] = present["data"]
        if name == "micro_batches":
            name = "number of micro-batches a step (processes x train.grad_accumulation)"
            now[name] = present["micro_batches"]
        raise AudioProjectionError(
            f"the run in {folder.parent.parent} was begun with another {name} ({str(value)[:40]}, now "
            f"{str(now.get(name))[:40]}); set it back, start anew with --no-resume, or choose another output_dir"
        )


def check_settings(config: Config, checkpoints: Checkpoints) -> None:
    """What `check_same` finds of the settings alone, before models and data are loaded."""
    folder = checkpoints.latest()
    if folder is None:
        return
    known = _settings_alone(config)
    saved = {key: value for key, value in checkpoints.settings(folder).items() if key in known}
    check_same(saved, known, folder, config.train.extend)


def _settings_alone(config: Config) -> dict[str, Any]:
    return {
        "tts": config.tts.model_dump(mode="json", include={"finetune", "lora_rank", "lora_alpha", "finetune_rate"}),
        "train": config.train.model_dump(mode="json", exclude=FREE),
        "seed": config.seed,
    }


def probed_before(checkpoints: Checkpoints) -> tuple[int, dict[str, Any]] | None:
    """The layer that the probe chose when the run began, and its report; None when there is nothing to resume."""
    info = _info_before(checkpoints)
    return None if info is None else (info.layers[0], info.measurements.get("probe", {}))


def head_before(checkpoints: Checkpoints) -> list[int] | None:
    """The LLM token ids before every text when the run began, in which a template may have written the day."""
    info = _info_before(checkpoints)
    return None if info is None else info.head


def _info_before(checkpoints: Checkpoints) -> ProjectorInfo | None:
    folder = checkpoints.latest()
    if folder is None:
        return None
    return ProjectorInfo.from_json(checkpoints.settings(folder)["projector"], folder / "state.json")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested settings."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
