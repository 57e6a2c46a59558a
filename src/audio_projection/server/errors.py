"""Errors as OpenAI's JSON: {"error": {"message", "type", "param", "code"}}, without internals."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from audio_projection.errors import AudioProjectionError

log = logging.getLogger(__name__)

_LONGEST = 1_000
"""Most characters of a message: some of them quote what the client sent."""


class APIError(Exception):
    """What a client did wrong, or must wait for: an HTTP status and one line that says how to mend it."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(self.status)
        fallback = "server_error" if self.status >= 500 else "invalid_request_error"
        # what was sent may hold lone surrogates, which are no UTF-8
        message = str(self)[:_LONGEST].encode("utf-8", "backslashreplace").decode()
        return {"message": message, "type": kind or fallback, "param": self.param, "code": self.code}

    @property
    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse({"error": self.body}, self.status, self.headers)


def as_api_error(error: BaseException) -> APIError:
    """Any error as what the client is told; what is not the client's doing is logged and not told."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, AudioProjectionError):
        return APIError(" ".join(str(error).split()))
    log.error("a request failed", exc_info=error)
    return APIError("the server failed to answer this request; its log says why", 500, code="internal_error")


def add_error_handlers(app: FastAPI) -> None:
    """Makes every error of the application such an answer."""

    async def known(_: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return APIError(str(error.detail), error.status_code, headers=error.headers).response

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return invalid_request(error.errors()).response

    app.add_exception_handler(APIError, known)
    app.add_exception_handler(AudioProjectionError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, known)


def invalid_request(problems: Any) -> APIError:
    """The first of pydantic's problems, by the name of the field; where it may be of several types, that of the one
    that fits best."""
    first = max(problems, key=lambda each: (each["loc"][:2] == problems[0]["loc"][:2], len(each["loc"])))
    kinds = {"body", "str"}  # pydantic names the types that it tried within the place
    place = ".".join(str(part) for part in first["loc"] if part not in kinds and "[" not in str(part))
    if first["type"] == "json_invalid":
        return APIError("the body is not valid JSON")
    if first["type"] == "extra_forbidden":
        return APIError(f"unknown field {place!r}: this server does not support it", param=place)
    return APIError(f"{place}: {first['msg']}" if place else str(first["msg"]), param=place or None)
