"""Where models, corpora and projectors lie on the disk, with errors that say how to get what is missing.

Nothing is downloaded here, and nothing else is taken in the place of what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from audio_projection.config import NANO, PROJECTOR_KINDS, Config, DataConfig, GGUFConfig, LLMConfig, TTSConfig
from audio_projection.errors import AudioProjectionError
from audio_projection.files.corpus_folders import LIBRI, TABLES, check_librispeech, check_table, librispeech_below
from audio_projection.files.json_reader import read_json

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parents[1]
NANO_FOLDER = PACKAGE / "nano"
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
"""What is downloaded of a hub repository; never the second copy of the weights that some keep in `original/`."""
SKIPPED_FILES = ["original/*"]
SHIPPED_KINDS = ("linear", "residual")
SHIPPED_FOR = {NANO: "", "HuggingFaceTB/SmolLM2-135M-Instruct": "smollm2-"}
"""Language models whose projectors to the TTS nano are shipped, and what the names of those begin with."""
SHIPPED_PROJECTORS = {
    f"shipped/{prefix}{kind}": NANO_FOLDER / "projectors" / f"{prefix}{kind}"
    for prefix in SHIPPED_FOR.values()
    for kind in SHIPPED_KINDS
}
"""Words that name the projectors of the package themselves, and their folders; of the LLM nano: shipped/linear."""
PARTS = ("llm", "tts", "data")
"""What `audio-projection download` gets, by the sections of the configuration."""
DOWNLOAD = "download models and data with `python scripts/download_models.py` (audio-projection download)"
TRAIN = "train a projector with `python src/train.py` (audio-projection train)"
BUNDLED = "or use the bundled stack with --config configs/nano.yaml"


def find_llm(config: Config) -> Path:
    """Folder or GGUF file of the language model; raises `AudioProjectionError` with the ways on where it is missing."""
    if config.llm.file is not None:
        return _checked_file(config.llm.file)
    if config.llm.by_llama_cpp:
        return config.gguf.llm or find_gguf(config.gguf, "llm.gguf")
    packaged = find_llm_file(config.llm, config.models_dir)
    return packaged or _find_model("language model", config.llm, NANO_FOLDER / "llm", config.models_dir)


def find_llm_file(llm: LLMConfig, models_dir: Path | None) -> Path | None:
    """The GGUF file that is the language model: the one that it is named by; or, where the model of the hub is not
    here, the one that `download` took out of its package. None: it is, or would be, a folder."""
    if llm.file is not None:
        return llm.file
    if llm.package is None or find_model(llm, models_dir) is not None:
        return None
    files = sorted(package_folder(llm.package, models_dir).glob("*.gguf"))
    return files[0] if files else None


def package_folder(package: str, models_dir: Path | None) -> Path:
    """Where the GGUF file of a package, name==version, lies once it was downloaded."""
    from huggingface_hub.constants import HF_HOME

    home = models_dir if models_dir is not None else Path(HF_HOME) / "audio-projection"
    return home / package.replace("==", "-")


def _checked_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = "is a folder" if path.is_dir() else "is not there"
    raise AudioProjectionError(f"the language model's file {path} {found}: correct llm.name, a GGUF file by its path")


def find_tts(config: Config) -> Path:
    """Folder of the Qwen3-TTS; raises `AudioProjectionError` with the ways on when it is not there."""
    if config.tts.backend == "gguf":
        return find_gguf(config.gguf, "tts")
    return _find_model("speech model", config.tts, NANO_FOLDER / "tts", config.models_dir)


def find_gguf(gguf: GGUFConfig, name: str) -> Path:
    """A file or folder of what `export gguf --all` made; raises `AudioProjectionError` with the command to make it."""
    if gguf.folder is None:
        raise AudioProjectionError("a gguf back end needs gguf.folder: say where `export gguf --all` put its files")
    if (gguf.folder / name).exists():
        return gguf.folder / name
    command = f"audio-projection export gguf --config CONFIG --all {gguf.folder}"
    raise Missing(f"{name} in {gguf.folder}", f"make the GGUF files with `{command}`")


def check_gguf_folder(folder: Path) -> None:
    """Raises `AudioProjectionError` for a folder that `export gguf --all` has not made."""
    if not (folder / "config.yaml").is_file():
        command = f"audio-projection export gguf --config CONFIG --all {folder}"
        raise Missing(f"config.yaml in {folder}", f"make the GGUF files with `{command}`")


def find_corpus(data: DataConfig) -> Path | None:
    """The recordings' folder or manifest; none when the configuration needs no recordings."""
    if data.source == "self":
        return None
    if data.path is None:
        raise AudioProjectionError(f"data.source is {data.source} but data.path is not set: say where the data lies")
    libri = data.source in LIBRI
    place = data.path / data.subset if libri else data.path
    if place.exists() and data.source in TABLES:
        check_table(data.source, place)
    if place.exists():
        return place
    if libri and librispeech_below(data.path) is not None:
        check_librispeech(data.path, data.subset)
    raise Missing(f"the recordings {place}", DOWNLOAD if libri else "correct data.path")


def find_projector(config: Config, choice: str | None = None) -> Path:
    """Folder or GGUF file of the projector to speak with; which one was taken is logged.

    There is one rule for the command line, `Voice.from_config`, the evaluations and the export. `choice` is

    - a kind (linear, residual): the projector of that kind that was trained with this configuration, in
      output_dir/KIND/projector; where there is none, the one that is shipped for the LLM (`SHIPPED_FOR`) and the TTS
      nano;
    - shipped/linear, shipped/smollm2-linear ...: the shipped one, also where another was trained;
    - anything else: the folder of a trained projector, or a projector's GGUF file (a folder called linear: ./linear);
    - None: projector.path where it is set; else, with a GGUF language model, the projector.gguf that was exported
      beside it; else the configuration's projector.kind.

    Raises AudioProjectionError when it is not there.
    """
    place, origin = locate_projector(config, choice)
    log.info("projector: %s (%s)", place, origin)
    return place


def locate_projector(config: Config, choice: str | None = None) -> tuple[Path, str]:
    """What `find_projector` finds, unlogged, and its origin: trained here, shipped, exported or given."""
    if choice is None and config.projector.path is not None:
        return given_projector(config.projector.path), "given"
    if choice in SHIPPED_PROJECTORS:
        return _checked(SHIPPED_PROJECTORS[choice]), "shipped"
    if choice is not None and choice not in PROJECTOR_KINDS:
        return given_projector(Path(choice).expanduser()), "given"
    if choice is None and config.gguf.folder is not None and config.llm.by_llama_cpp:
        return find_gguf(config.gguf, "projector.gguf"), "exported"
    kind = choice or config.projector.kind
    own = kind == config.projector.kind
    trained = config.trained_projector if own else config.output_dir / kind / "projector"
    if is_projector(trained):
        return trained, "trained here"
    shipped = _shipped_for(config, kind)
    if shipped is not None:
        return shipped, "shipped"
    raise Missing(f"a trained projector in {trained}", TRAIN)


def _shipped_for(config: Config, kind: str) -> Path | None:
    """The projector of this kind that is in the package for the configuration's LLM and TTS."""
    if config.llm.name not in SHIPPED_FOR or config.tts.name != NANO:
        return None
    shipped = SHIPPED_PROJECTORS.get(f"shipped/{SHIPPED_FOR[config.llm.name]}{kind}")
    return shipped if shipped is not None and is_projector(shipped) else None


def is_projector(path: Path) -> bool:
    """Whether this is the folder of a projector, or a GGUF file."""
    return (path / "projector.json").is_file() or (path.suffix == ".gguf" and path.is_file())


class Missing(AudioProjectionError):
    """A model, corpus or projector that is not there; `thing` names it, `way` says how to get or make it."""

    def __init__(self, thing: str, way: str) -> None:
        super().__init__(f"missing: {thing}; {way}, {BUNDLED}")
        self.thing, self.way = thing, way


def check_for_speaking(config: Config, projector: str | None = None) -> None:
    """Raises one `AudioProjectionError` that names everything that speaking still misses."""
    _check([lambda: find_llm(config), lambda: find_tts(config), lambda: locate_projector(config, projector)])


def check_trainable(tts: TTSConfig) -> None:
    """Raises `AudioProjectionError` for a TTS without gradients: one that llama.cpp runs."""
    if tts.backend == "gguf":
        raise AudioProjectionError("a TTS that llama.cpp runs cannot be trained through: use tts.backend=torch")


def check_for_training(config: Config) -> None:
    """Raises one `AudioProjectionError` that names everything that training still misses."""
    check_trainable(config.tts)
    _check([lambda: find_llm(config), lambda: find_tts(config), lambda: find_corpus(config.data)])


def check_for_fitting(config: Config) -> None:
    """Raises one `AudioProjectionError` that names everything that a fit still misses: of recordings it needs only
    their transcripts, and with data.source=self only texts."""
    _check([lambda: find_llm(config), lambda: find_tts(config), lambda: _find_transcripts(config.data)])


def _find_transcripts(data: DataConfig) -> Path | None:
    try:
        return find_corpus(data)
    except Missing as error:
        way = f"{error.way} (or fit to texts alone with data.source=self data.texts=FILE)"
        raise Missing(error.thing, way) from None


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


def given_projector(path: Path) -> Path:
    """The projector at a path: its folder or GGUF file, or the folder of a run (output_dir, or KIND in it).

    Raises AudioProjectionError when none is there, and when a run has projectors of both kinds.
    """
    found = [] if is_projector(path) else _projectors_in(path)
    if len(found) > 1:
        raise AudioProjectionError(f"{path} has several projectors: give {' or '.join(map(str, found))}")
    return _checked(found[0] if found else path)


def has_projector(path: Path) -> bool:
    """Whether a path is a projector, or the folder of a run that has some."""
    return is_projector(path) or bool(_projectors_in(path))


def _projectors_in(run: Path) -> list[Path]:
    inside = [run / "projector", *(run / kind / "projector" for kind in PROJECTOR_KINDS)]
    return [place for place in inside if is_projector(place)]


def _checked(path: Path) -> Path:
    if is_projector(path):
        return path
    found = "no projector.json in it" if path.is_dir() else "no such folder"
    words = ", ".join((*PROJECTOR_KINDS, *(name for name, place in SHIPPED_PROJECTORS.items() if is_projector(place))))
    raise AudioProjectionError(f"projector {path}: {found}; give {words} or the folder of a trained projector")


def find_model(model: LLMConfig | TTSConfig, models_dir: Path | None) -> Path | None:
    """Folder of a complete model: a folder given by name, under models_dir, or in the hub's cache; else None."""
    local = Path(model.name).expanduser()
    if _has_weights(local):
        return local
    folder = models_dir / model.name if models_dir is not None else _cached(model)
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
        shards = set(read_json(index)["weight_map"].values())
        return all((folder / shard).is_file() for shard in shards)
    except (AudioProjectionError, KeyError, TypeError, AttributeError, OSError):
        return False


def _find_model(role: str, model: LLMConfig | TTSConfig, shipped: Path, models_dir: Path | None) -> Path:
    if model.name == NANO:
        if _has_weights(shipped):
            return shipped
        raise AudioProjectionError(f"the bundled {role} is missing from {shipped}: install audio-projection again")
    folder = find_model(model, models_dir)
    if folder is not None:
        return folder
    place = f"{models_dir}" if models_dir is not None else "the model hub's cache"
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
