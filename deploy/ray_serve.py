"""A Ray Serve application: replicas of the server behind one address, on one machine or many.

    pip install -e ".[ray]"
    serve run deploy.ray_serve:application config=configs/nano.yaml replicas=2

Arguments: `config` (a configuration, "nano" by default), `projector`, `replicas`, `cpus` and `gpus` of each replica,
and `keys`, a file of keys (cli/serve.py) that every machine has. A replica takes as many requests as it speaks at once
and as may wait (the section `server`); Ray sends further ones to another. A realtime session lives in its WebSocket,
which stays with one replica, so sessions are sticky by themselves. `X-Served-By` says which replica answered.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from audio_projection.cli.serve import read_keys
from audio_projection.config import find_config, load_config


def application(arguments: dict[str, str]) -> Application:
    """The application; `serve run` gives the arguments."""
    config = str(find_config(arguments.get("config", "nano")).resolve())
    key_file = arguments.get("keys")
    read_keys(None if key_file is None else Path(key_file))  # wrong keys are said here, not by a replica
    settings = load_config(config)
    # Ray's proxy decides which addresses are listened to, so a replica does not insist on this machine's names.
    build = replica_builder(config, arguments.get("projector"), key_file, "0.0.0.0")
    resources = {"num_cpus": float(arguments.get("cpus", "1")), "num_gpus": float(arguments.get("gpus", "0"))}
    streams = settings.server.streams or settings.engine.slots
    deployment = serve.deployment(
        serve.ingress(build)(),
        name="audio-projection",
        num_replicas=int(arguments.get("replicas", "2")),
        max_ongoing_requests=streams + settings.server.queue + settings.server.sessions,
        ray_actor_options=resources,
    )
    return deployment.bind()


def replica_builder(config: str, projector: str | None, key_file: str | None, host: str) -> Callable[[], Any]:
    """What builds the application of a replica, in its process."""

    def build() -> Any:
        import os
        import socket
        from pathlib import Path

        from starlette.types import ASGIApp, Message, Receive, Scope, Send

        from audio_projection.cli.serve import read_keys
        from audio_projection.config import load_config
        from audio_projection.inference import Voice
        from audio_projection.server.app import create_app

        settings = load_config(config)
        voice = Voice.from_config(settings, projector=projector)
        keys = read_keys(None if key_file is None else Path(key_file))
        limits = settings.server.model_copy(update={"host": host})
        app = create_app({voice.projector.info.kind: voice}, limits, keys)
        name = f"{socket.gethostname()}/{os.getpid()}".encode()

        class ServedBy:
            """Middleware that names the replica."""

            def __init__(self, app: ASGIApp) -> None:
                self._app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                async def named(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        message["headers"] = [*message["headers"], (b"x-served-by", name)]
                    await send(message)

                await self._app(scope, receive, named)

        app.add_middleware(ServedBy)
        return app

    return build
