"""Exports LLM, projector and TTS to a folder of GGUF files that `speak --gguf FOLDER` runs on a CPU.

llm.gguf  projector.gguf  talker.gguf  predictor.gguf
tts/         the rest of the TTS checkpoint: embeddings, heads, codec, tokenizer
config.yaml  the configuration that speaks with these files
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import replacing, write_bytes
from audio_projection.files.fingerprint import fingerprint
from audio_projection.files.locations import find_llm, find_llm_file, find_projector, find_tts
from audio_projection.files.tensor_folder import TensorFolder
from audio_projection.files.tensors import write_tensors
from audio_projection.gguf.llm_file import check_llm, write_llm
from audio_projection.gguf.optional_packages import binding
from audio_projection.gguf.projector_file import write_projector
from audio_projection.gguf.quantise import K_QUANTS, describe_types, quantise, unexpected_types
from audio_projection.gguf.reader import GGUFFile
from audio_projection.gguf.talker_file import (
    Checkpoint,
    Replaced,
    is_stack_tensor,
    is_talker_tensor,
    write_predictor,
    write_talker,
)
from audio_projection.gguf.tokenizer import read_tokenizer
from audio_projection.gguf.writer import PLAIN_TYPES
from audio_projection.llm.language_model import token_ids_hash, vocabulary_hash
from audio_projection.models import load_projector
from audio_projection.tts.codec.config import CodecConfig
from audio_projection.tts.finetune import load_finetuned
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.weights import official_state_dict

log = logging.getLogger(__name__)

Write = Callable[[Path, str], GGUFFile]


class Export:
    """GGUF export of the models of one configuration: the projector alone, or everything."""

    def __init__(
        self, config: Config, projector: str | None, wanted: str, projector_type: str, llm: Path | None = None
    ) -> None:
        """`wanted`: F32, F16, Q8_0 or Q4_K_M for LLM, talker and code predictor; `projector_type`: F32, F16 or Q8_0;
        `llm`: an existing GGUF file to use instead of exporting the LLM.

        Raises AudioProjectionError for an unknown type, and for a projector that is missing or cannot be exported.
        """
        if wanted not in (*PLAIN_TYPES, *K_QUANTS):
            raise AudioProjectionError(f"unknown GGUF type {wanted!r}; choose one of {', '.join(PLAIN_TYPES)}, Q4_K_M")
        self._config, self._wanted, self._projector_type = _torch_side(config), wanted, projector_type
        self._llm = llm or find_llm_file(config.llm, config.models_dir)
        self._place = find_projector(self._config, projector)
        self._projector = load_projector(self._place)

    def projector(self, path: Path) -> Iterator[str]:
        """Writes the projector alone; yields one line about the file.

        Raises AudioProjectionError for a projector that was trained together with the talker.
        """
        if self._projector.info.finetune != "none":
            raise AudioProjectionError(
                f"{self._place} was trained together with the talker (tts.finetune={self._projector.info.finetune}) "
                "and speaks with that one only: export both with --all FOLDER"
            )
        yield self._written_projector(path)

    def everything(self, folder: Path) -> Iterator[str]:
        """Writes all files, one after another; yields one line about each when it is written.

        Raises AudioProjectionError for models that are missing or do not fit, before anything is written.
        """
        tts, llm = find_tts(self._config), self._checked_llm()
        source, target = tts.resolve(), (folder / "tts").resolve()
        if source.is_relative_to(target) or target.is_relative_to(source):
            raise AudioProjectionError(
                f"{folder / 'tts'} would be written over the speech model {tts}; choose another folder"
            )
        checkpoint = self._checkpoint(tts)
        CodecConfig.from_folder(tts / "speech_tokenizer")  # a broken codec is an error now, not when it is to speak
        if self._wanted in K_QUANTS:
            binding()  # a missing llama.cpp is an error now, not after gigabytes are written
        with suppress(FileNotFoundError):
            (folder / "config.yaml").unlink()  # written last, so that an incomplete export does not speak
        if llm is None:
            model, name = find_llm(self._config), self._config.llm.name
            yield self._written(folder / "llm.gguf", lambda path, kind: write_llm(model, path, name, kind))
            check_llm(folder / "llm.gguf")
        self._projector.info.talker = checkpoint.finetuned
        yield self._written_projector(folder / "projector.gguf")
        yield self._written(folder / "talker.gguf", lambda path, kind: write_talker(checkpoint, path, kind))
        yield self._written(folder / "predictor.gguf", lambda path, kind: write_predictor(checkpoint, path, kind))
        bfloat16 = _write_rest(tts, folder / "tts") and self._wanted != "F32"
        yield f"{folder / 'tts'}: embeddings, heads, codec and tokenizer"
        write_bytes(folder / "config.yaml", yaml.safe_dump(self._settings(llm, bfloat16), sort_keys=False).encode())
        yield f"{folder / 'config.yaml'}: speak with `audio-projection speak --gguf {folder}`"

    def _checkpoint(self, folder: Path) -> Checkpoint:
        """The TTS, with the talker that was fine-tuned with the projector (LoRA merged) in the place of its own."""
        checkpoint, kind = Checkpoint.from_folder(folder), self._projector.info.finetune
        if kind == "none":
            return checkpoint
        tts = Qwen3TTS.from_pretrained(folder)
        load_finetuned(tts, kind, self._place)
        tuned = {name: value for name, value in official_state_dict(tts).items() if is_talker_tensor(name)}
        tensors = Replaced(checkpoint.tensors, tuned)
        return replace(checkpoint, tensors=tensors, finetuned=fingerprint(tts.talker))

    def _written_projector(self, path: Path) -> str:
        return self._described(write_projector(self._projector, path, self._projector_type), self._projector_type)

    def _checked_llm(self) -> Path | None:
        """The path of the given LLM file; AudioProjectionError if its tokenizer or size is not the projector's."""
        if self._llm is None:
            return None
        file, info = check_llm(self._llm), self._projector.info
        width = file.whole(f"{file.architecture}.embedding_length")
        tokenizer = read_tokenizer(file)
        same = info.llm_tokenizer_hash in ("", vocabulary_hash(tokenizer))
        same = same and info.llm_token_ids_hash in ("", token_ids_hash(tokenizer))
        if width != info.llm_size or not same:
            what = "another tokenizer" if not same else f"hidden size {width}, not {info.llm_size}"
            raise AudioProjectionError(f"{self._llm} has {what}: the projector was trained with {info.llm!r}")
        return self._llm.resolve()

    def _written(self, path: Path, write: Write) -> str:
        log.info("writing %s", path)
        if self._wanted not in K_QUANTS:
            return self._described(write(path, self._wanted), self._wanted)
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".export-", dir=path.parent) as place:
            exact = write(Path(place) / path.name, "F16").path
            return self._described(quantise(exact, path, self._wanted, self._config.threads or 1), self._wanted)

    @staticmethod
    def _described(file: GGUFFile, wanted: str) -> str:
        for tensor in unexpected_types(file, wanted):
            log.warning("%s: %s, not %s", file.path.name, tensor, wanted)
        return f"{file.path}: {file.path.stat().st_size / 1e6:.1f} MB, {describe_types(file)}"

    def _settings(self, llm: Path | None, bfloat16: bool) -> dict[str, Any]:
        """The contents of config.yaml; paths are relative to the folder.

        `bfloat16`: embeddings and heads stay in the checkpoint's bfloat16, which halves the bytes read for a frame.
        """
        config, dtype = self._config, "bfloat16" if bfloat16 else "auto"
        speaking = {"layout", "longest", "normalise", "lexicon", "language", "speaker"}
        return {
            "root": ".",
            "llm": {
                "name": config.llm.name if config.llm.file is None else str(llm),
                "backend": "gguf",
                **config.llm.model_dump(include={"max_new_tokens", "system"}),
            },
            "tts": {
                "name": config.tts.name,
                "backend": "gguf",
                "dtype": dtype,
                **config.tts.model_dump(include=speaking),
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
    """The configuration with both back ends set to torch: exports start from the original checkpoints."""
    llm = config.llm.model_copy(update={"backend": "transformers"})
    return config.model_copy(update={"llm": llm, "tts": config.tts.model_copy(update={"backend": "torch"})})


def _write_rest(source: Path, target: Path) -> bool:
    """Copies the TTS folder without the tensors that are in the GGUF files; returns whether the rest is bfloat16."""
    tensors = TensorFolder(source)
    kept = {name: tensors.tensor(name) for name in tensors.names() if not is_stack_tensor(name)}
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        weights = len(inside.parts) == 1 and inside.name.startswith("model") and ".safetensors" in inside.name
        if path.is_file() and not weights:
            with replacing(target / inside) as temporary:
                shutil.copyfile(path, temporary)
    write_tensors(target / "model.safetensors", kept)
    return all(value.dtype == torch.bfloat16 for value in kept.values())
