"""The frozen language model: its hidden states at each token of a text, and at each token that it says itself."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.files.fingerprint import fingerprint
from audio_projection.llm.hidden_states import Layers, LayerTap, cut_off, resolve_layers
from audio_projection.sampling import Choice
from audio_projection.text.token_spans import Span, byte_spans, token_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Message = Mapping[str, str]

DTYPES = {
    "auto": "auto",
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
CONTEXTS = ("raw", "chat")
WAYS_ON = "bring it with `audio-projection download`, or use the bundled models with --config configs/nano.yaml"


@dataclass(frozen=True)
class Encoded:
    """The N LLM tokens of one text."""

    ids: list[int]
    spans: list[Span]  # bytes of the text
    states: Tensor  # (N, L, D) float32, each at its token's own position


@dataclass(frozen=True)
class GeneratedToken:
    """One token that the LLM said."""

    id: int
    piece: bytes  # may be part of a character; empty for special tokens
    state: Tensor  # (L, D) float32, at the token's own position


class LanguageModel:
    """A causal LM of transformers, frozen.

    ``layers`` are the numbers of the layers whose states it gives (0 = embeddings, ``num_layers`` = after the final
    norm). ``context`` is what it reads before a text: "raw" the beginning-of-text token only, "chat" a user turn
    ``prompt`` and the head of the assistant's turn.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        layers: Layers = "last",
        context: str = "raw",
        prompt: str = "Read this aloud.",
    ) -> None:
        self._prepare(tokenizer, name, context, prompt)
        self.model = model.eval().requires_grad_(False)
        self.hidden_size: int = model.config.hidden_size
        self.num_layers: int = model.config.num_hidden_layers
        self._listen(layers)
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
    ) -> LanguageModel:
        """Loads a folder, or a model of the hub's cache by its name; nothing is downloaded.

        ``dtype`` "auto" keeps the checkpoint's. ``name`` is what projectors remember the model by. Raises
        AudioProjectionError for a missing, damaged or incomplete model.
        """
        if dtype not in DTYPES:
            raise AudioProjectionError(f"unknown llm.dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
        model = _load_model(str(source), DTYPES[dtype])
        tokenizer = load_tokenizer(str(source))
        return cls(model.to(device), tokenizer, name or str(source), layers, context, prompt)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        return self.model.device

    def select(self, layers: Layers) -> LanguageModel:
        """The same model, weights shared, giving the states of other layers."""
        other = copy.copy(self)
        other._listen(layers)
        return other

    def tokenize(self, text: str) -> list[int]:
        """Ids of the bare text; special tokens written in it are read as plain characters."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    @property
    def fingerprint(self) -> str:
        """A short name for the weights, by which states that were kept are known again."""
        return fingerprint(self.model)

    def states(self, texts: Sequence[str]) -> list[Encoded]:
        """The tokens of each text with their states, read in the model's context, all texts in one batch."""
        ids = [self.tokenize(text) for text in texts]
        read = self.read([self._context_prefix + tokens for tokens in ids])
        return [
            Encoded(tokens, byte_spans(self.tokenizer, tokens, text), states[len(self._context_prefix) :])
            for text, tokens, states in zip(texts, ids, read, strict=True)
        ]

    @torch.no_grad()
    def read(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """States (S, L, D), float32, of id sequences as they are: no context, no special tokens added."""
        lengths = [len(sequence) for sequence in sequences]
        if not lengths:
            return []
        self._check_length(max(lengths))
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        for row, sequence in zip(ids, sequences, strict=True):
            row[: len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        with self._reading_tap.listening() as heard:
            self._reader(input_ids=ids.to(self.device), attention_mask=mask.to(self.device).long(), use_cache=False)
        return [states[:length] for states, length in zip(heard.states(), lengths, strict=True)]

    @torch.no_grad()
    def generate(
        self,
        messages: Sequence[Message],
        max_new_tokens: int = 256,
        sampling: Choice | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[GeneratedToken]:
        """The assistant's answer, token by token, until an end token, ``max_new_tokens`` or the context's limit.

        ``sampling`` None: as the model's generation configuration says. A token comes out after the model has read
        it, because its state is the one at its own position.
        """
        choose = sampling or self.sampling
        ids = self.chat_ids(messages)
        self._check_length(len(ids) + 1)
        ends = self._end_ids()
        limit = min(max_new_tokens, self._longest - len(ids))
        cache, logits, _ = self._step(None, ids)
        for _ in range(limit):
            token = int(choose.pick(choose.warp(logits), generator))
            if token in ends:
                return
            cache, logits, state = self._step(cache, [token])
            yield GeneratedToken(token, token_bytes(self.tokenizer)(token), state)

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation up to the head of the assistant's turn; AudioProjectionError without a template."""
        if not self.tokenizer.chat_template:
            raise AudioProjectionError(
                f"the language model {self.name} has no chat template; choose an instruction-tuned one or "
                "set llm.context=raw"
            )
        options: dict[str, Any] = {"enable_thinking": False}  # thoughts are not for speaking; unknown to most templates
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True, **options
            )
        except Exception as error:  # templates raise errors of their own for the roles they do not know
            raise AudioProjectionError(
                f"the chat template of {self.name} refuses the messages: {_first_line(error)}"
            ) from None
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def sampling(self) -> Choice:
        """How the next token is chosen by default: the model's generation configuration."""
        settings = self.model.generation_config
        return Choice(
            greedy=not getattr(settings, "do_sample", False),
            temperature=getattr(settings, "temperature", None) or 1.0,
            top_k=getattr(settings, "top_k", None) or 0,
            top_p=getattr(settings, "top_p", None) or 1.0,
        )

    def _prepare(self, tokenizer: PreTrainedTokenizerBase, name: str, context: str, prompt: str) -> None:
        """What every back end has besides the model itself."""
        if context not in CONTEXTS:
            raise AudioProjectionError(f"unknown llm.context {context!r}; choose one of {', '.join(CONTEXTS)}")
        if not tokenizer.is_fast:
            raise AudioProjectionError(f"{name} has no tokenizer.json; choose an LLM with a fast tokenizer")
        self.tokenizer = tokenizer
        self.tokenizer_hash = vocabulary_hash(tokenizer)
        self.name = name
        self.context = context
        self.prompt = prompt

    def _listen(self, layers: Layers) -> None:
        self.layers = resolve_layers(layers, self.num_layers)
        decoder = self.model.get_decoder()
        self._reader = cut_off(decoder, max(self.layers))
        self._speaking_tap = LayerTap(decoder, self.layers, self.num_layers)
        self._reading_tap = LayerTap(self._reader, self.layers, self.num_layers)

    def _context_ids(self) -> list[int]:
        if self.context == "chat":
            return self.chat_ids([{"role": "user", "content": self.prompt}])
        beginning = self.tokenizer.bos_token_id
        return [] if beginning is None else [beginning]

    def _step(self, cache: Any, ids: list[int]) -> tuple[Any, Tensor, Tensor]:
        """Feeds ids after what the cache holds; gives the cache, and the logits (1, vocab) and states (L, D) of the
        last id."""
        with self._speaking_tap.listening() as heard:
            output = self.model(
                input_ids=torch.tensor([ids], device=self.device),
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return output.cache, output.logits[:, -1].float(), heard.states()[0, -1]

    def _end_ids(self) -> set[int]:
        ends = self.model.generation_config.eos_token_id
        listed = ends if isinstance(ends, list) else [ends]
        return {end for end in [*listed, self.tokenizer.eos_token_id] if end is not None}

    @property
    def _longest(self) -> int:
        return getattr(self.model.config, "max_position_embeddings", None) or 2**31

    def _check_length(self, length: int) -> None:
        if length > self._longest:
            raise AudioProjectionError(
                f"the text is {length} tokens long, {self.name} reads at most {self._longest}; give a shorter one"
            )


def vocabulary_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over the tokens in the order of their ids: the same for every library version and file format."""
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(json.dumps(tokens, ensure_ascii=True).encode()).hexdigest()


def _load_model(source: str, dtype: Any) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    try:
        with _no_progress_bar():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _unloadable(source, error) from None
    model, report = loaded
    absent = sorted(report["missing_keys"]) or sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise AudioProjectionError(
            f"the language model {source} is incomplete or of another shape than its config.json says: {absent[0]} "
            f"and {len(absent) - 1} more; download it again"
        )
    return model


@contextmanager
def _no_progress_bar() -> Iterator[None]:
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
        return AutoTokenizer.from_pretrained(source, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise AudioProjectionError(
            f"the tokenizer of {source} cannot be read ({_first_line(error)}); download the model again"
        ) from None


def _unloadable(source: str, error: Exception) -> AudioProjectionError:
    if not Path(source).is_dir() and isinstance(error, OSError):
        return AudioProjectionError(f"the language model {source} is not on this machine: {WAYS_ON}")
    return AudioProjectionError(
        f"the language model {source} cannot be loaded ({_first_line(error)}); download it again, or {WAYS_ON}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
