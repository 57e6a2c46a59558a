"""Who may come in: bearer keys, origins, host names, and bodies of a bounded size and time."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audio_projection.server.errors import APIError

OPEN_PATHS = frozenset({"/", "/page.css", "/page.js", "/health"})
"""Reached without a key: the page asks for one, and a supervisor only wants to know whether the server lives."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
BODY_SECONDS = 10.0
"""Within which the whole body of a request must have come."""
_PROTOCOL_KEY = "openai-insecure-api-key."
"""How a browser's WebSocket, which cannot set headers, brings its key."""


class Doorkeeper:
    """Middleware that lets in only whoever has a key (where there are any) and comes from no foreign web page.

    Without keys, a server on this machine alone answers only to this machine's names, so that no web page reaches it
    by a name of its own that leads here.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], origins: Sequence[str], local: bool) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._origins = frozenset(origins)
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope["path"], Headers(scope=scope), scope.get("method") == "OPTIONS")
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
            await refusal.response(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": str(refusal)})

    def _refusal(self, path: str, headers: Headers, preflight: bool) -> APIError | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._local and not self._keys and urlsplit(f"//{host}").hostname not in LOOPBACK:
            return APIError("this server answers to localhost only", 403)
        if origin is not None and origin not in self._origins and urlsplit(origin).netloc != host:
            return APIError("web pages of this origin may not use the server (server.origins)", 403)
        if path in OPEN_PATHS or preflight or not self._keys or self._has_key(headers):
            return None
        return APIError(
            "no valid key: send it as 'Authorization: Bearer KEY'",
            401,
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        offered = [bearer.strip()] if scheme.lower() == "bearer" else []
        for protocol in headers.get("sec-websocket-protocol", "").split(","):
            if protocol.strip().startswith(_PROTOCOL_KEY):
                offered.append(protocol.strip().removeprefix(_PROTOCOL_KEY))
        # every pair is compared, each in constant time
        matches = [hmac.compare_digest(word.encode(), key) for word in offered[:2] for key in self._keys]
        return any(matches)


class BoundedBody:
    """Middleware that reads no more than `most` bytes of a request's body, and waits for it no longer than
    `BODY_SECONDS`."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            messages = await asyncio.wait_for(self._body(Headers(scope=scope), receive), BODY_SECONDS)
        except APIError as error:
            await error.response(scope, receive, send)
            return
        except asyncio.TimeoutError:
            await APIError("the request's body did not come", 408).response(scope, receive, send)
            return

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)

    async def _body(self, headers: Headers, receive: Receive) -> list[Message]:
        announced = headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self._most:
            raise self._too_large()
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self._most:
                raise self._too_large()
            if not message.get("more_body", False):
                return messages

    def _too_large(self) -> APIError:
        return APIError(f"the request is larger than {self._most // 1024} kB", 413, headers={"Connection": "close"})
