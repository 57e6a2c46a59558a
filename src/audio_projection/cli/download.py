"""`audio-projection download`: downloads the models and the corpus that a configuration needs."""

from __future__ import annotations

import logging

import typer

from audio_projection.cli import options
from audio_projection.config import load_config
from audio_projection.files.locations import PARTS

log = logging.getLogger(__name__)


def download(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    folder: options.Folder = None,
    only: options.Only = None,
) -> None:
    """Download the models and the corpus that a configuration needs.

    \b
    Examples:
      download
      download --only tts --dir /big/disk
    """
    from audio_projection.files.download import download, items

    placed = {"models_dir": folder, "data.path": folder / "LibriSpeech"} if folder is not None else {}
    settings = load_config(config, overrides or (), placed)
    parts = only or PARTS
    if not items(settings, parts):
        typer.echo(f"{config}: nothing to download, everything it needs is here")
        return
    for path in download(settings, parts):
        typer.echo(path)
    if folder is not None:
        log.info("to use them: models_dir=%s data.path=%s after the command", folder, folder / "LibriSpeech")
