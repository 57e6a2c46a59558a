"""What a run writes down while it trains: a line of JSON for each step, and the loss curve as a picture."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

from audio_projection.checkpoint import write_bytes


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
