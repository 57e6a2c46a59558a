"""How the benchmarks that make a report print it: progress to stderr, the report to stdout, an error in one line."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from audio_projection.errors import AudioProjectionError


def print_report(run: Callable[[argparse.Namespace], str], given: argparse.Namespace, program: str) -> None:
    """Print what `run` makes of the given arguments; an AudioProjectionError ends the program with its message."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("audio_projection").setLevel(logging.INFO)
    try:
        print(run(given), end="")
    except AudioProjectionError as error:
        sys.exit(f"{program}: {error}")
