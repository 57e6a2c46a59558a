"""A running server in this process, on a free port."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from audio_projection.config import ServerConfig
from audio_projection.inference import Voice
from audio_projection.server.app import create_app
from audio_projection.server.operation.run import listening_socket, new_server
from audio_projection.server.service import Service


@dataclass(frozen=True)
class Running:
    """A server that runs in a thread."""

    address: str
    """http://127.0.0.1:PORT"""
    service: Service

    @property
    def url(self) -> str:
        """What the official client takes for its base URL."""
        return f"{self.address}/v1"


@contextmanager
def serving(voices: Mapping[str, Voice], settings: ServerConfig, keys: Sequence[str] = ()) -> Iterator[Running]:
    """A server with these voices until the block ends."""
    app = create_app(voices, settings, keys)
    server = new_server(app, settings)
    with listening_socket(settings) as listening:
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            until(lambda: server.started, seconds=60)
            yield Running(f"http://127.0.0.1:{port}", app.state.service)
        finally:
            server.should_exit = True
            thread.join(20)


def until(condition: object, seconds: float = 10.0) -> None:
    """Waits for a condition; fails when it does not come."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
