"""The command line: a file for each group of commands."""

from audio_projection.cli.app import launch, main

__all__ = ["launch", "main"]
