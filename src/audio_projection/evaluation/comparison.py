"""One evaluation: several systems speak the same sentences, each is measured, and all stand in one table.

What is measured is a `Measurement`: word errors and spectral distances (`evaluate`), or missed ends, skips and repeats
(`robustness`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.systems import (
    PLAIN,
    SpeechSources,
    SpokenSentence,
    System,
    notes_in_words,
    save_sentence,
)
from audio_projection.files.atomic import make_folder, write_json

if TYPE_CHECKING:
    from rich.table import Table


@dataclass
class SystemResult:
    """What was measured of one system: a line of the table, an entry of results.json."""

    name: str
    meaning: str
    notes: dict[str, Any] = field(default_factory=dict, kw_only=True)
    missing: str = field(default="", kw_only=True)
    """Why nothing was measured."""

    @property
    def remark(self) -> str:
        """What the system is, for the caption of the table: its meaning, layer and training, or why it is missing."""
        notes = "" if self.name == PLAIN else notes_in_words(self.notes)
        return self.missing or "; ".join(filter(None, (self.meaning, notes)))


Result = TypeVar("Result", bound=SystemResult)


@dataclass
class ComparisonReport(ABC, Generic[Result]):
    """Results of all systems on the same sentences, as tables for people and as JSON."""

    sentences: list[str]
    systems: list[Result]
    seed: int

    @abstractmethod
    def tables(self) -> list[Table]:
        """Tables for people, by rich."""

    @abstractmethod
    def measured(self, system: Result) -> dict[str, Any]:
        """What results.json has of a measured system beside its name, meaning and notes."""

    def to_json(self) -> dict[str, Any]:
        """The content of results.json."""
        return {"seed": self.seed, "sentences": self.sentences, "rows": [self._entry(each) for each in self.systems]}

    def captions(self) -> list[str]:
        """A line about each system, for under the table."""
        return [f"{each.name}: {each.remark}" for each in self.systems]

    def _entry(self, system: Result) -> dict[str, Any]:
        known = {"name": system.name, "meaning": system.meaning}
        if system.missing:
            return known | {"missing": system.missing}
        return known | self.measured(system) | system.notes


class Measurement(ABC, Generic[Result]):
    """What an evaluation measures of each system."""

    result_type: type[Result]
    report_type: type[ComparisonReport[Result]]

    @abstractmethod
    def measure(self, system: System, spoken: Iterator[SpokenSentence]) -> Result:
        """The measurement of one system, from its sentences as they are spoken."""

    def plot(self, systems: Sequence[Result], folder: Path) -> None:  # noqa: B027 - not every measurement has a plot
        """Draws plots of the measured systems into the folder; by default none."""


def compare_systems(
    sources: SpeechSources, systems: Sequence[System], measurement: Measurement[Result], output: str | Path | None
) -> ComparisonReport[Result]:
    """Speak and measure every system; prints the tables on stdout.

    With `output`, each system's sound is kept in a folder of its own, beside results.json and the plots.
    Raises AudioProjectionError for a folder that cannot be made, or when no system can be measured.
    """
    from rich.console import Console

    folder = None if output is None else make_folder(Path(output))
    results = [_measure(system, sources, measurement, folder) for system in systems]
    present = [result for result in results if not result.missing]
    if not present:
        raise AudioProjectionError(f"no system could be measured: {'; '.join(result.missing for result in results)}")
    report = measurement.report_type(sources.sentences, results, sources.config.seed)
    console = Console(markup=False, highlight=False)
    for table in report.tables():
        console.print(table)
    if folder is not None:
        write_json(folder / "results.json", report.to_json())
        measurement.plot(present, folder)
    return report


def _measure(system: System, sources: SpeechSources, measurement: Measurement[Result], folder: Path | None) -> Result:
    """The measurement of one system; for one that cannot speak, a result that says why."""
    try:
        result = measurement.measure(system, _saved(system.utterances(sources), folder, system.name))
        result.notes = system.notes(sources)
    except AudioProjectionError as error:
        return measurement.result_type(system.name, system.meaning, missing=str(error))
    return result


def _saved(spoken: Iterator[SpokenSentence], folder: Path | None, name: str) -> Iterator[SpokenSentence]:
    """The sentences, each written as a sound file before it is passed on."""
    for index, sentence in enumerate(spoken):
        if folder is not None:
            save_sentence(sentence, folder, name, index)
        yield sentence
