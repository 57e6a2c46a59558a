"""`/health` and `/metrics`, and the middleware that counts requests."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audio_projection.server.operation.metrics import Metrics
from audio_projection.server.service import Service


def health_router(service: Service) -> APIRouter:
    """For supervisors, load balancers and Prometheus."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> JSONResponse:
        admission = service.admission
        body = {
            "status": "draining" if admission.draining else "ok",
            "speaking": admission.speaking,
            "streams": admission.streams,
            "waiting": admission.waiting,
        }
        return JSONResponse(body, 503 if admission.draining else 200)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


class CountedRequests:
    """Middleware that counts requests by their endpoint and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # a path that was made up has no counter of its own
            self._metrics.requests.labels(route, str(status)).inc()
