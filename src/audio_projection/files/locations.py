"""Where models and trained projectors lie on the disk, and what to say when they are not there.

Nothing is fetched here, and nothing is put in the place of what is missing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from audio_projection.config import NANO, Config, LLMConfig, TTSConfig
from audio_projection.errors import AudioProjectionError

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parents[1]
NANO_FOLDER = PACKAGE / "nano"
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
"""What is fetched of a hub repository; never the second copy of the weights that some keep in `original/`."""
SKIPPED_FILES = ["original/*"]
PROJECTOR_KINDS = ("linear", "residual")
DOWNLOAD = "bring models and data with `python scripts/download_models.py` (audio-projection download)"
TRAIN = "train a projector with `python src/train.py` (audio-projection train)"
BUNDLED = "or use the bundled stack with --config configs/nano.yaml"


def find_llm(config: Config) -> Path:
    """Folder of the language model; raises `AudioProjectionError` with the ways on when it is not there."""
    if config.llm.backend == "gguf":
        return config.gguf.llm or find_gguf(config, "llm.gguf")
    return _find_model("language model", config.llm, NANO_FOLDER / "llm", config)


def find_tts(config: Config) -> Path:
    """Folder of the Qwen3-TTS; raises `AudioProjectionError` with the ways on when it is not there."""
    if config.tts.backend == "gguf":
        return find_gguf(config, "tts")
    return _find_model("speech model", config.tts, NANO_FOLDER / "tts", config)


def find_gguf(config: Config, name: str) -> Path:
    """A file or folder of what `export gguf --all` made; raises `AudioProjectionError` with the command to make it."""
    if config.gguf.folder is None:
        raise AudioProjectionError("a gguf back end needs gguf.folder: say where `export gguf --all` put its files")
    if (config.gguf.folder / name).exists():
        return config.gguf.folder / name
    command = f"audio-projection export gguf --config CONFIG --all {config.gguf.folder}"
    raise Missing(f"{name} in {config.gguf.folder}", f"make the GGUF files with `{command}`")


def check_gguf_folder(folder: Path) -> None:
    """Raises `AudioProjectionError` for a folder that `export gguf --all` has not made."""
    if not (folder / "config.yaml").is_file():
        command = f"audio-projection export gguf --config CONFIG --all {folder}"
        raise Missing(f"config.yaml in {folder}", f"make the GGUF files with `{command}`")


def find_corpus(config: Config) -> Path | None:
    """The recordings' folder or manifest; none when the configuration needs no recordings."""
    data = config.data
    if data.source == "self":
        return None
    if data.path is None:
        raise AudioProjectionError(f"data.source is {data.source} but data.path is not set: say where the data lies")
    place = data.path / data.subset if data.source == "librispeech" else data.path
    if place.exists():
        return place
    raise Missing(f"the recordings {place}", DOWNLOAD if data.source == "librispeech" else "correct data.path")


def find_projector(config: Config, choice: str | None = None) -> Path:
    """Folder or GGUF file of the trained projector: `choice` is a kind, a place, or none for what the configuration
    says (with a GGUF language model, the projector exported beside it).

    With the nano models a kind names the projector that ships with the package; without a choice, a projector
    that was trained with this configuration comes before the shipped one.
    """
    given = _named_folder(config, choice)
    if given is not None:
        return _checked(given)
    folder = _projector_of_kind(config, choice)
    made = "exported" if folder.suffix == ".gguf" else "trained here"
    log.info("projector: %s (%s)", folder, "shipped" if folder.is_relative_to(NANO_FOLDER) else made)
    return folder


def _projector_of_kind(config: Config, choice: str | None) -> Path:
    nano = config.llm.name == NANO and config.tts.name == NANO
    kind = choice or config.projector.kind
    trained, shipped = config.output_dir / kind / "projector", NANO_FOLDER / "projectors" / kind
    if config.gguf.folder is not None and choice is None and config.llm.backend == "gguf":
        return find_gguf(config, "projector.gguf")
    order = ([shipped] if choice else [trained, shipped]) if nano else [trained]
    for folder in order:
        if (folder / "projector.json").is_file():
            return folder
    raise Missing(f"a trained projector in {order[0]}", TRAIN)


class Missing(AudioProjectionError):
    """Something that can be brought or made; `thing` is what, `way` is how."""

    def __init__(self, thing: str, way: str) -> None:
        super().__init__(f"missing: {thing}; {way}, {BUNDLED}")
        self.thing, self.way = thing, way


def check_for_speaking(config: Config, projector: str | None = None) -> None:
    """Raises one `AudioProjectionError` that names everything that speaking still misses."""
    models: list[Callable[[], object]] = [lambda: find_llm(config), lambda: find_tts(config)]
    given = _named_folder(config, projector)
    if given is None:
        models.append(lambda: _projector_of_kind(config, projector))
    else:
        _checked(given)
    _check(models)


def check_trainable(config: Config) -> None:
    """Raises `AudioProjectionError` for a TTS that has no gradient."""
    if config.tts.backend == "gguf":
        raise AudioProjectionError("a TTS that llama.cpp runs cannot be trained through: use tts.backend=torch")


def check_for_training(config: Config) -> None:
    """Raises one `AudioProjectionError` that names everything that training still misses."""
    check_trainable(config)
    _check([lambda: find_llm(config), lambda: find_tts(config), lambda: find_corpus(config)])


def check_for_fitting(config: Config) -> None:
    """The same for the fit alone, which needs recordings only for their transcripts."""
    texts = [] if config.data.texts is not None else [lambda: find_corpus(config)]
    _check([lambda: find_llm(config), lambda: find_tts(config), *texts])


def _check(finders: Sequence[Callable[[], object]]) -> None:
    missing: list[Missing] = []
    for find in finders:
        try:
            find()
        except Missing as error:
            missing.append(error)
    if missing:
        things = ", ".join(error.thing for error in missing)
        ways = ", ".join(dict.fromkeys(error.way for error in missing))
        raise AudioProjectionError(f"missing: {things}; {ways}, {BUNDLED}")


def _named_folder(config: Config, choice: str | None) -> Path | None:
    if choice is None:
        return config.projector.path
    return None if choice in PROJECTOR_KINDS else Path(choice).expanduser()


def _checked(path: Path) -> Path:
    if (path / "projector.json").is_file() or (path.suffix == ".gguf" and path.is_file()):
        return path
    found = "no projector.json in it" if path.is_dir() else "no such folder"
    raise AudioProjectionError(f"projector {path}: {found}; give linear, residual or the folder of a trained projector")


def find_model(model: LLMConfig | TTSConfig, config: Config) -> Path | None:
    """Folder of a complete model: a folder given by name, under models_dir, or in the hub's cache; else None."""
    local = Path(model.name).expanduser()
    if _has_weights(local):
        return local
    folder = config.models_dir / model.name if config.models_dir is not None else _cached(model)
    if folder is None or not _has_weights(folder):
        return None
    codec_missing = isinstance(model, TTSConfig) and not _has_weights(folder / "speech_tokenizer")
    return None if codec_missing else folder


def _has_weights(folder: Path) -> bool:
    """Whether a model folder has its configuration and every weight file that its index names."""
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError):
        return False
    return all((folder / shard).is_file() for shard in shards)


def _find_model(role: str, model: LLMConfig | TTSConfig, shipped: Path, config: Config) -> Path:
    if model.name == NANO:
        if _has_weights(shipped):
            return shipped
        raise AudioProjectionError(f"the bundled {role} is missing from {shipped}: install audio-projection again")
    folder = find_model(model, config)
    if folder is not None:
        return folder
    place = f"{config.models_dir}" if config.models_dir is not None else "the model hub's cache"
    raise Missing(f"the {role} {model.name} in {place}", DOWNLOAD)


def _cached(model: LLMConfig | TTSConfig) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            model.name,
            revision=model.revision,
            allow_patterns=MODEL_FILES,
            ignore_patterns=SKIPPED_FILES,
            local_files_only=True,
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return Path(folder)
