"""Fine-tuning of the talker beside the projector: none, LoRA on its layers, or its layers in full.

Text embeddings, code embeddings, codebook head, code predictor and codec stay frozen in every case: the projector was
fitted to those text embeddings, and what the talker's layers learn reaches the code predictor through their states.

A fine-tuned talker is saved beside the projector: in the folder `adapter` in peft's own format, or in `talker` as the
trained tensors under their official names; `base.json` in it identifies the TTS that it belongs to.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import write_folder, write_json
from audio_projection.files.json_reader import read_json
from audio_projection.files.tensors import read_tensors, write_tensors
from audio_projection.sampling import seeded
from audio_projection.tts.weights import Source, source

if TYPE_CHECKING:
    from audio_projection.config import Config, LossConfig
    from audio_projection.tts.model import Qwen3TTS
    from audio_projection.tts.talker import Talker

FOLDERS = {"lora": "adapter", "full": "talker"}
LORA_TARGETS = r"transformer\.layers\.\d+\.(self_attn\.(qkv_proj|o_proj)|mlp\.(gate_up_proj|down_proj))"
"""The matrices that get LoRA: all of every talker layer (query, key and value are fused, and so are gate and up)."""
BASE = "base.json"
WEIGHTS = "model.safetensors"
LORA_WEIGHTS = "adapter_model.safetensors"


class Finetuning:
    """No fine-tuning: the whole TTS is frozen. Base class of the other kinds."""

    kind = "none"

    def __init__(self, tts: Qwen3TTS) -> None:
        self.tts = tts

    @contextmanager
    def untuned(self) -> Iterator[None]:
        """Inside, the talker computes with its weights as they were loaded."""
        yield

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Inside, adapters are merged into the talker's matrices, which the decoding loop reads directly."""
        yield

    def save(self, folder: Path, trained: Mapping[str, Tensor]) -> None:
        """Writes the trained tensors, given by their names in the talker, beside the projector in `folder`."""
        for stale in FOLDERS.values():
            shutil.rmtree(folder / stale, ignore_errors=True)


class FullFinetuning(Finetuning):
    """Full fine-tuning of the talker's layers and final norm."""

    kind = "full"

    def __init__(self, tts: Qwen3TTS) -> None:
        super().__init__(tts)
        self._base = base_record(tts, self.kind)
        tts.talker.transformer.requires_grad_(True)

    def save(self, folder: Path, trained: Mapping[str, Tensor]) -> None:
        super().save(folder, trained)
        official: dict[str, Tensor] = {}
        for name, value in trained.items():
            official |= _source(self.tts, name, value).split(value)
        write_tensors(folder / FOLDERS[self.kind] / WEIGHTS, official)
        write_json(folder / FOLDERS[self.kind] / BASE, self._base)


class LoraFinetuning(Finetuning):
    """LoRA (Hu et al., 2021, arXiv 2106.09685) by peft on `LORA_TARGETS`; the B matrices start at zero."""

    kind = "lora"

    def __init__(self, tts: Qwen3TTS, rank: int, alpha: float, seed: int) -> None:
        super().__init__(tts)
        peft = _peft()
        self._base = base_record(tts, self.kind)
        settings = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=LORA_TARGETS, lora_dropout=0.0)
        with seeded(seed):
            self._peft = peft.PeftModel(tts.talker, settings)  # wraps the talker's layers in place

    @contextmanager
    def untuned(self) -> Iterator[None]:
        with self._peft.disable_adapter():
            yield

    @contextmanager
    @torch.no_grad()
    def merged(self) -> Iterator[None]:
        # not peft's merge and unmerge: subtracting the delta again does not restore the weights bit for bit
        layers = [module for module in self.tts.talker.modules() if hasattr(module, "get_delta_weight")]
        bases: list[nn.Linear] = [layer.get_base_layer() for layer in layers]  # type: ignore[operator]
        weights = [base.weight.data for base in bases]
        try:
            for layer, base in zip(layers, bases, strict=True):
                delta = layer.get_delta_weight("default")  # type: ignore[operator]
                base.weight.data = base.weight.data + delta.to(base.weight.dtype)
            with self.untuned():
                yield
        finally:
            for base, weight in zip(bases, weights, strict=True):
                base.weight.data = weight

    def save(self, folder: Path, trained: Mapping[str, Tensor]) -> None:
        super().save(folder, trained)
        with tempfile.TemporaryDirectory() as temporary:
            self._peft.save_pretrained(temporary)
            write_json(Path(temporary) / BASE, self._base)
            files = {path.name: path.read_bytes() for path in Path(temporary).iterdir()}
        write_folder(folder / FOLDERS[self.kind], files)


def check_finetuning(kind: str, loss: LossConfig, tts: Qwen3TTS) -> None:
    """Raises AudioProjectionError when `tts` cannot be fine-tuned as `kind` (`tts.finetune`) with these losses."""
    if kind == "lora":
        _peft()
    if kind != "none" and not any(weight for name, weight in loss.model_dump().items() if name != "rows"):
        raise AudioProjectionError(f"tts.finetune={kind} needs a loss through the talker, e.g. train.loss.talker=1")
    if kind == "full" and (loss.distill or loss.distill_states):
        raise AudioProjectionError(
            "tts.finetune=full keeps no frozen talker to distil from: set train.loss.distill=0 and "
            "train.loss.distill_states=0, or use tts.finetune=lora"
        )
    if kind == "full" and tts.dtype != torch.float32:  # half precision rounds small updates away
        raise AudioProjectionError(
            "tts.finetune=full trains float32 weights: set tts.dtype=float32 "
            "(train.precision=bf16 still computes in bfloat16)"
        )


def finetuning(config: Config, tts: Qwen3TTS) -> Finetuning:
    """Makes the part of the talker trainable that `tts.finetune` names; raises as `check_finetuning` does."""
    check_finetuning(config.tts.finetune, config.train.loss, tts)
    if config.tts.finetune == "lora":
        return LoraFinetuning(tts, config.tts.lora_rank, config.tts.lora_alpha, config.seed)
    return FullFinetuning(tts) if config.tts.finetune == "full" else Finetuning(tts)


def load_finetuned(tts: Qwen3TTS, kind: str, projector: Path) -> None:
    """Loads the talker that was fine-tuned together with the projector in the folder `projector` into `tts`, in place.

    LoRA is merged into the matrices, so that decoding is as fast as without. Raises AudioProjectionError when it is
    missing, damaged or belongs to another TTS.
    """
    if kind == "none":
        return
    if kind not in FOLDERS:
        raise AudioProjectionError(f"{projector}: unknown kind of fine-tuning {kind!r}; train the projector again")
    if projector.suffix == ".gguf":
        raise AudioProjectionError(
            f"{projector} was trained together with the talker, which was exported with it: use tts.backend=gguf, or "
            "the folder of the projector that it was exported from"
        )
    folder = projector / FOLDERS[kind]
    if not (folder / BASE).is_file():
        raise AudioProjectionError(
            f"the projector in {projector} was trained together with the talker, and {folder} is missing: "
            "copy the whole folder"
        )
    _check_base(read_json(folder / BASE), base_record(tts, kind), folder)
    if kind == "full":
        _load_full(tts, folder / WEIGHTS)
    else:
        _merge_lora(tts.talker, folder)
    tts.talker.requires_grad_(False)


def base_record(tts: Qwen3TTS, kind: str) -> dict[str, Any]:
    """Identity of a TTS: a digest of the shapes and first values of the talker's weights, the same in any dtype."""
    first = {name: value.flatten()[:64].to(torch.bfloat16) for name, value in tts.talker.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in tts.talker.state_dict().items()}
    digest = hashlib.sha256(repr(shapes).encode() + save({name: value.cpu() for name, value in first.items()}))
    return {"kind": kind, "tts": tts.name, "talker": digest.hexdigest()}


def _check_base(saved: Any, present: dict[str, Any], folder: Path) -> None:
    if not isinstance(saved, dict) or saved.get("kind") != present["kind"]:
        raise AudioProjectionError(f"{folder / BASE} does not describe a fine-tuned talker; train it again")
    if saved.get("talker") != present["talker"]:
        raise AudioProjectionError(
            f"{folder} does not belong to this TTS: it was trained on {saved.get('tts')!r}, {present['tts']!r} is given"
        )


def _load_full(tts: Qwen3TTS, path: Path) -> None:
    tensors = read_tensors(path)
    with torch.no_grad():
        for name, value in tts.talker.transformer.named_parameters(prefix="transformer"):
            parts = [part for part, _ in _source(tts, name, value).parts]
            if not tensors.keys() >= set(parts):
                raise AudioProjectionError(f"{path} lacks {parts[0]}: copy or train the talker again")
            value.copy_(_source(tts, name, value).join([tensors[part] for part in parts]))


def _source(tts: Qwen3TTS, name: str, value: Tensor) -> Source:
    return source(f"talker.{name}", tuple(value.shape), tts.config)


def _merge_lora(talker: Talker, folder: Path) -> None:
    peft, given = _peft(), len(read_tensors(folder / LORA_WEIGHTS))
    try:
        adapted = peft.PeftModel.from_pretrained(talker, str(folder))
        taken = sum("lora_" in name for name in adapted.state_dict())
        if given == taken:
            adapted.merge_and_unload()
    except Exception as error:  # peft raises whatever a damaged configuration leads to
        reason = " ".join(str(error).split())[:200]
        raise AudioProjectionError(f"{folder} is no whole LoRA adapter ({reason}); copy or train it again") from None
    if given != taken:  # peft only warns
        raise AudioProjectionError(
            f"{folder}: its adapter_config.json asks for {taken} matrices, {LORA_WEIGHTS} has {given}; copy or train "
            "it again"
        )


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise AudioProjectionError(
            "tts.finetune=lora needs peft: pip install 'audio-projection[finetune]' (or pip install peft)"
        ) from None
    return peft
