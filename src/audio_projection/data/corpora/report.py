"""Report of a corpus preparation: kept and dropped items by reason, as table, picture, JSON and TSV."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_projection.data.corpora.items import Dropped, Reason, printable
from audio_projection.files.atomic import write_bytes, write_json

if TYPE_CHECKING:
    from rich.table import Table


TEXTS = "control characters and odd spacing in transcripts went, nothing else changed"
RECASED = "transcripts in capitals became sentences"


@dataclass
class Histogram:
    """Counts in bins of equal width from 0 on; larger values go into the last bin."""

    width: float
    counts: list[int]

    @classmethod
    def durations(cls) -> Histogram:
        """Bins of half a second."""
        return cls(0.5, [0] * 80)

    @classmethod
    def paces(cls) -> Histogram:
        """Bins of one letter or digit a second."""
        return cls(1.0, [0] * 40)

    def add(self, value: float) -> None:
        self.counts[min(int(value / self.width), len(self.counts) - 1)] += 1

    def merge(self, counts: Sequence[int]) -> None:
        self.counts = [one + other for one, other in zip(self.counts, counts, strict=True)]

    @property
    def shown(self) -> int:
        """Number of bins up to the last one that is not empty."""
        return max((number + 1 for number, count in enumerate(self.counts) if count), default=1)


@dataclass
class CorpusReport:
    """Counts, durations and paces of what was kept, and every dropped item."""

    source: str
    kept: int = 0
    seconds: float = 0.0
    recased: int = 0  # transcripts in capitals
    durations: Histogram = field(default_factory=Histogram.durations)
    paces: Histogram = field(default_factory=Histogram.paces)
    dropped: list[Dropped] = field(default_factory=list)

    @classmethod
    def of(cls, shards: Iterable[dict[str, Any]], source: str) -> CorpusReport:
        """Merges the records of the shards, in their order."""
        report = cls(source)
        for shard in shards:
            report.kept += shard["kept"]
            report.recased += shard.get("recased", 0)
            report.seconds = math.fsum((report.seconds, shard["seconds"]))
            report.durations.merge(shard["durations"])
            report.paces.merge(shard["paces"])
            report.dropped += [
                Dropped(name, Path(path), Reason(reason), detail) for name, path, reason, detail in shard["dropped"]
            ]
        return report

    @property
    def reasons(self) -> dict[str, int]:
        """Dropped items by reason, the most frequent first."""
        return dict(Counter(item.reason.value for item in self.dropped).most_common())

    @property
    def headline(self) -> str:
        recased = f"{self.recased:,} {RECASED}, " if self.recased else ""
        return f"{self.source}: {self.kept + len(self.dropped):,} items; {recased}{TEXTS}"

    def table(self) -> Table:
        """For the terminal: kept, and dropped by reason with an example."""
        from rich.table import Table

        items = self.kept + len(self.dropped)
        table = Table("", "items", "share", "")
        for column in table.columns[1:3]:
            column.justify = "right"
        table.add_row("kept", f"{self.kept:,}", f"{self.kept / items:.1%}", f"{self.seconds / 3600:.2f} h")
        for reason, count in self.reasons.items():
            example = next(item for item in self.dropped if item.reason.value == reason)
            words = f"{example.id}: {example.detail}" if example.detail else example.id
            table.add_row(reason, f"{count:,}", f"{count / items:.1%}", words)
        return table

    def write(self, folder: Path) -> None:
        """Writes dropped.tsv, report.png and report.json, in this order."""
        write_dropped(folder / "dropped.tsv", self.dropped)
        write_bytes(folder / "report.png", self.picture())
        write_json(folder / "report.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "kept": {"items": self.kept, "seconds": self.seconds},
            "dropped": self.reasons,
            "durations": {"bin": self.durations.width, "counts": self.durations.counts},
            "letters_a_second": {"bin": self.paces.width, "counts": self.paces.counts},
        }

    def picture(self) -> bytes:
        """PNG: histograms of duration and pace of what was kept, and dropped items by reason."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator, StrMethodFormatter

        figure = Figure(figsize=(12, 4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, 3)
        names = ("duration (s)", "letters a second")
        for place, histogram, name in zip(axes, (self.durations, self.paces), names, strict=False):
            edges = [number * histogram.width for number in range(histogram.shown)]
            place.bar(edges, histogram.counts[: histogram.shown], width=histogram.width, align="edge")
            place.set(xlabel=name, ylabel="recordings kept")
            place.yaxis.set_major_locator(MaxNLocator(integer=True))
        reasons = {"kept": self.kept, **self.reasons}
        bars = axes[2].barh(list(reasons), list(reasons.values()))
        axes[2].bar_label(bars, fmt="{:,.0f}")
        axes[2].set(xlabel="items", xscale="symlog", xlim=(0, 8 * max(reasons.values(), default=1) + 1))
        axes[2].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes[2].invert_yaxis()
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=100)
        return picture.getvalue()


def write_dropped(path: Path, dropped: Iterable[Dropped]) -> None:
    """Writes a tab-separated line for every dropped item: id, path, reason, detail."""
    rows = [("id", "path", "reason", "detail"), *(item.cells for item in dropped)]
    write_bytes(path, "".join("\t".join(map(printable, row)) + "\n" for row in rows).encode())
