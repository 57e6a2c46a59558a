"""Everything that speaks, as one folder of GGUF files with a configuration of its own.

llm.gguf  projector.gguf  talker.gguf  predictor.gguf
tts/         the official folder without the two decoder stacks: embeddings, heads, codec, tokenizer
config.yaml  what `speak --gguf FOLDER` reads
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import replacing, write_bytes
from audio_projection.files.locations import find_llm, find_projector, find_tts
from audio_projection.files.tensor_folder import TensorFolder
from audio_projection.files.tensors import write_tensors
from audio_projection.gguf.llm_file import check_llm, write_llm
from audio_projection.gguf.optional_packages import binding
from audio_projection.gguf.projector_file import write_projector
from audio_projection.gguf.quantise import K_QUANTS, describe_types, quantise, unexpected_types
from audio_projection.gguf.reader import GGUFFile
from audio_projection.gguf.talker_file import Checkpoint, is_stack_tensor, write_predictor, write_talker
from audio_projection.gguf.tokenizer import read_tokenizer
from audio_projection.gguf.writer import PLAIN_TYPES
from audio_projection.llm.language_model import vocabulary_hash
from audio_projection.models import load_projector
from audio_projection.tts.codec.config import CodecConfig

log = logging.getLogger(__name__)

Write = Callable[[Path, str], GGUFFile]


class Export:
    """One configuration's models on their way into GGUF."""

    def __init__(
        self, config: Config, projector: str | None, wanted: str, projector_type: str, llm: Path | None = None
    ) -> None:
        """`wanted`: F32, F16, Q8_0 or Q4_K_M; `llm`: a file to take as it is. Raises AudioProjectionError naming what
        is missing, before anything is written."""
        if wanted not in (*PLAIN_TYPES, *K_QUANTS):
            raise AudioProjectionError(f"unknown GGUF type {wanted!r}; choose one of {', '.join(PLAIN_TYPES)}, Q4_K_M")
        self._config, self._wanted, self._projector_type, self._llm = _torch_side(config), wanted, projector_type, llm
        self._projector = load_projector(find_projector(self._config, projector))
        if self._projector.info.finetune != "none":
            raise AudioProjectionError(
                "this projector was trained together with the talker (tts.finetune), which is not exported yet: "
                "give one that was trained with tts.finetune=none, with --projector"
            )

    def projector(self, path: Path) -> Iterator[str]:
        """Writes the projector alone; gives a line about the file."""
        yield self._told(write_projector(self._projector, path, self._projector_type), self._projector_type)

    def everything(self, folder: Path) -> Iterator[str]:
        """Writes all files, one after another; gives a line about each when it is there."""
        tts, llm = find_tts(self._config), self._checked_llm()
        source, target = tts.resolve(), (folder / "tts").resolve()
        if source.is_relative_to(target) or target.is_relative_to(source):
            raise AudioProjectionError(
                f"{folder / 'tts'} would be written over the speech model {tts}; choose another folder"
            )
        checkpoint = Checkpoint.from_folder(tts)
        CodecConfig.from_folder(tts / "speech_tokenizer")  # rather now than when it is to speak
        if self._wanted in K_QUANTS:
            binding()  # rather now than after the first gigabytes
        with suppress(FileNotFoundError):
            (folder / "config.yaml").unlink()  # written last: what is there in between does not belong together
        if llm is None:
            model, name = find_llm(self._config), self._config.llm.name
            yield self._written(folder / "llm.gguf", lambda path, kind: write_llm(model, path, name, kind))
            check_llm(folder / "llm.gguf")
        yield from self.projector(folder / "projector.gguf")
        yield self._written(folder / "talker.gguf", lambda path, kind: write_talker(checkpoint, path, kind))
        yield self._written(folder / "predictor.gguf", lambda path, kind: write_predictor(checkpoint, path, kind))
        half = _write_rest(tts, folder / "tts") and self._wanted != "F32"
        yield f"{folder / 'tts'}: embeddings, heads, codec and tokenizer"
        write_bytes(folder / "config.yaml", yaml.safe_dump(self._settings(llm, half), sort_keys=False).encode())
        yield f"{folder / 'config.yaml'}: speak with `audio-projection speak --gguf {folder}`"

    def _checked_llm(self) -> Path | None:
        """The file that was given; refused when the projector was trained with another tokenizer or width."""
        if self._llm is None:
            return None
        file, info = check_llm(self._llm), self._projector.info
        width = file.whole(f"{file.architecture}.embedding_length")
        same = info.llm_tokenizer_hash in ("", vocabulary_hash(read_tokenizer(file)))
        if width != info.llm_size or not same:
            what = "another tokenizer" if not same else f"states of {width} numbers, not {info.llm_size}"
            raise AudioProjectionError(f"{self._llm} has {what}: the projector was trained with {info.llm!r}")
        return self._llm.resolve()

    def _written(self, path: Path, write: Write) -> str:
        log.info("writing %s", path)
        if self._wanted not in K_QUANTS:
            return self._told(write(path, self._wanted), self._wanted)
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".export-", dir=path.parent) as place:
            exact = write(Path(place) / path.name, "F16").path
            return self._told(quantise(exact, path, self._wanted, self._config.threads or 1), self._wanted)

    @staticmethod
    def _told(file: GGUFFile, wanted: str) -> str:
        for surprise in unexpected_types(file, wanted):
            log.warning("%s: %s, not %s", file.path.name, surprise, wanted)
        return f"{file.path}: {file.path.stat().st_size / 1e6:.1f} MB, {describe_types(file)}"

    def _settings(self, llm: Path | None, half: bool) -> dict[str, Any]:
        """The configuration that speaks with the files, relative to their folder; `half`: embeddings and heads stay in
        the bfloat16 that they come in, which is half of what their reading takes."""
        config, dtype = self._config, "bfloat16" if half else "auto"
        spoken = {"layout", "longest", "normalise", "language", "speaker"}
        return {
            "root": ".",
            "llm": {"name": config.llm.name, "backend": "gguf", "max_new_tokens": config.llm.max_new_tokens},
            "tts": {
                "name": config.tts.name,
                "backend": "gguf",
                "dtype": dtype,
                **config.tts.model_dump(include=spoken),
            },
            "gguf": {
                "folder": ".",
                **({} if llm is None else {"llm": str(llm)}),
                **config.gguf.model_dump(include={"context", "memory"}),
            },
            "device": "cpu",
            "threads": config.threads,
            "seed": config.seed,
        }


def _torch_side(config: Config) -> Config:
    """The configuration with the checkpoints that the files are made of."""
    llm = config.llm.model_copy(update={"backend": "transformers"})
    return config.model_copy(update={"llm": llm, "tts": config.tts.model_copy(update={"backend": "torch"})})


def _write_rest(source: Path, target: Path) -> bool:
    """Copies the official folder but for the tensors that are in the GGUF files; whether the others are bfloat16."""
    files = TensorFolder(source)
    kept = {name: files.tensor(name) for name in files.names() if not is_stack_tensor(name)}
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        weights = len(inside.parts) == 1 and inside.name.startswith("model") and ".safetensors" in inside.name
        if path.is_file() and not weights:
            with replacing(target / inside) as temporary:
                shutil.copyfile(path, temporary)
    write_tensors(target / "model.safetensors", kept)
    return all(value.dtype == torch.bfloat16 for value in kept.values())
