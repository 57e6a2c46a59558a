"""The command `audio-projection`: its commands put together, and how trouble is reported.

Results go to stdout, talk to stderr; trouble becomes one line and a non-zero exit.

Exit codes: 0 done (also a training that SIGTERM ended with a checkpoint), 1 something is wrong that the message tells
how to mend, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from audio_projection.cli.data import data_app
from audio_projection.cli.download import download
from audio_projection.cli.evaluate import evaluate, robustness
from audio_projection.cli.export import export_app
from audio_projection.cli.speak import speak
from audio_projection.cli.train import fit, train
from audio_projection.errors import AudioProjectionError

log = logging.getLogger("audio_projection")

COLLECTED_AT = 100_000
"""New objects before garbage is looked for. Python's 700 makes that a seventh of the time that the libraries load in,
for they make near a million objects, all to stay."""
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Speech from the hidden states of a frozen language model.",
)


COMMANDS: dict[str, Callable[..., None]] = {
    "download": download,
    "fit": fit,
    "train": train,
    "speak": speak,
    "evaluate": evaluate,
    "robustness": robustness,
}
for _command in COMMANDS.values():
    app.command()(_command)
app.add_typer(data_app, name="data")
app.add_typer(export_app, name="export")


def main() -> NoReturn:
    """Entry point of `audio-projection`."""
    _run(app)


def launch(name: str) -> NoReturn:
    """Entry point of the scripts that stand for one command."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    single.command()(COMMANDS[name])
    _run(single)


def _run(command: typer.Typer) -> NoReturn:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    gc.set_threshold(COLLECTED_AT)
    atexit.register(gc.freeze)  # or Python would look through all of them once more at the end, which takes a second
    try:
        sys.exit(command(standalone_mode=False) or 0)
    except AudioProjectionError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
    except MemoryError:
        _fail("not enough memory: give a shorter text, a smaller batch (train.batch=1) or a smaller model")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        _fail("not enough memory on the device: give --device cpu, a shorter text or a smaller batch (train.batch=1)")
    except KeyboardInterrupt:
        _fail("interrupted", code=130)
    except Exception as error:
        _fail_usage(error)


def _fail_usage(error: Exception) -> NoReturn:
    """Wrong usage, by its looks: Typer brings its own Click in some versions, so there is no class to name."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    if type(error).__name__ == "Abort":
        _fail("interrupted", code=130)
    if not hasattr(error, "format_message"):
        raise error
    _fail(f"{error.format_message()} (see --help)", code=2)


def _fail(message: str, code: int = 1) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
