"""The trained part: projects the LLM's hidden state of a token into the TTS's text-embedding space.

Three kinds behind one interface. `linear` is activation(LayerNorm(W h + b)) and uses the states only; so does `mlp`,
two linear maps with LayerNorm and GELU between them. `residual` is e + g * U(V norm(h)), where e is the TTS's own text
embedding of the same token; g starts at zero, so that the untrained projector is the TTS conditioned on plain text.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import write_json
from audio_projection.files.json_reader import read_json
from audio_projection.files.tensors import read_tensors, write_tensors

WEIGHTS = "projector.safetensors"
METADATA = "projector.json"
FORMAT = "audio-projection-projector"
VERSION = 1
STATE_CONVENTION = "bound"
"""How the states that a projector takes are made: RMS-normalised, at each token's own position; where a TTS token
overlaps several LLM tokens, their states are bound into one (`alignment.align.bind`)."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "softsign": F.softsign,
    "asinh": torch.asinh,  # like tanh near zero, but without a ceiling
    "gelu": F.gelu,
    "silu": F.silu,
    "relu": F.relu,
}


MIXES = ("scalar", "concat")
"""How the states of several layers come together: their weighted mean, or side by side."""

ADDED_LATER: dict[str, Any] = {
    "finetune": "none",
    "llm_token_ids_hash": "",
    "tts_weights": "",
    "head": None,
    "mix": "scalar",
    "talker": "",
    "hidden": None,
}
"""Entries that older files of projectors do not have, and what they mean there."""


@dataclass
class ProjectorInfo:
    """What a projector was trained for: models, layers, context, voice. Stored beside its weights as projector.json."""

    kind: str = "linear"
    llm_size: int = 0  # D, width of an LLM hidden state
    tts_size: int = 0  # H, width of a TTS text embedding
    layers: list[int] = field(default_factory=lambda: [-1])  # L layer numbers of the LLM, 0 = embeddings
    mix: str = "scalar"  # of several layers: scalar (a weighted mean) or concat (side by side)
    activation: str = "identity"  # linear only
    rank: int | None = None  # residual only
    hidden: int | None = None  # mlp only: width of the inner layer
    state_convention: str = STATE_CONVENTION
    context: str = "raw"  # what the LLM reads before a text: raw or chat
    prompt: str = ""  # the user's turn of the chat context
    head: list[int] | None = None  # LLM token ids before a text in the chat context: a template may write the date
    llm: str = ""  # names of the models, for messages
    tts: str = ""
    llm_tokenizer_hash: str = ""  # SHA-256 of the vocabularies; "" is not compared
    tts_tokenizer_hash: str = ""
    llm_token_ids_hash: str = ""  # SHA-256 of the ids of some texts: how the tokenizer cuts, beside what it knows
    tts_weights: str = ""  # a hash of the TTS's embeddings, to warn beside another TTS of the same sizes
    layout: str = "streaming"  # of the talker's prompt: streaming or nonstreaming
    language: str = "auto"
    voice: str | None = None  # a speaker's name; None with an x-vector in the weights file
    voice_source: str | None = None  # whose voice the x-vector is
    steps: int = 0  # training steps on audio tokens
    finetune: str = "none"  # what of the TTS was trained with it and is stored beside it: none, lora or full
    talker: str = ""  # in a GGUF file, a hash of the fine-tuned talker whose file was exported with it
    measurements: dict[str, Any] = field(default_factory=dict)  # results of probe, fit and training, for people

    def to_json(self) -> dict[str, Any]:
        """The contents of projector.json."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, record: Any, source: str | Path) -> ProjectorInfo:
        """From the contents of projector.json; `source` names the file in errors.

        Raises AudioProjectionError for anything but what `to_json` writes.
        """
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise AudioProjectionError(f"{source} is not projector metadata of this program; give a projector folder")
        if record.get("version") != VERSION:
            raise AudioProjectionError(
                f"{source} has version {record.get('version')}, this program reads {VERSION}; train the projector again"
            )
        known = {item.name for item in fields(cls)}
        values = ADDED_LATER | {name: value for name, value in record.items() if name not in ("format", "version")}
        if values.keys() != known:
            odd = ", ".join(sorted(values.keys() ^ known))
            raise AudioProjectionError(f"{source} has missing or unknown entries ({odd}); train the projector again")
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            name = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise AudioProjectionError(f"{source}: the value of {name} has the wrong type; train it again") from error


class Projector(nn.Module, ABC):
    """LLM hidden states -> projected embeddings, which replace the TTS's text embeddings. float32.

    Called with states (..., L, D) and the TTS's own text embeddings (..., H) of the same tokens, it returns projected
    embeddings (..., H). With more than one layer (L > 1) it takes a mean over them whose softmax weights it learns, or
    with `info.mix` "concat" all L x D numbers side by side.
    """

    kind: str

    def __init__(self, info: ProjectorInfo) -> None:
        super().__init__()
        if info.llm_size < 1 or info.tts_size < 1 or not info.layers:
            raise AudioProjectionError("a projector needs positive sizes of LLM and TTS and at least one layer")
        check_mix(info.mix, len(info.layers))
        self.info = copy.deepcopy(info)  # the voice, measurements and defaults are written to it
        self.voice_vector: Tensor | None = None
        # softmax weights over the layers; a single layer needs none
        weighted = len(info.layers) > 1 and info.mix == "scalar"
        self.mix = nn.Parameter(torch.zeros(len(info.layers))) if weighted else None

    @abstractmethod
    def forward(self, states: Tensor, text_embeddings: Tensor) -> Tensor:
        """(..., L, D), (..., H) -> (..., H). Raises AudioProjectionError for states of other layers or another width.

        The kinds `linear` and `mlp` ignore `text_embeddings`.
        """

    @property
    def input_size(self) -> int:
        """Width of what the projection takes: D, or L x D of layers side by side."""
        return projection_inputs(self.info)

    def mixed(self, states: Tensor) -> Tensor:
        """(..., L, D) -> (..., input_size): the learned weighted mean over the layers, or all of them side by side."""
        expected = (len(self.info.layers), self.info.llm_size)
        if tuple(states.shape[-2:]) != expected:
            raise AudioProjectionError(
                f"the projector takes states of {expected[0]} layer(s) x {expected[1]}, it was given "
                f"{tuple(states.shape[-2:])}; use the LLM and the layers it was trained with"
            )
        if self.mix is None:
            return states.flatten(-2)
        return torch.einsum("l,...ld->...d", self.mix.softmax(0), states)

    @property
    def voice(self) -> str | Tensor | None:
        """The default voice: a speaker's name, an x-vector (float32), or None."""
        return self.voice_vector if self.voice_vector is not None else self.info.voice

    def set_voice(self, voice: str | Tensor | None, source: str | None = None) -> None:
        """Sets the default voice: a speaker's name, an x-vector or none; `source` says whose an x-vector is."""
        named = isinstance(voice, str) or voice is None
        self.info.voice = voice if named else None  # type: ignore[assignment]
        self.info.voice_source = source
        self.voice_vector = None if named else voice.detach().float().cpu().clone()  # type: ignore[union-attr]

    @property
    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes projector.safetensors and projector.json; returns the folder."""
        folder = Path(folder)
        tensors = dict(self.state_dict())
        if self.voice_vector is not None:
            tensors["voice"] = self.voice_vector
        write_tensors(folder / WEIGHTS, tensors)
        write_json(folder / METADATA, self.info.to_json())
        return folder

    @staticmethod
    def from_pretrained(folder: str | Path) -> Projector:
        """Loads a projector from the folder that `save_pretrained` wrote, on the CPU.

        Raises AudioProjectionError for a missing or damaged file and for weights that don't fit the metadata.
        """
        folder = Path(folder)
        if not (folder / METADATA).is_file() or not (folder / WEIGHTS).is_file():
            raise AudioProjectionError(
                f"no trained projector in {folder} ({METADATA} and {WEIGHTS} are needed); "
                "train one with `audio-projection train`, or give --projector PATH"
            )
        projector = build_projector(ProjectorInfo.from_json(read_json(folder / METADATA), folder / METADATA))
        tensors = read_tensors(folder / WEIGHTS)
        voice = tensors.pop("voice", None)
        _load_strictly(projector, tensors, folder / WEIGHTS)
        if voice is not None:
            projector.voice_vector = voice.float()
        return projector


class LinearProjector(Projector):
    """activation(LayerNorm(W h + b)), from the hidden states alone; 4096 -> 2048 has 8.39M parameters."""

    kind = "linear"

    def __init__(self, info: ProjectorInfo) -> None:
        super().__init__(info)
        if info.activation not in ACTIVATIONS:
            raise AudioProjectionError(
                f"unknown projector activation {info.activation!r}; choose one of {', '.join(ACTIVATIONS)}"
            )
        self.linear = nn.Linear(self.input_size, info.tts_size)
        self.norm = nn.LayerNorm(info.tts_size)

    def forward(self, states: Tensor, text_embeddings: Tensor) -> Tensor:
        return ACTIVATIONS[self.info.activation](self.norm(self.linear(self.mixed(states))))


class MLPProjector(Projector):
    """U GELU(LayerNorm(W h + b)) + c, from the hidden states alone; 4096 -> 2048 -> 2048 has 12.6M parameters."""

    kind = "mlp"

    def __init__(self, info: ProjectorInfo) -> None:
        super().__init__(info)
        hidden = info.tts_size if info.hidden is None else info.hidden
        if hidden < 1:
            raise AudioProjectionError(f"projector hidden must be at least 1, not {hidden}")
        self.info.hidden = hidden
        self.linear = nn.Linear(self.input_size, hidden)  # W, b
        self.norm = nn.LayerNorm(hidden)
        self.output = nn.Linear(hidden, info.tts_size)  # U, c

    def forward(self, states: Tensor, text_embeddings: Tensor) -> Tensor:
        return self.output(self.features(states))

    def features(self, states: Tensor) -> Tensor:
        """(..., L, D) -> (..., hidden): what the last linear map takes."""
        return F.gelu(self.norm(self.linear(self.mixed(states))))


class ResidualProjector(Projector):
    """e + g * U(V norm(h)), e the TTS's own text embedding; with g = 0 (untrained) exactly e."""

    kind = "residual"

    def __init__(self, info: ProjectorInfo) -> None:
        super().__init__(info)
        rank = residual_rank(self.input_size, info.tts_size) if info.rank is None else info.rank
        if rank < 1:
            raise AudioProjectionError(f"projector rank must be at least 1, not {rank}")
        self.info.rank = rank
        self.down = nn.Linear(self.input_size, rank, bias=False)  # V
        self.up = nn.Linear(rank, info.tts_size, bias=False)  # U
        self.gate = nn.Parameter(torch.zeros(info.tts_size))  # g

    def forward(self, states: Tensor, text_embeddings: Tensor) -> Tensor:
        return text_embeddings + self.from_states(states)

    def from_states(self, states: Tensor) -> Tensor:
        """(..., L, D) -> (..., H): g * U(V norm(h)), what the hidden states add to the text embedding."""
        mixed = self.mixed(states)
        # a LayerNorm without gain and bias: V would absorb a gain
        return self.gate * self.up(self.down(F.layer_norm(mixed, mixed.shape[-1:])))

    def share_from_states(self, states: Tensor, text_embeddings: Tensor) -> Tensor:
        """|g * U(V norm(h))| / |e| of each token, (...): how much of the speech can come from the hidden states."""
        return self.from_states(states).norm(dim=-1) / text_embeddings.norm(dim=-1).clamp_min(1e-12)


KINDS: dict[str, type[Projector]] = {kind.kind: kind for kind in (LinearProjector, ResidualProjector, MLPProjector)}


def check_mix(mix: str, layers: int) -> None:
    """Raises AudioProjectionError for an unknown mix, and for a single layer side by side with nothing."""
    if mix not in MIXES:
        raise AudioProjectionError(f"unknown projector.mix {mix!r}; choose one of {', '.join(MIXES)}")
    if mix == "concat" and layers < 2:
        raise AudioProjectionError(
            "projector.mix=concat puts several layers side by side, and here is one: give several, for example "
            "llm.layers=[0,last], or leave projector.mix"
        )


def projection_inputs(info: ProjectorInfo) -> int:
    """Width of what a projector of these settings projects: D, or L x D of layers side by side."""
    return info.llm_size * (len(info.layers) if info.mix == "concat" else 1)


def residual_rank(llm_size: int, tts_size: int) -> int:
    """The default rank of the residual kind: U and V have about as many weights as one llm_size x tts_size matrix.

    From 32 on the nearest multiple of 32, because GGUF's Q8_0 quantises the rows of U in blocks of 32.
    """
    rank = llm_size * tts_size / (llm_size + tts_size)
    return 32 * round(rank / 32) if rank >= 32 else max(1, round(rank))


def build_projector(info: ProjectorInfo) -> Projector:
    """An untrained projector of `info.kind`, initialised from torch's global generator; `info` is copied.

    Raises AudioProjectionError for an unknown kind, activation, size or rank.
    """
    if info.kind not in KINDS:
        raise AudioProjectionError(f"unknown projector kind {info.kind!r}; choose one of {', '.join(KINDS)}")
    return KINDS[info.kind](info)


class LanguageModelLike(Protocol):
    """The attributes of an LLM that `check_matches` compares."""

    name: str
    hidden_size: int
    tokenizer_hash: str


def check_matches(info: ProjectorInfo, llm: LanguageModelLike, tts: Any) -> None:
    """Checks that a projector was trained with this LLM and this TTS, by hidden sizes and tokenizers.

    Raises AudioProjectionError naming the first mismatch. Empty hashes in `info` are not compared.
    """
    pairs: Sequence[tuple[str, Any, Any]] = (
        ("LLM hidden size", info.llm_size, llm.hidden_size),
        ("TTS hidden size", info.tts_size, tts.config.hidden_size),
        ("LLM tokenizer", info.llm_tokenizer_hash, llm.tokenizer_hash),
        ("TTS tokenizer", info.tts_tokenizer_hash, tts.tokenizer_hash),
    )
    for what, trained, given in pairs:
        if trained != "" and trained != given:
            raise AudioProjectionError(
                f"the projector was trained with LLM {info.llm!r} and TTS {info.tts!r}, and does not belong to LLM "
                f"{llm.name!r} and TTS {getattr(tts, 'name', '')!r}: {what} differs ({_short(trained)} in the "
                f"projector, {_short(given)} given)"
            )
    trained, given = info.llm_token_ids_hash, getattr(llm, "token_ids_hash", "")
    if trained and given and trained != given:
        raise AudioProjectionError(
            f"the LLM {llm.name} has the vocabulary of the one that the projector was trained with ({info.llm!r}), but "
            "cuts text otherwise; in a GGUF file tokenizer.ggml.pre is wrong: convert the model again with a newer "
            "llama.cpp"
        )
    if info.state_convention != STATE_CONVENTION:
        raise AudioProjectionError(
            f"the projector wants states {info.state_convention!r}, this program gives {STATE_CONVENTION!r}; retrain it"
        )


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)


def _load_strictly(module: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    expected = module.state_dict()
    missing, foreign = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or foreign:
        wrong = f"missing {', '.join(missing)}" if missing else f"unknown {', '.join(foreign)}"
        raise AudioProjectionError(f"{source} does not fit its {METADATA}: {wrong}; train the projector again")
    for name, tensor in sorted(tensors.items()):
        if tensor.shape != expected[name].shape:
            raise AudioProjectionError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, {METADATA} wants {tuple(expected[name].shape)}"
            )
    module.load_state_dict(tensors)
