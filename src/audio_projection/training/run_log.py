"""What a training run writes down: metrics.jsonl, the loss curve, TensorBoard (an extra), the bar on stderr."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import write_bytes

if TYPE_CHECKING:
    from audio_projection.config import Config
    from audio_projection.training.audio_samples import Sample

log = logging.getLogger(__name__)


class RunLog:
    """Written by one process; in the others every call does nothing."""

    def __init__(self, config: Config, step: int, writing: bool) -> None:
        """Takes up the records of a run at `step`. AudioProjectionError when TensorBoard is wanted and missing."""
        self._config = config
        self._metrics: MetricsLog | None = None
        self._board: TensorBoardLog | None = None
        if writing:
            self._metrics = MetricsLog(config.run_dir / "metrics.jsonl", step)
        if writing and config.train.tensorboard:
            self._board = TensorBoardLog(config.run_dir / "tensorboard", step)

    def add(self, record: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        if self._metrics is not None:
            self._metrics.add(record)
        if self._board is not None:
            self._board.add(record)

    def add_sample(self, sample: Sample, step: int) -> None:
        if self._board is not None:
            self._board.add_sample(sample, step)

    def draw(self) -> None:
        """loss.png, of all steps so far."""
        if self._metrics is not None:
            draw_losses(self._metrics.records(), self._config.run_dir / "loss.png")

    def close(self) -> None:
        """Draws the curve and ends the files."""
        self.draw()
        if self._board is not None:
            self._board.close()

    @contextmanager
    def progress(self, steps: int, done: int) -> Iterator[tuple[Progress, TaskID]]:
        """A bar of the steps; its field `loss` is text."""
        columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}")
        hidden = self._metrics is None
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=hidden) as progress:
            yield progress, progress.add_task("training", total=steps, completed=done, loss="-")


class MetricsLog:
    """`metrics.jsonl`: one object a line, in the order of the steps, each step once however often a run resumes."""

    def __init__(self, path: str | Path, step: int) -> None:
        """Keeps the lines up to `step` of an earlier run and drops those that are going to be made again."""
        self.path = Path(path)
        kept = [record for record in read_metrics(self.path) if record["step"] <= step]
        write_bytes(self.path, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def add(self, record: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        return read_metrics(self.path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file; a last line that a killed run left half-written is passed over."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def draw_losses(records: list[dict[str, Any]], path: str | Path) -> None:
    """The loss curve as PNG: training, held out, and held out of the TTS fed with plain text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="cross-entropy of codebook 0 (nats)")
    for name, style in {"training": "-", "held_out": "o-", "plain": "--"}.items():
        points = [(record["step"], record[name]["talker"]) for record in records if "talker" in record.get(name, {})]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=name.replace("_", " "), linewidth=1, markersize=3)
    if axes.lines:
        axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(path, picture.getvalue())


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
