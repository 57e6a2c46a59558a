"""Runs the application until it is told to stop; running requests are then finished."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from audio_projection.config import ServerConfig
from audio_projection.errors import AudioProjectionError

log = logging.getLogger(__name__)


def listening_socket(settings: ServerConfig) -> socket.socket:
    """The socket on which the server listens. AudioProjectionError where the address is in use or none of ours."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # named as TCP, or asyncio leaves Nagle's algorithm on: the first sound then waits 40 ms for an acknowledgement
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if socket.has_ipv6 and family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        if os.name != "nt":  # Windows would let another program take the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise AudioProjectionError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}; "
            "choose another --host or --port"
        ) from None
    return listening


class DrainingServer(uvicorn.Server):
    """Says where it serves once it does. On SIGTERM or Ctrl-C: no new connections and requests, those that run are
    finished."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            address, port = listening.getsockname()[:2]
            log.info("serving at http://%s:%d", f"[{address}]" if ":" in address else address, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        assert isinstance(app, FastAPI)
        app.state.service.admission.draining = True
        log.info("finishing the requests that run")
        await super().shutdown(sockets)


@contextlib.contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """SIGTERM ends the program with code 0; uvicorn raises the signal once more when it has finished."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(0)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def new_server(app: FastAPI, settings: ServerConfig) -> DrainingServer:
    """A server for the application; `run(sockets=[listening_socket(settings)])` serves."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain,
        timeout_keep_alive=30,
        ws_max_size=settings.body * 1024,
    )
    return DrainingServer(config)
