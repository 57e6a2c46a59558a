"""Where models and trained projectors lie on the disk, and what to say when they are not there.

Nothing is fetched here, and nothing is put in the place of what is missing.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from audio_projection.config import NANO, Config, LLMConfig, TTSConfig
from audio_projection.errors import AudioProjectionError

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parent
NANO_FOLDER = PACKAGE / "nano"
PROJECTOR_KINDS = ("linear", "residual")
WAYS_ON = (
    "bring it with `python scripts/download_models.py` (audio-projection download), "
    "or use the bundled models with --config configs/nano.yaml"
)


def find_llm(config: Config) -> Path:
    """Folder of the language model; raises `AudioProjectionError` with the ways on when it is not there."""
    return _find_model("language model", config.llm, NANO_FOLDER / "llm", config)


def find_tts(config: Config) -> Path:
    """Folder of the Qwen3-TTS; raises `AudioProjectionError` with the ways on when it is not there."""
    return _find_model("speech model", config.tts, NANO_FOLDER / "tts", config)


def find_projector(config: Config, choice: str | None = None) -> Path:
    """Folder of the trained projector: `choice` is a kind, a folder, or none for what the configuration says.

    With the nano models a kind names the projector that ships with the package; without a choice, a projector
    that was trained with this configuration comes before the shipped one.
    """
    nano = config.llm.name == NANO and config.tts.name == NANO
    if choice is not None and choice not in PROJECTOR_KINDS:
        return _given(Path(choice).expanduser())
    if choice is None and config.projector.path is not None:
        return _given(config.projector.path)
    kind = choice or config.projector.kind
    trained, shipped = config.output_dir / kind / "projector", NANO_FOLDER / "projectors" / kind
    order = ([shipped] if choice else [trained, shipped]) if nano else [trained]
    for folder in order:
        if (folder / "projector.json").is_file():
            log.info("projector: %s (%s)", folder, "shipped" if folder == shipped else "trained here")
            return folder
    raise AudioProjectionError(
        f"no trained projector in {order[0]}: train one with the same --config (python src/train.py), "
        "give one with --projector PATH, or use the bundled one with --config configs/nano.yaml"
    )


def _given(path: Path) -> Path:
    if (path / "projector.json").is_file():
        return path
    found = "no projector.json in it" if path.is_dir() else "no such folder"
    raise AudioProjectionError(f"projector {path}: {found}; give linear, residual or the folder of a trained projector")


def find_model(name: str, revision: str, config: Config) -> Path | None:
    """Folder of a complete model: a folder given by name, under models_dir, or in the hub's cache; else None."""
    local = Path(name).expanduser()
    if is_complete(local):
        return local
    if config.models_dir is not None:
        folder = config.models_dir / name
        return folder if is_complete(folder) else None
    return _find_cached(name, revision)


def is_complete(folder: Path) -> bool:
    """Whether a model folder has its configuration and every weight file that its index names."""
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError):
            return False
        return all((folder / shard).is_file() for shard in shards)
    return (folder / "model.safetensors").is_file()


def _find_model(role: str, model: LLMConfig | TTSConfig, shipped: Path, config: Config) -> Path:
    if model.name == NANO:
        if is_complete(shipped):
            return shipped
        raise AudioProjectionError(f"the bundled {role} is missing from {shipped}: install audio-projection again")
    folder = find_model(model.name, model.revision, config)
    if folder is not None:
        return folder
    place = f"{config.models_dir}" if config.models_dir is not None else "the model hub's cache"
    raise AudioProjectionError(f"the {role} {model.name} is not in {place}: {WAYS_ON}")


def _find_cached(name: str, revision: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if is_complete(folder) else None
