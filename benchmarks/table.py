"""The main table: many projectors, of several LLMs, beside the teacher and plain text, in one evaluation.

    python benchmarks/table.py --projectors runs --output runs/table --whisper-model whisper-base

The rows stand in a YAML file (benchmarks/table.yaml): a name each, and for all but teacher, codec and plain a
projector's folder (relative to --projectors), what is spoken instead of its states (`control`: plain, shuffled, other),
if anything is, and the LLM where it is not the one that the projector was made for.  All speak the same sentences;
differences to the teacher and to plain text have 95 % intervals by one paired bootstrap.  The output folder gets
table.md, results.json, all sound, and every judgement as it is made, so that a stopped command goes on.  A row whose
projector is missing says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from printed import print_report
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from audio_projection.alignment.controls import Control
from audio_projection.config import load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.evaluate import evaluate
from audio_projection.evaluation.recognisers import PocketSphinx, Recogniser, Whisper
from audio_projection.evaluation.report import DNSMOS_SCALES, Estimate, EvaluationReport, EvaluationResult
from audio_projection.evaluation.systems import PLAIN, TEACHER, System, notes_in_words
from audio_projection.files.atomic import make_folder, write_bytes
from audio_projection.files.locations import given_projector, has_projector
from audio_projection.models import load_projector

ROOT = Path(__file__).resolve().parents[1]
UNTAUGHT = (TEACHER, "codec", PLAIN)
"""Rows without a projector of their own."""


class Row(BaseModel):
    """A row of the table as the YAML file has it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    projector: Path | None = None
    control: Control | None = None
    llm: str | None = None


def systems_of(rows: Sequence[Row], projectors: Path) -> list[System]:
    """What speaks each row; plain text, which needs any projector, with the first one that is there."""
    found = [_system_of(row, projectors) for row in rows]
    there = (each for each in found if each.projector is not None and has_projector(Path(each.projector)))
    plain = replace(next(there, System(PLAIN)), name=PLAIN, control=PLAIN)
    return [plain if each.name == PLAIN else each for each in found]


def _system_of(row: Row, projectors: Path) -> System:
    if row.projector is None:
        return System(row.name)
    folder = projectors / row.projector
    return System(row.name, str(folder), row.control, row.llm or _llm_of(folder))


def read_rows(path: Path) -> list[Row]:
    """The rows of a YAML file; AudioProjectionError for one that is no list of rows."""
    try:
        rows = TypeAdapter(list[Row]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AudioProjectionError(f"cannot read the rows of {path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise AudioProjectionError(f"{path}: {place}: {first['msg']}") from None
    for row in rows:
        if (row.projector is None) != (row.name in UNTAUGHT):
            raise AudioProjectionError(f"{path}: {row.name}: a projector for all rows but {', '.join(UNTAUGHT)}")
    return rows


def _llm_of(folder: Path) -> str | None:
    """The LLM that a projector was made for; None where it is not there: its row will say so."""
    return load_projector(given_projector(folder)).info.llm or None if has_projector(folder) else None


def markdown(report: EvaluationReport) -> Iterator[str]:
    """The table's lines."""
    words = [f"words wrong by {name}, minus teacher, minus plain" for name in report.recognisers]
    headings = [*(part for each in words for part in each.split(", ")), "MCD, dB", "LSD, dB", *DNSMOS_SCALES, "length"]
    yield f"| spoken from | {' | '.join(headings)} | ended | projector |"
    yield "|---" * (len(headings) + 3) + "|"
    for system in report.systems:
        cells = [f"missing: {system.missing}"] if system.missing else list(_cells(report, system))
        yield f"| {system.name} | {' | '.join(cells)} |"


def _cells(report: EvaluationReport, system: EvaluationResult) -> Iterator[str]:
    for recogniser in report.recognisers:
        rate = system.recognition(recogniser).word_error_rate
        yield _percent((rate, *report.interval(system, recogniser)))
        yield from (_percent(report.difference(system, other, recogniser), "+") for other in (TEACHER, PLAIN))
    for kind in ("mel_cepstral", "log_spectral"):
        yield _number(report.distance(system, kind))
    for scale in DNSMOS_SCALES:
        yield _number(report.naturalness(system, scale))
    ratio = report.duration_ratio(system)
    yield "" if ratio is None else f"{ratio:.2f}"
    yield f"{sum(system.ended)} of {len(system.ended)}"
    yield "" if system.name == PLAIN else notes_in_words(system.notes)


def _percent(value: Estimate | None, sign: str = "") -> str:
    return "" if value is None else f"{100 * value[0]:{sign}.1f} % [{100 * value[1]:.1f}, {100 * value[2]:.1f}]"


def _number(value: Estimate | None) -> str:
    return "" if value is None else f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"


def run(given: argparse.Namespace) -> str:
    config = load_config(given.config, given.overrides)
    systems = systems_of(read_rows(given.rows), given.projectors)
    recognisers: list[Recogniser] = [Whisper(given.whisper_model)] if given.whisper_model else []
    if given.pocketsphinx or not recognisers:
        recognisers.append(PocketSphinx())
    folder = make_folder(given.output)
    report: Any = evaluate(config, given.texts, systems, folder, given.jobs, given.sentences, recognisers)
    table = "\n".join(markdown(report)) + "\n"
    write_bytes(folder / "table.md", table.encode())
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings laid over the configuration")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nano.yaml")
    parser.add_argument("--rows", type=Path, default=ROOT / "benchmarks" / "table.yaml", help="a YAML file")
    parser.add_argument("--projectors", type=Path, default=Path("runs"), help="folder where the rows' paths start")
    parser.add_argument("--output", type=Path, default=Path("runs/table"))
    parser.add_argument("--whisper-model", help="name or folder of a faster-whisper model; without it pocketsphinx")
    parser.add_argument("--pocketsphinx", action="store_true", help="pocketsphinx listens beside Whisper")
    parser.add_argument("--texts", type=Path, help="sentences, a line each; by default the held-out ones")
    parser.add_argument("--sentences", type=int, help="only the first so many of them")
    parser.add_argument("--jobs", type=int, default=2, help="processes that listen")
    print_report(run, parser.parse_args(arguments), "table")


if __name__ == "__main__":
    main()
