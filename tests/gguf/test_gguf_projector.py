"""Projectors as GGUF files give the same projected embeddings as the folder, and refuse the same models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("gguf", reason="the gguf package is not installed (audio-projection[gguf])")

from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.gguf.projector_file import read_projector, write_projector
from audio_projection.gguf.reader import read_gguf
from audio_projection.projector import Projector, check_matches
from helpers.gguf_files import llm_file, tiny_projector


def features(projector: Projector) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(40, len(projector.info.layers), projector.info.llm_size, generator=generator)
    return projector(states, torch.randn(40, projector.info.tts_size, generator=generator)).detach()


@pytest.mark.parametrize(("wanted", "most"), [("F32", 0.0), ("F16", 1e-3), ("Q8_0", 1e-2)])
@pytest.mark.parametrize("kind", ["linear", "residual"])
def test_the_features_are_the_same(tmp_path: Path, kind: str, wanted: str, most: float) -> None:
    """The shipped projectors, whose weights are trained."""
    projector = Projector.from_pretrained(NANO_FOLDER / "projectors" / kind)
    file = write_projector(projector, tmp_path / "a b" / f"{kind} é.gguf", wanted)
    read = read_projector(file.path)
    assert read.info == projector.info and read.voice == projector.voice
    expected = features(projector)
    difference = float((features(read) - expected).norm() / expected.norm())
    print(f"{kind} {wanted}: {difference:.1e}")
    assert difference <= most
    for info in file.tensors.values():
        assert info.type == ("F32" if len(info.shape) == 1 else wanted), info.name


@pytest.mark.parametrize("mix", ["scalar", "concat"])
@pytest.mark.parametrize("kind", ["linear", "residual", "mlp"])
def test_several_layers_and_an_x_vector_are_kept(tmp_path: Path, kind: str, mix: str) -> None:
    projector = tiny_projector(kind, layers=[0, 3, 5], mix=mix, measurements={"fit": {"r2": 0.5}})
    projector.set_voice(torch.randn(48), "reader 103")
    read = read_projector(write_projector(projector, tmp_path / "p.gguf", "F32").path)
    assert read.info == projector.info and isinstance(read.voice, torch.Tensor)
    assert torch.equal(read.voice, projector.voice) and torch.equal(features(read), features(projector))  # type: ignore[arg-type]


def test_the_layout_is_that_of_multimodal_projectors(tmp_path: Path) -> None:
    metadata = write_projector(tiny_projector(), tmp_path / "p.gguf").metadata
    assert (metadata["general.architecture"], metadata["general.type"]) == ("clip", "mmproj")
    assert metadata["clip.audio.embedding_length"] == 64 and metadata["clip.audio.projection_dim"] == 32
    assert metadata["audio_projection.state_convention"] == "bound" and metadata["audio_projection.layers"] == [-1]
    assert set(read_gguf(tmp_path / "p.gguf").tensors) == {"mm.0.weight", "mm.0.bias", "mm.norm.weight", "mm.norm.bias"}


class Model:
    """What a projector compares of an LLM or a TTS."""

    def __init__(self, size: int, tokenizer_hash: str) -> None:
        self.name, self.hidden_size, self.tokenizer_hash, self.config = "model", size, tokenizer_hash, self


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"llm_tokenizer_hash": "another"}, "LLM tokenizer differs"),
        ({"tts_tokenizer_hash": "another"}, "TTS tokenizer differs"),
        ({"state_convention": "before-token"}, "wants states 'before-token'"),
        ({"llm_size": 63}, "LLM hidden size differs"),
        ({"tts_size": 31}, "TTS hidden size differs"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    projector = tiny_projector(llm_tokenizer_hash="llm", tts_tokenizer_hash="tts")
    llm, tts = Model(64, "llm"), Model(32, "tts")
    check_matches(read_projector(write_projector(projector, tmp_path / "p.gguf").path).info, llm, tts)
    other = tiny_projector(**(vars(replace(projector.info)) | change))
    with pytest.raises(AudioProjectionError, match=words):
        check_matches(read_projector(write_projector(other, tmp_path / "q.gguf").path).info, llm, tts)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioProjectionError, match="no projector of this program.*export gguf"):
        read_projector(llm_file(tmp_path))


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    projector = tiny_projector()
    projector.info.tts_size = 16  # the weights stay 32 wide
    with pytest.raises(AudioProjectionError, match="do not fit its keys"):
        read_projector(write_projector(projector, tmp_path / "p.gguf").path)
