"""What a run tells of itself while it trains: metrics, loss curve, TensorBoard, the bar on stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from audio_projection.metrics import MetricsLog, draw_losses
from audio_projection.tensorboard import TensorBoardLog

if TYPE_CHECKING:
    from audio_projection.config import Config
    from audio_projection.spoken_sample import Sample

log = logging.getLogger(__name__)


class Records:
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
