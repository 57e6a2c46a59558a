"""`audio-projection download`: the models and the corpus that a configuration needs."""

from __future__ import annotations

import logging

import typer

from audio_projection.cli import options
from audio_projection.config import load_config

log = logging.getLogger(__name__)


def download(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    folder: options.Folder = None,
    only: options.Only = None,
) -> None:
    """Bring the models and the corpus that a configuration needs.

    \b
    Examples:
      download
      download --only tts --dir /big/disk
    """
    from audio_projection.files.download import PARTS, download, items

    placed = {"models_dir": folder, "data.path": folder / "LibriSpeech"} if folder is not None else {}
    settings = load_config(config, overrides or (), placed)
    parts = [part.value for part in only] if only else PARTS
    if not items(settings, parts):
        typer.echo(f"{config}: nothing to bring, everything it needs is here")
        return
    for path in download(settings, parts):
        typer.echo(path)
    if folder is not None:
        log.info("to use them: models_dir=%s data.path=%s after the command", folder, folder / "LibriSpeech")
