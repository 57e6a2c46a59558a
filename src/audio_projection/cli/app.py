"""The command line `audio-projection`: its commands, logging, and errors as one line with an exit code.

Results go to stdout, messages to stderr.

Exit codes: 0 done (also a training that SIGTERM ended with a checkpoint), 1 something is wrong that the message tells
how to mend, 2 wrong usage, 130 interrupted (Ctrl-C; train, fit, prepare and features finish the step that they are in,
write, and say how to go on).
"""

from __future__ import annotations

import atexit
import gc
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from audio_projection.cli.chat import chat
from audio_projection.cli.data import data_app
from audio_projection.cli.download import download
from audio_projection.cli.evaluate import evaluate, robustness
from audio_projection.cli.export import export_app
from audio_projection.cli.serve import serve
from audio_projection.cli.speak import speak
from audio_projection.cli.text import text
from audio_projection.cli.train import fit, train
from audio_projection.errors import AudioProjectionError
from audio_projection.files.interruption import Interrupted
from audio_projection.version import __version__

log = logging.getLogger("audio_projection")

COLLECTED_AT = 100_000
"""New objects before the garbage collector runs. With Python's 700 it takes a seventh of the time in which the
libraries load, for they make nearly a million objects, all to stay."""
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
    "chat": chat,
    "serve": serve,
    "text": text,
    "evaluate": evaluate,
    "robustness": robustness,
}
for _command in COMMANDS.values():
    app.command()(_command)
app.add_typer(data_app, name="data")
app.add_typer(export_app, name="export")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"audio-projection {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Speech from the hidden states of a frozen language model."""


def main() -> NoReturn:
    """Entry point of `audio-projection`."""
    _run(app)


def launch(name: str) -> NoReturn:
    """Entry point of the scripts that run one command."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    single.command()(COMMANDS[name])
    _run(single)


def _run(command: typer.Typer) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # Windows' code pages lack most of Unicode
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    gc.set_threshold(COLLECTED_AT)
    atexit.register(gc.freeze)  # or Python collects garbage once more at exit, which takes a second
    try:
        sys.exit(command(standalone_mode=False) or 0)
    except Interrupted as error:
        _fail(str(error), code=130)
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
    """Wrong usage, recognised by the error's name and methods: some versions of Typer bring their own Click."""
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
