"""The frozen language model: hidden states of each token of a text (prefill), and of each token it generates.

A causal LM of transformers. The same class over llama.cpp is `gguf.language_model.GGUFLanguageModel`.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from audio_projection.devices import DTYPES
from audio_projection.errors import AudioProjectionError, first_line
from audio_projection.files.fingerprint import fingerprint
from audio_projection.files.json_reader import read_json
from audio_projection.llm.hidden_states import Layers, LayerTap, resolve_layers, truncate_decoder
from audio_projection.llm.prefix_cache import PrefixCache
from audio_projection.sampling import Choice, seeded
from audio_projection.text.token_spans import TOKENIZING, Span, byte_spans, token_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Message = Mapping[str, str]
"""A chat message: {"role": "system" | "user" | "assistant", "content": text}."""

CONTEXTS = ("raw", "chat")
PREFILL_PIECE = 256
"""Tokens of a conversation that are read at once: between two pieces reading can be given up."""
_MOST_LAYERS = 1_000
_HOW_TO_GET_IT = "bring it with `audio-projection download`, or use the bundled models with --config configs/nano.yaml"


@dataclass(frozen=True)
class Encoded:
    """One text encoded by the LLM: its N tokens with their positions in the text and their hidden states.

    The tokens of the text only: neither special tokens nor those of the chat template around it.
    """

    ids: list[int]
    """Token ids, N of them."""
    spans: list[Span]
    """``(start, end)`` of each token in the text's UTF-8 bytes."""
    states: Tensor
    """(N, L, D) float32: L chosen layers of width D, each state at its token's own position (it has read the token)."""


@dataclass(frozen=True)
class GeneratedToken:
    """One token that the LLM generated, with its hidden state."""

    id: int
    piece: bytes
    """Its UTF-8 bytes; they may be part of a character. Empty for special tokens."""
    state: Tensor
    """(L, D) float32: L chosen layers of width D, at the token's own position (after the LLM has read the token)."""


class LanguageModel:
    """A frozen causal LM of transformers that returns the hidden states of texts and of its own answers.

        llm = LanguageModel.from_pretrained("models/llama", layers=[16])
        encoded = llm.states(["Hello world"])[0]      # encoded.states: (N, 1, hidden_size) float32
        for token in llm.generate([{"role": "user", "content": "Who are you?"}]):
            token.piece, token.state                  # bytes, (1, hidden_size)

    Attributes: ``layers``, the L layer numbers whose states it gives (0 = embeddings, ``num_layers`` = after the final
    norm); ``hidden_size``, the width D of a state; ``name``, by which projectors know it; ``tokenizer``, its
    ``tokenizer_hash`` (of the vocabulary) and its ``token_ids_hash`` (of how it cuts text). ``context`` is what the
    model reads before a text: "raw", the beginning-of-text token only, or
    "chat", a user turn ``prompt`` and the header of the assistant's turn.
    """

    model: PreTrainedModel | None
    _decoder: nn.Module | None  # all layers that are kept, without the output head
    _truncated: nn.Module | None  # those up to the deepest chosen one
    _generation_tap: LayerTap | None
    _prefill_tap: LayerTap | None

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        layers: Layers = "last",
        context: str = "raw",
        prompt: str = "Read this aloud.",
    ) -> None:
        """Freezes ``model``. Raises AudioProjectionError for unknown layers or context, a tokenizer that is not fast,
        and the context "chat" without a chat template."""
        self._prepare(tokenizer, name, context, prompt)
        self.model = model.eval().requires_grad_(False)
        self._decoder = model.get_decoder()
        self._cache_name = _cache_name(model)
        self._config: Any = model.config
        self._fingerprint: str | None = None
        self.hidden_size: int = model.config.hidden_size
        self.num_layers: int = model.config.num_hidden_layers
        self._set_layers(layers)
        self._context_prefix = self._context_ids()

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        dtype: str = "auto",
        device: str | torch.device = "cpu",
        layers: Layers = "last",
        context: str = "raw",
        prompt: str = "Read this aloud.",
        name: str | None = None,
        quantise: str = "none",
    ) -> LanguageModel:
        """Loads a folder, or a model of the hub's cache by its name; nothing is downloaded.

        ``dtype`` is the name of a type ("float32", "bfloat16", "float16"); "auto" keeps the checkpoint's. States are
        float32 in any case. ``name`` is stored with projectors, to know the model by. ``quantise`` "8bit" or "4bit":
        weights quantised by bitsandbytes while they are loaded, on a CUDA device only. Raises AudioProjectionError for
        a missing, damaged or incomplete model, and where bitsandbytes is wanted and missing.
        """
        if dtype != "auto" and dtype not in DTYPES:
            raise AudioProjectionError(f"unknown llm.dtype {dtype!r}; choose one of auto, {', '.join(DTYPES)}")
        quantisation = quantisation_options(quantise, device)
        model = _load_model(str(source), DTYPES.get(dtype, dtype), quantisation)
        tokenizer = load_tokenizer(str(source))
        placed = model if quantisation else model.to(device)  # type: ignore[arg-type]
        return cls(placed, tokenizer, name or str(source), layers, context, prompt)

    _add_template = ""
    """How a template is added, where that can be said."""

    @property
    def device(self) -> torch.device:
        """Where the model computes and where the states of `read`, `states` and `generate` lie."""
        return next(self._weights().parameters()).device

    def select(self, layers: Layers) -> LanguageModel:
        """The same model, weights shared, that returns the states of other layers."""
        other = copy.copy(self)
        other._set_layers(layers)
        return other

    @property
    def head(self) -> list[int]:
        """Ids of what the model reads before a text; a chat template may have written today's date into it."""
        return list(self._context_prefix)

    def with_head(self, head: Sequence[int]) -> LanguageModel:
        """The same model, weights shared, reading other ids before a text: those that a projector was trained with."""
        other = copy.copy(self)
        other._context_prefix = list(head)
        return other

    def keep_reading_only(self) -> LanguageModel:
        """Frees the weights that reading texts does not need: the output head and the layers above the deepest chosen.

        Afterwards `generate` raises AudioProjectionError, and so does `select` for a layer above. Returns itself.
        """
        if self.model is not None:
            self._fingerprint = self.fingerprint
        self.model, self._decoder = None, self._truncated
        self._set_layers(self.layers)
        return self

    def release(self) -> None:
        """Frees all weights; the tokenizer stays. For runs whose states are cached: reading raises afterwards."""
        self._fingerprint = self.fingerprint
        self.model = self._decoder = self._truncated = None
        self._generation_tap = self._prefill_tap = None

    def to(self, device: str | torch.device) -> LanguageModel:
        """Moves the weights that are left to a device. Returns itself."""
        self._weights().to(device)
        return self

    def tokenize(self, text: str) -> list[int]:
        """Token ids of the bare text, without special tokens; those written in it are read as plain characters."""
        with TOKENIZING:
            return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    @property
    def fingerprint(self) -> str:
        """A short hash of the weights: cached states belong to the model that has the same one."""
        return self._fingerprint or fingerprint(self._weights())

    def states(self, texts: Sequence[str]) -> list[Encoded]:
        """The tokens of each text with their hidden states, by one batched forward pass in the model's context.

        Raises AudioProjectionError for a text that is longer than the model's context window.
        """
        ids = [self.tokenize(text) for text in texts]
        read = self.read([self._context_prefix + tokens for tokens in ids])
        return [
            Encoded(tokens, byte_spans(self.tokenizer, tokens, text), states[len(self._context_prefix) :])
            for text, tokens, states in zip(texts, ids, read, strict=True)
        ]

    @torch.no_grad()
    def read(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """Hidden states (S, L, D), float32, of each sequence of token ids as it is: nothing is added before it.

        Padded to one batch; the padding changes no state. Raises AudioProjectionError for one that is too long.
        """
        lengths = [len(sequence) for sequence in sequences]
        if not lengths:
            return []
        self._check_length(max(lengths))
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        for row, sequence in zip(ids, sequences, strict=True):
            row[: len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        self._weights()
        assert self._prefill_tap is not None and self._truncated is not None, "the weights are here"
        with self._prefill_tap.capture() as captured:
            self._truncated(input_ids=ids.to(self.device), attention_mask=mask.to(self.device).long(), use_cache=False)
        return [states[:length] for states, length in zip(captured.states(), lengths, strict=True)]

    @torch.no_grad()
    def generate(
        self,
        messages: Sequence[Message],
        max_new_tokens: int = 256,
        sampling: Choice | None = None,
        generator: torch.Generator | None = None,
        cache: PrefixCache | None = None,
    ) -> Iterator[GeneratedToken]:
        """Generates the assistant's answer token by token, until an end token, ``max_new_tokens`` or a full context.

        ``sampling`` None: as the model's generation configuration says. ``generator`` makes sampling repeatable.
        ``cache`` keeps keys and values for the conversation's next turn. A token is yielded after the model has read
        it, because its state is the one at its own position. Raises AudioProjectionError for messages that the chat
        template refuses or that fill the context window.
        """
        ids, choose = self.chat_ids(messages), sampling or self.sampling
        yield from self._generated(ids, max_new_tokens, choose, generator, self._end_ids(), cache)

    def continuations(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Choice, seed: int = 0
    ) -> list[list[int]]:
        """Token ids that follow each prompt of token ids, in one batch, up to the first control token.

        The same prompts with the same seed have the same continuations. Raises AudioProjectionError for a prompt that
        fills the context window.
        """
        from transformers import GenerationConfig

        longest, ends = max(map(len, prompts)), self._end_ids() | self._control_ids()
        self._check_length(longest + 1)
        padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        drawn = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        settings = GenerationConfig(
            do_sample=not sampling.greedy,
            max_new_tokens=min(max_new_tokens, self._context_length - longest),
            eos_token_id=sorted(ends),
            pad_token_id=min(ends),
            **({} if sampling.greedy else drawn),
        )
        model: Any = self._generating_model()
        with torch.no_grad(), seeded(seed):
            ids = torch.tensor(padded, device=self.device)
            rows = model.generate(ids, settings, attention_mask=torch.tensor(mask, device=self.device))
        return [list(takewhile(lambda token: token not in ends, row)) for row in rows[:, longest:].tolist()]

    def _generated(
        self,
        ids: list[int],
        most: int,
        choose: Choice,
        generator: torch.Generator | None,
        ends: Set[int],
        cache: PrefixCache | None = None,
    ) -> Iterator[GeneratedToken]:
        """Tokens after `ids`, at most so many, up to the first one of `ends`."""
        self._check_length(len(ids) + 1)
        limit = min(most, self._context_length - len(ids))
        cache = cache or PrefixCache()
        logits = self._prefill(cache, ids)
        for _ in range(limit):
            token = int(choose.pick(choose.warp(logits), generator))
            if token in ends:
                return
            logits, state = self._read_on(cache, [token])
            yield GeneratedToken(token, token_bytes(self.tokenizer)(token), state)

    @property
    def context_length(self) -> int:
        """Most tokens that the model can read."""
        return self._context_length

    def _prefill(self, cache: PrefixCache, ids: list[int]) -> Tensor:
        """Reads a conversation from where it differs from what the cache has; gives the logits (1, vocab) after it."""
        began = time.perf_counter()
        common = cache.common(ids)
        if common < len(cache.ids):
            cache.values = self._cropped(cache.values, common) if common else None
            cache.ids = cache.ids[:common] if cache.values is not None else []
        cache.reused = len(cache.ids)
        for start in range(cache.reused, len(ids), PREFILL_PIECE):
            cache.check()
            logits, _ = self._read_on(cache, ids[start : start + PREFILL_PIECE])
        cache.prefill_seconds = time.perf_counter() - began
        return logits

    def _read_on(self, cache: PrefixCache, ids: list[int]) -> tuple[Tensor, Tensor]:
        """Reads ids after those in the cache; gives the logits (1, vocab) and the state (L, D) of the last one."""
        read, values = cache.ids, cache.values
        cache.clear()  # keys and values that an error leaves half written are of no use
        cache.values, logits, state = self._step(values, ids)
        cache.ids = read
        cache.ids += ids
        return logits, state

    def _cropped(self, values: Any, length: int) -> Any:
        """Keys and values of the first `length` tokens only; None where they cannot be cut, as with sliding windows."""
        layers = getattr(values, "layers", [])
        if not layers or not all(getattr(each, "is_croppable", not each.is_sliding) for each in layers):
            return None
        values.crop(length - values.get_seq_length())
        return values

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the chat template, up to the header of the assistant's turn.

        Control tokens that stand in a message (`<|eot_id|>`) are plain characters. Raises AudioProjectionError without
        a template, and for messages that it refuses.
        """
        if not self.tokenizer.chat_template:
            raise AudioProjectionError(
                f"the language model {self.name} has no chat template; choose an instruction-tuned one"
                f"{self._add_template} or set llm.context=raw"
            )
        options: dict[str, Any] = {"enable_thinking": False}  # thoughts are not spoken; templates without it ignore it
        controls = self._control_tokens
        quoting = [{key: _marked(value, controls) for key, value in message.items()} for message in messages]
        try:
            text: Any = self.tokenizer.apply_chat_template(
                quoting, tokenize=False, add_generation_prompt=True, **options
            )
        except Exception as error:  # templates raise errors of their own for the roles they do not know
            raise AudioProjectionError(
                f"the chat template of {self.name} refuses the messages: {first_line(error)}"
            ) from None
        parts = re.split(f"{_MARK}([0-9]+){_MARK}", text)  # the quoted control tokens have odd places
        ids = [self.tokenize(controls[int(part)]) if place % 2 else self._ids(part) for place, part in enumerate(parts)]
        return [token for part in ids for token in part]

    def _ids(self, text: str) -> list[int]:
        if not text:
            return []
        with TOKENIZING:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _control_tokens(self) -> list[str]:
        return sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)

    @property
    def sampling(self) -> Choice:
        """How `generate` chooses the next token by default: by the model's generation configuration."""
        settings = self._generating_model().generation_config
        return Choice(
            greedy=not getattr(settings, "do_sample", False),
            temperature=getattr(settings, "temperature", None) or 1.0,
            top_k=getattr(settings, "top_k", None) or 0,
            top_p=getattr(settings, "top_p", None) or 1.0,
        )

    def _prepare(self, tokenizer: PreTrainedTokenizerBase, name: str, context: str, prompt: str) -> None:
        """Sets and checks what every back end has besides the model itself."""
        if context not in CONTEXTS:
            raise AudioProjectionError(f"unknown llm.context {context!r}; choose one of {', '.join(CONTEXTS)}")
        if not tokenizer.is_fast:
            raise AudioProjectionError(f"{name} has no tokenizer.json; choose an LLM with a fast tokenizer")
        self.tokenizer = tokenizer
        self.tokenizer_hash = vocabulary_hash(tokenizer)
        self.token_ids_hash = token_ids_hash(tokenizer)
        self.name = name
        self.context = context
        self.prompt = prompt

    def _set_layers(self, layers: Layers) -> None:
        decoder, chosen = self._decoder, resolve_layers(layers, self.num_layers)
        assert decoder is not None, "layers are chosen while there are weights"
        left = getattr(decoder.config, "num_hidden_layers", self.num_layers)
        if max(chosen) > left:
            raise AudioProjectionError(f"layer {max(chosen)} of {self.name} was freed: only {left} layers are kept")
        self.layers = chosen
        truncated = truncate_decoder(decoder, max(chosen))
        self._truncated = truncated
        self._generation_tap = LayerTap(decoder, chosen, self.num_layers)
        self._prefill_tap = LayerTap(truncated, chosen, self.num_layers)

    def _weights(self) -> nn.Module:
        """The module with all weights that are left."""
        weights = self.model if self.model is not None else self._decoder
        if weights is None:
            raise AudioProjectionError(f"the weights of {self.name} were freed; load the language model again")
        return weights

    def _generating_model(self) -> PreTrainedModel:
        if self.model is None:
            raise AudioProjectionError(f"{self.name} keeps only what reading texts needs; load it again to generate")
        return self.model

    def _context_ids(self) -> list[int]:
        if self.context == "chat":
            return self.chat_ids([{"role": "user", "content": self.prompt}])
        bos = self.tokenizer.bos_token_id
        return [] if bos is None else [bos]

    def _step(self, cache: Any, ids: list[int]) -> tuple[Any, Tensor, Tensor]:
        """One forward pass of ids after those in the key-value cache.

        Returns the cache, and the logits (1, vocab) and hidden states (L, D) of the last id.
        """
        model = self._generating_model()
        assert self._generation_tap is not None, "a whole model has it"
        with self._generation_tap.capture() as captured:
            output = model(
                input_ids=torch.tensor([ids], device=self.device),
                use_cache=True,
                logits_to_keep=1,
                **{self._cache_name: cache},
            )
        return output[self._cache_name], output.logits[:, -1].float(), captured.states()[0, -1]

    def _end_ids(self) -> set[int]:
        ends = self._generating_model().generation_config.eos_token_id
        listed = ends if isinstance(ends, list) else [ends]
        return {end for end in [*listed, self.tokenizer.eos_token_id] if isinstance(end, int)}

    def _control_ids(self) -> set[int]:
        added: Mapping[int, Any] = self.tokenizer.added_tokens_decoder
        return {number for number, token in added.items() if token.special}

    @property
    def _context_length(self) -> int:
        """Most tokens that the model can read."""
        return getattr(self._config, "max_position_embeddings", None) or 2**31

    def _check_length(self, length: int) -> None:
        if length > self._context_length:
            raise AudioProjectionError(
                f"the text is {length} tokens long, {self.name} reads at most {self._context_length}; "
                "give a shorter one"
            )


def _cache_name(model: PreTrainedModel) -> str:
    """The name of the key-value cache in the model's inputs and outputs; transformers 5.24 renamed it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


_MARK = "\ue001"  # around the number of a control token that a message quotes


def _marked(content: Any, controls: Sequence[str]) -> Any:
    """A message's text with a mark for each control token in it, which the template's own are then told from."""
    if not isinstance(content, str) or not any(control in content for control in controls):
        return content
    found = re.compile("|".join(map(re.escape, controls)))
    return found.sub(lambda match: f"{_MARK}{controls.index(match[0])}{_MARK}", content.replace(_MARK, ""))


def vocabulary_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of a tokenizer's tokens in the order of their ids: independent of library version and file format."""
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(json.dumps(tokens, ensure_ascii=True).encode()).hexdigest()


SAMPLE_TEXTS = (
    "Hello world, it's THEIR dog's; you'll see we've 3 of I'm \u2019tis O'Neil's.",
    " 7 12 345 1984 65536 3.14159 1,000,000 2024-11-05 12:30 $5.99 50% #1",
    "CamelCase XMLHttpRequest iPhone snake_case x+y=z a<b>c ^~| e-mail www.example.com/a/b?c=d",
    "  two  spaces\n\n\tnew\r\nlines   \n end ...!? (\u201cquoted\u201d) \u2014 dash",
    "Gr\u00fc\u00dfe, fa\u00e7ade, e\u0301, \u4e16\u754c\u4f60\u597d, \u041f\u0440\u0438\u0432\u0435\u0442, "
    "\u0645\u0631\u062d\u0628\u0627, \u00bd \u0661\u0662\u0663 \U0001f642",
)
"""Texts in which tokenizers of one vocabulary differ: contractions, capitals, digits, marks, spaces, scripts."""


def token_ids_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the ids of `SAMPLE_TEXTS`: how a tokenizer cuts text, which its vocabulary does not tell."""
    ids = [tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in SAMPLE_TEXTS]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def quantisation_options(quantise: str, device: str | torch.device) -> dict[str, Any]:
    """What from_pretrained needs to quantise by bitsandbytes; nothing for "none".

    Raises AudioProjectionError without bitsandbytes or a CUDA device.
    """
    if quantise == "none":
        return {}
    if torch.device(device).type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise AudioProjectionError(
            f"llm.quantise={quantise} needs bitsandbytes (pip install bitsandbytes) and a CUDA GPU; elsewhere take a "
            "quantised GGUF file: llm.backend=gguf gguf.llm=FILE"
        )
    from transformers import BitsAndBytesConfig

    eight = quantise == "8bit"
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    config = BitsAndBytesConfig(**({"load_in_8bit": True} if eight else four))
    return {"quantization_config": config, "device_map": {"": torch.device(device)}}


def _load_model(source: str, dtype: Any, quantisation: Mapping[str, Any]) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    _check_layer_count(Path(source) / "config.json")
    try:
        with without_progress_bar():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, local_files_only=True, output_loading_info=True, **quantisation
            )
    except Exception as error:  # transformers raises whatever a damaged configuration leads to
        raise _unloadable(source, error) from None
    model, report = loaded
    absent = sorted(report["missing_keys"]) or sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise AudioProjectionError(
            f"the language model {source} is incomplete or of another shape than its config.json says: {absent[0]} "
            f"and {len(absent) - 1} more; download it again"
        )
    return model


def _check_layer_count(path: Path) -> None:
    """Raises AudioProjectionError for a configuration that would be built for hours."""
    values = read_json(path) if path.is_file() else {}
    layers = values.get("num_hidden_layers", 1) if isinstance(values, dict) else 1
    if isinstance(layers, int | float) and not 0 < layers <= _MOST_LAYERS:
        raise AudioProjectionError(f"{path}: num_hidden_layers is {layers}; download the model again")


@contextmanager
def without_progress_bar() -> Iterator[None]:
    from transformers.utils import logging as transformers_logging

    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's folder; AudioProjectionError where it is damaged or absent."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        tokenizer("a", add_special_tokens=False)  # some damage shows only now
        return tokenizer
    except Exception as error:  # the tokenizers library raises bare Exception
        raise AudioProjectionError(
            f"the tokenizer of {source} cannot be read ({first_line(error)}); download the model again"
        ) from None


def _unloadable(source: str, error: Exception) -> AudioProjectionError:
    if not Path(source).is_dir() and isinstance(error, OSError):
        return AudioProjectionError(f"the language model {source} is not on this machine: {_HOW_TO_GET_IT}")
    return AudioProjectionError(
        f"the language model {source} cannot be loaded ({first_line(error)}); download it again, or {_HOW_TO_GET_IT}"
    )
