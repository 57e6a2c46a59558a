"""GGUF reader and writer: files come back as they were written; damage is one clear error, at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf", reason="the gguf package is not installed (audio-projection[gguf])")

from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.gguf.llm_file import check_llm, check_stack
from audio_projection.gguf.projector_file import read_projector
from audio_projection.gguf.reader import SEAL, read_gguf
from audio_projection.gguf.talker_file import PREDICTOR, Checkpoint, check_stack_file, write_predictor
from audio_projection.gguf.writer import PlannedTensor, write_gguf
from audio_projection.tts.config import Qwen3TTSConfig
from helpers.gguf_files import damaged, llm_file, projector_file, unsealed

VALUES = {
    "a.text": "Grüße 🙂\n",
    "a.flag": True,
    "a.count": 7,
    "a.minus": -3,
    "a.share": 0.25,
    "a.words": ["one", "", "zwei"],
    "a.numbers": [1, -2, 3],
}


def planned(name: str, *shape: int) -> PlannedTensor:
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    return PlannedTensor(name, shape, lambda: values)


def start_of_data(path: Path) -> int:
    return min(info.start for info in read_gguf(path).tensors.values())


@pytest.mark.parametrize("wanted", ["F32", "F16", "Q8_0"])
def test_what_was_written_comes_back(tmp_path: Path, wanted: str) -> None:
    tensors = [planned("matrix", 6, 64), planned("odd", 5, 10), planned("vector", 9)]
    file = write_gguf(tmp_path / "a place é" / "файл 1.gguf", "thing", VALUES | {"a.nothing": None}, tensors, wanted)
    assert file.architecture == "thing" and VALUES.items() <= file.metadata.items() and "a.nothing" not in file.metadata
    types = {info.name: info.type for info in file.tensors.values()}
    assert types == {"matrix": wanted, "odd": "F16" if wanted == "Q8_0" else wanted, "vector": "F32"}
    for tensor in tensors:
        error = {"F32": 0.0, "F16": 1e-3, "Q8_0": 2e-2}[wanted]
        np.testing.assert_allclose(file.array(tensor.name), tensor.load(), atol=3 * error)
    assert [path.name for path in file.path.parent.iterdir()] == ["файл 1.gguf"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", "thing", {}, [planned("a", 4)]).path
    before = path.read_bytes()

    def broken() -> np.ndarray:
        raise AudioProjectionError("the source is gone")

    with pytest.raises(AudioProjectionError, match="the source is gone"):
        write_gguf(path, "thing", {}, [planned("a", 4), PlannedTensor("b", (4,), broken)])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty or no GGUF"),
        (b"PK\x03\x04" + bytes(40), "no GGUF file"),
        (b"GGUF" + (1).to_bytes(4, "little") + bytes(40), "version 1 is not known"),
        (b"GGUF\x00\x00\x00\x03" + bytes(40), "version 50331648 is not known"),
        (b"GGUF\x03\x00\x00\x00" + b"\xff" * 8 + bytes(8), "more than the file can hold"),
        (b"GGUF\x03\x00\x00\x00" + bytes(8) + b"\xff" * 8, "more than the file can hold"),
    ],
)
def test_no_gguf_at_all(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(AudioProjectionError, match=words):
        read_gguf(path)


def test_absent_and_unreadable_files(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.gguf", tmp_path):
        with pytest.raises(AudioProjectionError, match="there is no file|cannot read"):
            read_gguf(path)


def predictor_file(folder: Path) -> Path:
    return write_predictor(Checkpoint.from_folder(NANO_FOLDER / "tts"), folder / "predictor.gguf", "Q8_0").path


def read_predictor(path: Path) -> object:
    stack = Qwen3TTSConfig.from_folder(NANO_FOLDER / "tts").predictor.transformer
    return check_stack_file(path, stack, PREDICTOR)


READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "projector": (projector_file, read_projector),
    "llm": (llm_file, check_llm),
    "predictor": (predictor_file, read_predictor),
}


@pytest.mark.parametrize("kind", READERS)
def test_every_damage_is_one_error_within_two_seconds(tmp_path: Path, kind: str) -> None:
    """200 mutations each; the seal detects any change in a header that this package wrote."""
    make, read = READERS[kind]
    whole = make(tmp_path)
    header, data, path = start_of_data(whole), whole.read_bytes(), tmp_path / "damaged file é.gguf"
    checked = data[:header].rstrip(b"\0")
    refused = 0
    for mutation in damaged(data, header, 200, seed=len(kind)):
        if len(mutation) == len(data) and mutation.startswith(checked):
            continue  # only the padding before the tensor data was hit
        path.write_bytes(mutation)
        before = time.process_time()
        error = refusal(read, path)
        assert time.process_time() - before < 2
        # With the seal's own key gone, a language model's file looks like another program's, and may be whole.
        assert error or (kind == "llm" and SEAL.encode() not in mutation)
        refused += error is not None
    assert refused > 185


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    """The error with which a file is refused, None if it is not."""
    try:
        read(path)
    except AudioProjectionError as error:
        assert "\n" not in str(error) and path.name in str(error)
        return str(error)
    return None


def test_cut_after_every_section(tmp_path: Path) -> None:
    whole = projector_file(tmp_path)
    file, data = read_gguf(whole), whole.read_bytes()
    ends = {4, 8, 16, 24, start_of_data(whole)}
    for name in [*file.metadata, *file.tensors]:
        place = data.index(len(name.encode()).to_bytes(8, "little") + name.encode())
        ends |= {place, place + 8, place + 8 + len(name.encode()), place + 12 + len(name.encode())}
    ends |= {info.start + info.size // 2 for info in file.tensors.values()}
    for end in ends:
        (tmp_path / "cut.gguf").write_bytes(data[:end])
        with pytest.raises(AudioProjectionError):
            read_gguf(tmp_path / "cut.gguf")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"llama.block_count": 0}, "llama.block_count is 0"),
        ({"llama.block_count": 5}, "lacks the tensor blk.4"),
        ({"llama.block_count": 2_000_000_000}, "llama.block_count is 2000000000"),
        ({"llama.embedding_length": 64}, "should be"),
        ({"llama.attention.head_count": 0}, "head_count is 0"),
        ({"llama.attention.head_count_kv": 3}, "does not fit"),
        ({"llama.attention.layer_norm_rms_epsilon": -1.0}, "above 0"),
        ({"llama.expert_count": 8}, "expert_count does not fit"),
        ({"llama.expert_used_count": 2}, "expert_used_count does not fit"),
        ({"llama.rope.scaling.type": "foo"}, "rope.scaling.type is none of"),
        ({"llama.attention.causal": False}, "no language model that writes"),
        ({"tokenizer.ggml.tokens": ["a", "b"]}, "should be"),
        ({"tokenizer.ggml.tokens": 3}, "need a list of texts"),
        ({"general.architecture": "clip"}, "architecture 'clip'"),
    ],
)
def test_wrong_sizes_of_an_llm(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    file = read_gguf(unsealed(llm_file(tmp_path)))
    metadata = {
        key: value for key, value in (file.metadata | changes).items() if not key.startswith("audio_projection")
    }
    architecture = str(metadata.pop("general.architecture"))
    for written in ("general.file_type", "general.quantization_version"):
        metadata.pop(written)
    tensors = [
        PlannedTensor(info.name, info.shape, lambda info=info: file.array(info.name)) for info in file.tensors.values()
    ]  # type: ignore[misc]
    changed = write_gguf(tmp_path / "changed.gguf", architecture, metadata, tensors, "F32").path
    with pytest.raises(AudioProjectionError, match=words):
        check_llm(changed)


@pytest.mark.parametrize(
    ("name", "kind", "refused"),
    [
        ("blk.0.attn_norm.weight", "F16", True),
        ("output_norm.weight", "Q8_0", True),
        ("blk.0.attn_q.weight", "I8", True),
        ("token_embd.weight", "F64", True),
        ("blk.0.attn_q.weight", "Q4_K", False),
        ("token_embd.weight", "BF16", False),
    ],
)
def test_types_that_end_llama_cpp_are_refused(tmp_path: Path, name: str, kind: str, refused: bool) -> None:
    file = check_llm(llm_file(tmp_path))
    changed = replace(file, tensors=file.tensors | {name: replace(file.tensors[name], type=kind)})
    rows = len(file.texts("tokenizer.ggml.tokens"))
    with pytest.raises(AudioProjectionError, match=f"{name} as {kind}") if refused else nullcontext():
        check_stack(changed, {"token_embd.weight": rows}, {"output.weight": rows})
