"""Words heard of a fit with and without its refinement, on the same sentences, layer by layer.

    python benchmarks/refinement.py --layers 2 last --sentences 60

For each layer the linear projector is fitted by ridge regression, and once more with `fit.refine=softmax` after it; the
kind `mlp` is fitted too. All speak held-out sentences, as the TTS fed with plain text does; pocketsphinx hears them.
Differences have 95 % intervals by paired bootstrap. What is in the output folder already (projectors, and what was
heard) is not made again.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from audio_projection.config import load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.evaluate import evaluate
from audio_projection.evaluation.report import EvaluationReport
from audio_projection.evaluation.systems import PLAIN, name_systems
from audio_projection.files.atomic import make_folder
from audio_projection.files.locations import has_projector
from audio_projection.fit.closed_form import run_fit
from audio_projection.projector import Projector

ROOT = Path(__file__).resolve().parents[1]
FITS = {"ridge": ("linear", "none"), "ridge, then softmax": ("linear", "softmax"), "mlp, softmax": ("mlp", "softmax")}
"""Kind of the projector and `fit.refine` of each fit."""
HEADER = (
    "| layer | fit | R2 | nearest text embedding right | word error rate | minus plain | minus ridge alone |\n"
    "|---|---|---|---|---|---|---|"
)


def fitted(given: argparse.Namespace, layer: str, kind: str, refine: str) -> Path:
    """The run's folder of a fit, made where it is not there."""
    folder = make_folder(given.output).resolve() / f"{layer}-{refine}" / kind
    if not has_projector(folder):
        options = {"fit.refine": refine, "output_dir": folder.parent, "projector.kind": kind}
        run_fit(load_config(given.config, [*given.overrides, f"llm.layers={layer}"], options))
    return folder


def rows(report: EvaluationReport, fits: dict[str, dict[str, Path]], names: dict[Path, str]) -> Iterator[str]:
    """The table's lines, plain text's first."""
    plain = report.system(PLAIN)
    assert plain is not None, "it was spoken"
    yield f"| | plain text | | | {percent(plain.word_error_rate, report.interval(plain))} | | |"
    for layer, folders in fits.items():
        for fit, folder in folders.items():
            system = report.system(names[folder])
            assert system is not None, "it was spoken"
            measured: dict[str, Any] = Projector.from_pretrained(folder / "projector").info.measurements["fit"]
            measured = measured.get("refined", measured)
            cells = [layer, fit, f"{measured['r2']:.2f}"]
            cells += [f"{measured['nearest_row']:.1%}", percent(system.word_error_rate, report.interval(system))]
            for other in (PLAIN, names[folders["ridge"]]):
                difference = report.difference(system, other)
                cells.append("" if difference is None else percent(difference[0], difference[1:], "+"))
            yield f"| {' | '.join(cells)} |"


def percent(value: float, interval: Sequence[float], sign: str = "") -> str:
    """A rate and its interval in per cent."""
    return f"{100 * value:{sign}.1f} % [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def run(given: argparse.Namespace) -> Iterator[str]:
    fits = {layer: {fit: fitted(given, layer, *how) for fit, how in FITS.items()} for layer in given.layers}
    folders = [folder for each in fits.values() for folder in each.values()]
    systems = [PLAIN, *map(str, folders)]
    names = {folder: system.name for folder, system in zip(folders, name_systems(systems)[1:], strict=True)}
    config = load_config(given.config, given.overrides, {"projector.path": folders[0]})  # plain text needs any
    report = evaluate(config, given.texts, systems, given.output / "heard", given.jobs, given.sentences)
    assert isinstance(report, EvaluationReport)
    yield HEADER
    yield from rows(report, fits, names)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings laid over the configuration")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nano.yaml")
    parser.add_argument("--output", type=Path, default=Path("runs/refinement"))
    parser.add_argument("--layers", nargs="+", default=["2", "last"])
    parser.add_argument("--texts", type=Path, help="sentences, a line each; by default the held-out ones")
    parser.add_argument("--sentences", type=int, default=60, help="how many of them are spoken")
    parser.add_argument("--jobs", type=int, default=1, help="processes that listen")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("audio_projection").setLevel(logging.INFO)
    try:
        for line in run(given):
            print(line, flush=True)
    except AudioProjectionError as error:
        sys.exit(f"refinement: {error}")


if __name__ == "__main__":
    main()
