"""Log of a training run: metrics.jsonl, the loss curve as PNG, TensorBoard (an extra), the progress bar on stderr."""

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
    from audio_projection.training.audio_samples import Sample

log = logging.getLogger(__name__)


class RunLog:
    """Everything that a run logs into its folder, from `begin` on.

    One process writes; in the others every call does nothing.
    """

    def __init__(self, folder: Path, writing: bool, tensorboard: bool) -> None:
        self._folder, self._writing, self._tensorboard = folder, writing, tensorboard
        self._metrics: MetricsLog | None = None
        self._board: TensorBoardLog | None = None

    def begin(self, step: int) -> None:
        """Opens the files, keeping the records up to `step` of the run that is resumed.

        Raises AudioProjectionError when TensorBoard is wanted and not installed.
        """
        if self._writing:
            self._metrics = MetricsLog(self._folder / "metrics.jsonl", step)
        if self._writing and self._tensorboard:
            self._board = TensorBoardLog(self._folder / "tensorboard", step)

    def add(self, record: dict[str, Any]) -> None:
        """Appends a record to metrics.jsonl and to TensorBoard."""
        if self._metrics is not None:
            self._metrics.add(record)
        if self._board is not None:
            self._board.add(record)

    def add_sample(self, sample: Sample, step: int) -> None:
        """Adds a spoken sample to TensorBoard."""
        if self._board is not None:
            self._board.add_sample(sample, step)

    def plot(self) -> None:
        """Writes loss.png, the loss curve of all steps so far."""
        if self._metrics is not None:
            plot_losses(self._metrics.records(), self._folder / "loss.png")

    def close(self) -> None:
        """Writes the loss curve and closes TensorBoard."""
        self.plot()
        if self._board is not None:
            self._board.close()

    @contextmanager
    def progress(self, steps: int, done: int) -> Iterator[tuple[Progress, TaskID]]:
        """A progress bar of the steps; its field `loss` is text."""
        columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}")
        with Progress(
            *columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not self._writing
        ) as progress:
            yield progress, progress.add_task("training", total=steps, completed=done, loss="-")


class MetricsLog:
    """`metrics.jsonl`: a JSON object a line, in the order of the steps, each step once however often a run resumes."""

    def __init__(self, path: str | Path, step: int) -> None:
        """Keeps the records of a run up to `step` and drops the later ones, whose steps are taken again."""
        self.path = Path(path)
        kept = [record for record in read_metrics(self.path) if record["step"] <= step]
        write_bytes(self.path, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def add(self, record: dict[str, Any]) -> None:
        """Appends one record and flushes it to the disk."""
        with open(self.path, "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """All records of the run so far."""
        return read_metrics(self.path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file; lines that a killed run left half-written are skipped."""
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


def plot_losses(records: list[dict[str, Any]], path: str | Path) -> None:
    """Writes the loss curve as PNG: training, held out, and held out with plain text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="cross-entropy of codebook 0 (nats)")
    for name, style in {"training": "-", "held_out": "o-", "plain": "--"}.items():
        points = [(record["step"], record[name]["talker"]) for record in records if "talker" in record.get(name, {})]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=name.replace("_", " "), linewidth=1, markersize=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.lines:
        axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(path, picture.getvalue())


class TensorBoardLog:
    """TensorBoard events: losses as scalars (`training/talker`, `held_out/talker` ...), samples as audio and image."""

    def __init__(self, folder: Path, step: int) -> None:
        """Hides events after `step`, whose steps are taken again. Raises AudioProjectionError without the package."""
        self._writer = summary_writer()(str(folder), purge_step=step + 1)

    def add(self, record: dict[str, Any]) -> None:
        """Adds the scalars of a record of metrics.jsonl."""
        for group, values in record.items():
            for name, value in values.items() if isinstance(values, dict) else ():
                self._writer.add_scalar(f"{group}/{name}", value, record["step"])
        self._writer.flush()

    def add_sample(self, sample: Sample, step: int) -> None:
        """Adds a spoken sample and its spectrogram."""
        from matplotlib.image import imread

        speech = sample.speech
        self._writer.add_audio("sample", speech.samples[None], step, speech.sample_rate)
        self._writer.add_image("sample", imread(sample.picture)[..., :3], step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def summary_writer() -> Any:
    """TensorBoard's SummaryWriter class; AudioProjectionError when the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise AudioProjectionError(
            "train.tensorboard needs tensorboard: pip install 'audio-projection[tensorboard]' "
            "(or pip install tensorboard)"
        ) from None
    return SummaryWriter
