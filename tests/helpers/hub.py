"""A small model hub and file server on loopback, with connections that can be cut."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "5e1f" * 10


class Hub(ThreadingHTTPServer):
    """Serves `repositories` (name -> folder) as a model hub does, and `files` (path -> bytes) as they are."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.files: dict[str, bytes] = {}
        self.cuts: dict[str, list[int]] = {}
        """Path -> how many bytes each coming answer sends before the connection breaks."""
        self.requests: list[tuple[str, str, str | None]] = []
        """(method, path, Range header) of everything asked."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self, path: str) -> list[str | None]:
        """The Range headers of the GET requests for a path."""
        return [given for method, asked, given in self.requests if method == "GET" and asked == path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are expected here."""


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    hub = Hub()
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        if path in self.server.files:
            return self._send(path, self.server.files[path])
        for name, folder in self.server.repositories.items():
            if path.startswith((f"/api/models/{name}/", f"/{name}/resolve/")):
                return self._repository(path, name, folder)
        if path == "/":
            return self._send(path, b"a hub")
        self._refuse(404, "RepoNotFound")

    def _repository(self, path: str, name: str, folder: Path) -> None:
        if name in self.server.gated and self.headers.get("Authorization") != "Bearer secret":
            return self._refuse(403, "GatedRepo")
        if re.fullmatch(rf"/api/models/{name}/revision/[^/]+", path):
            files = [{"rfilename": entry["path"]} for entry in _tree(folder)]
            return self._send_json({"id": name, "sha": COMMIT, "siblings": files})
        if path.startswith(f"/api/models/{name}/tree/"):
            return self._send_json(_tree(folder))
        match = re.fullmatch(rf"/{name}/resolve/[^/]+/(.+)", path)
        if match and (folder / match[1]).is_file():
            return self._send(path, (folder / match[1]).read_bytes())
        self._refuse(404, "EntryNotFound")

    def _send_json(self, value: object) -> None:
        self._send("", json.dumps(value).encode(), kind="application/json")

    def _send(self, path: str, content: bytes, kind: str = "application/octet-stream") -> None:
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        start = self._start(etag, len(content))
        if start >= len(content) > 0:
            return self._refuse(416, "BadRange")
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for key, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content) - start),
            "Accept-Ranges": "bytes",
            "ETag": etag,
            "X-Repo-Commit": _commit(path),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._body(path, content[start:])

    def _body(self, path: str, content: bytes) -> None:
        cuts = self.server.cuts.get(path)
        if not cuts:
            self.wfile.write(content)
            return
        self.wfile.write(content[: cuts.pop(0)])
        self.wfile.flush()
        self.close_connection = True

    def _start(self, etag: str, size: int) -> int:
        if self.headers.get("If-Range") not in {None, etag}:
            return 0
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        return int(match[1]) if match else 0

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _commit(path: str) -> str:
    """A commit asked for by its hash is that commit; a branch is at COMMIT."""
    match = re.search(r"/resolve/([0-9a-f]{40})/", path)
    return match[1] if match else COMMIT


def _tree(folder: Path) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "path": path.relative_to(folder).as_posix(),
            "size": path.stat().st_size,
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
