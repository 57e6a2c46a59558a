"""Download of one large file over HTTP: resumed where it broke off, checked, under its name only when complete."""

from __future__ import annotations

import hashlib
import http.client
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import publish

TIMEOUT = 30.0
_BLOCK = 1 << 20
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, socket.timeout, ConnectionError, TimeoutError)


@dataclass(frozen=True)
class RemoteFile:
    """Address, size and version of a file, as the server reports them."""

    url: str
    size: int
    etag: str


def inspect(url: str) -> RemoteFile:
    """Asks for the size without downloading; raises `AudioProjectionError` when the server cannot be reached."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT) as answer:
            return RemoteFile(url, int(answer.headers.get("Content-Length", 0)), answer.headers.get("ETag", ""))
    except (*_NETWORK_ERRORS, ValueError) as error:
        raise _network_error(url, error) from None


def already_here(remote: RemoteFile, path: Path) -> int:
    """Bytes of `path` that an earlier, interrupted download of the same file left."""
    part, mark = _part(path), _mark(path)
    if not part.is_file() or not mark.is_file() or mark.read_text(encoding="utf-8") != _identity(remote):
        return 0
    return min(part.stat().st_size, remote.size)


def fetch(
    remote: RemoteFile, path: Path, progress: Callable[[int], None], md5: str | None = None, attempts: int = 5
) -> None:
    """Downloads the file to `path`, retrying after a broken connection; `progress` gets each block's bytes.

    What arrived is kept in `<name>.part`, so a later call resumes from there. Raises `AudioProjectionError` when the
    connection stays broken or the checksum is wrong.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not already_here(remote, path):
        _part(path).write_bytes(b"")
        _mark(path).write_text(_identity(remote), encoding="utf-8")
    failures = 0
    while (have := _part(path).stat().st_size) < remote.size:
        try:
            _append(remote, path, have, progress)
        except _NETWORK_ERRORS as error:
            # progress made since the last failure earns a fresh set of attempts
            failures = 1 if _part(path).stat().st_size > have else failures + 1
            if failures >= attempts or _is_final(error):
                raise _network_error(remote.url, error) from None
            time.sleep(min(0.2 * 2**failures, 10))
    _publish(path, remote, md5)


def _append(remote: RemoteFile, path: Path, have: int, progress: Callable[[int], None]) -> None:
    headers = {"Range": f"bytes={have}-", **({"If-Range": remote.etag} if remote.etag else {})} if have else {}
    request = urllib.request.Request(remote.url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, _part(path).open("r+b") as file:
        if have and answer.status != 206:  # the server starts from the beginning
            progress(-have)
            have = 0
        file.seek(have)
        file.truncate()
        while block := answer.read(_BLOCK):
            file.write(block)
            progress(len(block))
    if _part(path).stat().st_size < remote.size:
        raise ConnectionError("the connection ended early")


def _publish(path: Path, remote: RemoteFile, md5: str | None) -> None:
    part = _part(path)
    if part.stat().st_size != remote.size or (md5 and _md5(part) != md5):
        part.unlink()
        _mark(path).unlink()
        raise AudioProjectionError(f"{remote.url}: what arrived is damaged and was thrown away; run the command again")
    publish(part, path)
    _mark(path).unlink()


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _mark(path: Path) -> Path:
    """The file that says which version of the remote file the part belongs to."""
    return path.with_name(path.name + ".part.version")


def _identity(remote: RemoteFile) -> str:
    return f"{remote.url} {remote.size} {remote.etag}"


def _is_final(error: BaseException) -> bool:
    return isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in {408, 429}


def _network_error(url: str, error: BaseException) -> AudioProjectionError:
    if isinstance(error, urllib.error.HTTPError):
        return AudioProjectionError(f"{url}: the server answers {error.code} {error.reason}; check data.url and subset")
    reason = getattr(error, "reason", None) or error
    return AudioProjectionError(
        f"{url}: the network does not let it through ({reason}); run the command again and it goes on where it stopped"
    )
