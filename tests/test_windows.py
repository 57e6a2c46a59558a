"""Everything that writes files, under the rules that Windows has for open files (emulated, see helpers/windows.py)."""

from __future__ import annotations

import ctypes
import io
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

if sys.platform != "linux":
    pytest.skip("the emulation looks at open files as Linux lists them", allow_module_level=True)

from audio_projection.config import DataConfig, load_config
from audio_projection.data.corpora.extract import MachineShare, extract
from audio_projection.data.corpora.prepare import Corpus, prepare
from audio_projection.export import Export
from audio_projection.files import audio, download
from audio_projection.files.atomic import write_bytes
from audio_projection.files.tensors import map_tensors, write_tensors
from audio_projection.inference import Voice
from audio_projection.projector import Projector
from audio_projection.train import run_training
from audio_projection.training.trainer import Trainer
from helpers import hub
from helpers.corpora import manifest
from helpers.training import make_pairs, train_until, tuned
from helpers.windows import windows_rules


def test_the_emulation_refuses_what_windows_refuses(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    write_tensors(tmp_path / "mapped.safetensors", {"a": torch.ones(2000)})
    with windows_rules(tmp_path):
        with path.open("rb") as file, pytest.raises(OSError, match="Bad file descriptor"):
            os.fsync(file.fileno())
        with path.open("rb"), pytest.raises(PermissionError, match="being used"):
            os.replace(tmp_path / "mapped.safetensors", path)
        held = map_tensors(tmp_path / "mapped.safetensors")
        with pytest.raises(PermissionError, match="being used"):
            os.unlink(tmp_path / "mapped.safetensors")
        with pytest.raises(PermissionError):
            os.open(tmp_path, os.O_RDONLY)
        del held
        os.replace(tmp_path / "mapped.safetensors", path)


def test_files_and_sound_are_written_and_replaced(tmp_path: Path) -> None:
    with windows_rules(tmp_path):
        for value in (b"one", b"two"):
            write_bytes(tmp_path / "folder" / "file", value)
        for suffix in audio.FORMATS:
            for _ in range(2):
                audio.write(tmp_path / f"sound{suffix}", np.zeros(2400, np.float32) + 0.1, 24000)
                audio.check_writable(tmp_path / f"sound{suffix}")
    assert (tmp_path / "folder" / "file").read_bytes() == b"two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", *(f"sound{s}" for s in sorted(audio.FORMATS))]


def test_a_corpus_is_downloaded(tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("LibriSpeech/train-clean-100/103/103.trans.txt"), io.BytesIO())
    with hub.running() as server, windows_rules(tmp_path):
        server.files["/12/train-clean-100.tar.gz"] = content.getvalue()
        options = {"data.path": tmp_path / "LibriSpeech", "data.url": f"{server.url}/12"}
        (folder,) = download.download(load_config(None, ["data.source=librispeech"], options))
    assert (folder / "103/103.trans.txt").is_file()


def test_a_corpus_is_prepared_and_encoded(tmp_path: Path, repository: Path) -> None:
    source = tmp_path / "sounds"
    source.mkdir()
    config = load_config(repository / "configs/nano.yaml", ["llm.layers=1"])
    with windows_rules(tmp_path):
        prepare(Corpus("manifest", manifest(source, 8)), tmp_path / "prepared", DataConfig(), 4, 1)
        for _ in range(2):  # the second finds all of it
            assert "6 pairs" in extract(tmp_path / "prepared", tmp_path / "out", config, MachineShare(), 1, states=True)


@pytest.mark.parametrize("kind", ["none", "lora", "full"])
def test_a_run_is_trained_resumed_and_spoken(tmp_path: Path, kind: str) -> None:
    """Checkpoints and projector are written over those of the run before, which is loaded from them."""
    pairs = make_pairs(8)
    with windows_rules(tmp_path):
        for until in (1, 3, 3):
            config, parts = tuned(tmp_path, kind, steps=3, checkpoint_every=1, keep_checkpoints=1)
            train_until(Trainer(config, parts, pairs[:6], pairs[6:]), until)
        projector = Projector.from_pretrained(config.trained_projector)
        projector.save_pretrained(config.trained_projector)
    assert [path.name for path in (config.run_dir / "checkpoints").iterdir()] == ["step-00000003"]


def test_the_command_fits_trains_and_speaks(tmp_path: Path, repository: Path) -> None:
    words = [f"output_dir={tmp_path}", "data.limit=12", "data.held_out=2", "fit.tokens=500", "fit.held_out=10"]
    words += ["llm.layers=1", "train.steps=2", "train.max_minutes=null", "train.sample_every=1"]
    with windows_rules(tmp_path):
        outcome = run_training(load_config(repository / "configs/nano.yaml", words))
        speech = Voice.from_config(load_config(repository / "configs/nano.yaml", words)).speak("Hello.")
        audio.write(tmp_path / "hello.wav", speech.samples, speech.sample_rate)
    assert outcome.finished and (tmp_path / "linear/samples/step-00000002.wav").is_file()


@pytest.mark.parametrize("wanted", ["Q8_0", "Q4_K_M"])
def test_gguf_files_are_exported_over_older_ones(tmp_path: Path, repository: Path, wanted: str) -> None:
    pytest.importorskip("gguf", reason="the gguf package is not installed (audio-projection[gguf])")
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")
    with windows_rules(tmp_path):
        for _ in range(2):
            export = Export(load_config(repository / "configs/nano.yaml"), None, wanted, "F16")
            assert len([*export.everything(tmp_path)]) == 6
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_ggml_is_found_where_llama_cpps_library_does_not_pass_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where a library shows its own functions only; ggml's are in the library beside it."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")
    from audio_projection.gguf import llama_cpp_runtime
    from audio_projection.gguf.optional_packages import binding

    library = binding()._lib

    class Own:
        """llama.dll."""

        _name = library._name

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("llama_"):
                raise AttributeError(f"function '{name}' not found")
            return getattr(library, name)

    monkeypatch.setattr(binding(), "_lib", Own())
    llama_cpp_runtime._tensor_functions.cache_clear()
    try:
        name, count, copy = llama_cpp_runtime._tensor_functions()
    finally:
        llama_cpp_runtime._tensor_functions.cache_clear()
    assert name.restype is ctypes.c_char_p and count.restype is ctypes.c_int64 and len(copy.argtypes) == 4
