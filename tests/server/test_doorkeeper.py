"""Keys, origins, host names, and the size of bodies."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Iterator

import openai
import pytest

from audio_projection.config import ServerConfig
from audio_projection.inference import Voice
from audio_projection.server.operation.run import listening_socket
from helpers.serving import Running, serving

KEY = "a-key-that-is-long-enough"


@pytest.fixture(scope="module")
def locked(voice: Voice) -> Iterator[Running]:
    """A server with keys and one foreign origin."""
    settings = ServerConfig(port=0, body=8, origins=["https://example.org"])
    with serving({"linear": voice}, settings, ["another-key-of-some-length", KEY]) as server:
        yield server


def asked(
    server: Running, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=5)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_only_a_valid_key_opens(locked: Running) -> None:
    assert [model.id for model in openai.OpenAI(base_url=locked.url, api_key=KEY).models.list()] == ["linear"]
    for wrong in (KEY[:-1], KEY + "x", "", "ключ"):
        status, headers, body = asked(locked, "GET", "/v1/models", {"Authorization": f"Bearer {wrong}".encode()})  # type: ignore[dict-item]
        assert status == 401 and headers["www-authenticate"] == "Bearer"
        assert json.loads(body)["error"]["code"] == "invalid_api_key"
    assert asked(locked, "GET", "/v1/models", {"Authorization": f"Basic {KEY}"})[0] == 401


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json", "/v1/audio/voices", "/nothing"])
def test_everything_else_is_locked(locked: Running, path: str) -> None:
    assert asked(locked, "GET", path)[0] == 401


def test_health_needs_no_key(locked: Running) -> None:
    status, _, body = asked(locked, "GET", "/health")
    assert status == 200 and json.loads(body)["status"] == "ok"


def test_pages_of_other_origins_may_not_call(locked: Running, running: Running) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    assert asked(locked, "GET", "/v1/models", key | {"Origin": "https://evil.example"})[0] == 403
    status, headers, _ = asked(locked, "GET", "/v1/models", key | {"Origin": "https://example.org"})
    assert status == 200 and headers["access-control-allow-origin"] == "https://example.org"
    assert asked(running, "GET", "/v1/models", {"Origin": running.address})[0] == 200
    status, headers, _ = asked(running, "GET", "/v1/models", {"Origin": "https://example.org"})
    assert status == 403 and "access-control-allow-origin" not in headers


def test_a_local_server_answers_to_no_foreign_name(running: Running) -> None:
    """By which a web page could reach it, once its own name leads to 127.0.0.1."""
    assert asked(running, "GET", "/v1/models", {"Host": "evil.example"})[0] == 403
    assert asked(running, "GET", "/v1/models", {"Host": "localhost:1"})[0] == 200


def test_a_body_that_is_too_large_is_refused_unread(locked: Running) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    status, _, body = asked(locked, "POST", "/v1/audio/speech", headers, b"x" * 9000)
    assert status == 413 and "8 kB" in json.loads(body)["error"]["message"]
    connection = http.client.HTTPConnection(locked.address.removeprefix("http://"), timeout=5)
    connection.request("POST", "/v1/audio/speech", iter([b"x" * 3000] * 3), headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_body_that_does_not_come_is_waited_for_only_so_long(locked: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audio_projection.server.doorkeeper.BODY_SECONDS", 0.3)
    host, port = locked.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        begun = time.monotonic()
        connection.sendall(
            f"POST /v1/audio/speech HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Length: 50\r\nContent-Type: application/json\r\n\r\n{".encode()
        )
        assert b" 408 " in connection.recv(64) and time.monotonic() - begun < 3


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 7000, b'{"input": NaN}', b'{"input": 1e999}']
)
def test_bodies_that_are_no_request_are_400(running: Running, body: bytes) -> None:
    status, _, answer = asked(running, "POST", "/v1/audio/speech", {"Content-Type": "application/json"}, body)
    assert status == 400 and json.loads(answer)["error"]["type"] == "invalid_request_error"


def test_other_paths_and_methods_are_told_apart(running: Running) -> None:
    for method, path, expected in (("GET", "/v1/audio/speech", 405), ("GET", "/v1/../etc/passwd", 404)):
        status, _, body = asked(running, method, path)
        assert status == expected and json.loads(body)["error"]["message"]


def test_small_packets_leave_at_once() -> None:
    """Else Nagle's algorithm holds the first sound back until the client has acknowledged the headers, 40 ms."""
    no_delay: list[int] = []

    class Watching(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted = transport.get_extra_info("socket")
            no_delay.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    async def scene() -> None:
        listening = listening_socket(ServerConfig(port=0))
        server = await asyncio.get_running_loop().create_server(Watching, sock=listening)
        async with server:
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            await reader.read()
            writer.close()

    asyncio.run(scene())
    assert no_delay and all(no_delay)
