"""The records of a run for TensorBoard (the extra `tensorboard`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audio_projection.errors import AudioProjectionError
from audio_projection.spoken_sample import Sample


class TensorBoardLog:
    """Scalars of every record as `training/talker`, `held_out/talker` ..., and samples as sound and picture."""

    def __init__(self, folder: Path, step: int) -> None:
        """Events after `step`, which are going to come again, are hidden. AudioProjectionError without the package."""
        self._writer = summary_writer()(str(folder), purge_step=step + 1)

    def add(self, record: dict[str, Any]) -> None:
        """A record as metrics.jsonl has it."""
        for group, values in record.items():
            for name, value in values.items() if isinstance(values, dict) else ():
                self._writer.add_scalar(f"{group}/{name}", value, record["step"])
        self._writer.flush()

    def add_sample(self, sample: Sample, step: int) -> None:
        from matplotlib.image import imread

        speech = sample.speech
        self._writer.add_audio("sample", speech.samples[None], step, speech.sample_rate)
        self._writer.add_image("sample", imread(sample.picture)[..., :3], step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def summary_writer() -> Any:
    """The writer's class; AudioProjectionError when the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise AudioProjectionError(
            "train.tensorboard needs tensorboard: pip install 'audio-projection[tensorboard]' "
            "(or pip install tensorboard)"
        ) from None
    return SummaryWriter
