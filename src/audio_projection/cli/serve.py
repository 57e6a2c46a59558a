"""`audio-projection serve`: OpenAI's speech, chat and realtime interfaces, and a page, over HTTP."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from audio_projection.cli import options
from audio_projection.cli.settings import load_settings
from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import check_for_speaking, check_gguf_folder

if TYPE_CHECKING:
    from audio_projection.inference import Voice

log = logging.getLogger(__name__)

KEYS_VARIABLE = "AUDIO_PROJECTION_API_KEYS"
_SHORTEST_KEY = 16
_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "websockets")


def serve(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    gguf: options.GGUFFolder = None,
    projector: options.Projectors = None,
    host: options.Host = None,
    port: options.Port = None,
    key_file: options.KeyFile = None,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Serve OpenAI's speech, chat and realtime interfaces, and a page at /.

    \b
    Examples:
      serve --config nano
      serve --config nano --projector linear --projector residual
      serve --config nano --port 9000 server.queue=4 engine.slots=6
      AUDIO_PROJECTION_API_KEYS=... serve --host 0.0.0.0
    """
    if gguf is not None and config != options.DEFAULT_CONFIG:
        raise typer.BadParameter("give --gguf or --config: the folder has a configuration of its own")
    if gguf is not None:
        check_gguf_folder(gguf)
    settings = load_settings(
        config if gguf is None else gguf / "config.yaml",
        overrides,
        {"device": device, "threads": threads, "server.host": host, "server.port": port},
    )
    _check_installed()
    keys = read_keys(key_file)
    projectors: Sequence[str | None] = projector or [None]
    for each in projectors:
        check_for_speaking(settings, each)
    _run(settings, projectors, keys)


def _run(settings: Config, projectors: Sequence[str | None], keys: Sequence[str]) -> None:
    from audio_projection.server.app import create_app
    from audio_projection.server.doorkeeper import LOOPBACK
    from audio_projection.server.operation.run import listening_socket, new_server, sigterm_as_exit

    # before the models: an address in use is found at once
    with sigterm_as_exit(), listening_socket(settings.server) as listening:
        if settings.server.host not in LOOPBACK and not keys:
            log.warning(
                "everybody who reaches %s may use this server: set %s or --key-file",
                settings.server.host,
                KEYS_VARIABLE,
            )
        app = create_app(_load_voices(settings, projectors), settings.server, keys)
        new_server(app, settings.server).run(sockets=[listening])


def _load_voices(settings: Config, projectors: Sequence[str | None]) -> dict[str, Voice]:
    """A voice for each projector, by its kind, or as it was given where there are several of a kind."""
    from audio_projection.files.locations import find_projector
    from audio_projection.inference import Voice
    from audio_projection.models import load_projector

    voice = Voice.from_config(settings, projector=projectors[0])
    voices = {voice.projector.info.kind: voice}
    for given in projectors[1:]:
        other = voice.with_projector(load_projector(find_projector(settings, given)))
        kind = other.projector.info.kind
        voices[str(given) if kind in voices else kind] = other
    return voices


def _check_installed() -> None:
    missing = [name for name in _PACKAGES if not importlib.util.find_spec(name)]
    if missing:
        raise AudioProjectionError(f'serve needs {", ".join(missing)}: pip install "audio-projection[serve]"')


def read_keys(path: Path | None) -> list[str]:
    """The keys of a file, one a line, and those of the environment.

    Raises AudioProjectionError for a file that cannot be read or has none, and for keys that are easy to guess.
    """
    keys = os.environ.get(KEYS_VARIABLE, "").replace(",", " ").split()
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise AudioProjectionError(f"cannot read the keys in {path}: {error}") from None
        if not lines:
            raise AudioProjectionError(f"{path} has no key in it: write one on each line")
        keys += lines
    if any(len(key) < _SHORTEST_KEY for key in keys):
        raise AudioProjectionError(
            f"a key has fewer than {_SHORTEST_KEY} characters and can be guessed; `openssl rand -hex 24` makes one"
        )
    return keys
