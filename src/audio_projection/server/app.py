"""The application: its endpoints, and whoever stands before them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from audio_projection.config import ServerConfig
from audio_projection.server.chat import chat_router
from audio_projection.server.doorkeeper import LOOPBACK, BoundedBody, Doorkeeper
from audio_projection.server.errors import add_error_handlers
from audio_projection.server.operation.health import CountedRequests, health_router
from audio_projection.server.operation.warm_up import warm_up
from audio_projection.server.page import page_router
from audio_projection.server.realtime.session import realtime_router
from audio_projection.server.service import Service
from audio_projection.server.speech import speech_router
from audio_projection.version import __version__

if TYPE_CHECKING:
    from audio_projection.inference import Voice


def create_app(voices: Mapping[str, Voice], settings: ServerConfig, keys: Sequence[str] = ()) -> FastAPI:
    """The server's application over loaded voices, by the names that requests call their models.

    `keys`: whoever calls must have one of them; none: everybody may call.
    """
    service = Service(voices, settings)
    # the usual pages of documentation load scripts from elsewhere; the schema is at /openapi.json
    app = FastAPI(
        title="audio-projection", version=__version__, docs_url=None, redoc_url=None, lifespan=_warmed_up(voices)
    )
    app.state.service = service
    add_error_handlers(app)
    app.include_router(speech_router(service))
    app.include_router(chat_router(service))
    app.include_router(realtime_router(service))
    app.include_router(health_router(service))
    app.include_router(page_router())
    app.add_middleware(BoundedBody, most=settings.body * 1024)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    app.add_middleware(Doorkeeper, keys=keys, origins=settings.origins, local=settings.host in LOOPBACK)
    app.add_middleware(CountedRequests, metrics=service.metrics)
    return app


def _warmed_up(voices: Mapping[str, Voice]) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Lets each voice speak once before the server starts, so that the first listener does not wait for what is done
    only once."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for voice in voices.values():
            await asyncio.to_thread(warm_up, voice)
        yield

    return lifespan
