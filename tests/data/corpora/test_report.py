"""Charts: whole numbers where things are counted, and nothing over the frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest

from audio_projection.data.corpora.items import Dropped, Reason
from audio_projection.data.corpora.report import CorpusReport
from audio_projection.training.run_log import plot_losses


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []

    class Kept(matplotlib.figure.Figure):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(matplotlib.figure, "Figure", Kept)
    return made


def whole(ticks: Any) -> bool:
    return all(float(tick).is_integer() for tick in ticks)


@pytest.mark.parametrize("kept", [1, 3, 28_539])
def test_a_report_counts_in_whole_numbers(figures: list[Any], kept: int) -> None:
    report = CorpusReport("a corpus", kept=kept, dropped=[Dropped("a", Path("a"), Reason.silent)] * 2)
    report.durations.add(1.5)
    report.paces.add(12)
    assert report.picture().startswith(b"\x89PNG")
    durations, paces, items = figures[0].axes
    assert whole(durations.get_yticks()) and whole(paces.get_yticks())
    for label in items.texts:
        assert label.get_window_extent().x1 <= items.bbox.x1, "a number stands over the frame"
    assert [label.get_text() for label in items.texts] == [f"{kept:,}", "2"]


def test_losses_of_few_steps_have_whole_steps(figures: list[Any], tmp_path: Path) -> None:
    plot_losses([{"step": step, "training": {"talker": 3.0 - step}} for step in (1, 2)], tmp_path / "loss.png")
    assert whole(figures[0].axes[0].get_xticks())
