"""LLM hidden states cached on disk: the conditions that they were made under, and the check that these still hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.text.input_text import Reading, as_reading
from audio_projection.text.token_spans import byte_spans

if TYPE_CHECKING:
    from audio_projection.llm.language_model import Encoded, LanguageModel

BYTES = 2
"""Size of a value: bfloat16."""

IN_WORDS = {
    "llm": "language model than {}, or other weights of it",
    "tokenizer": "tokenizer than that of {}",
    "head": "beginning of the chat template of {}",
    "prompt": "llm.prompt",
    "context": "llm.context",
    "normalise": "tts.normalise",
}
"""What differs when a condition does, with a place for the language model's name."""


@dataclass(frozen=True)
class CachedStates:
    """The cached LLM states of one text."""

    values: Tensor  # (S, L, D) bfloat16: S LLM tokens, L layers; a view of a memory-mapped file
    conditions: Mapping[str, Any]  # what `conditions` returned when they were computed


def conditions(llm: LanguageModel, reading: Reading | str) -> dict[str, Any]:
    """Everything that the states of a text depend on, for the folder that keeps them."""
    return {
        "llm": llm.fingerprint,
        "tokenizer": llm.tokenizer_hash,
        "layers": list(llm.layers),
        "context": llm.context,
        "prompt": llm.prompt if llm.context == "chat" else "",
        "head": llm.head,
        "normalise": as_reading(reading).name,
    }


def compute(llm: LanguageModel, texts: Sequence[str]) -> list[Tensor]:
    """LLM states (S, L, D), bfloat16 on the CPU, of each text."""
    return [encoded.states.to(torch.bfloat16).cpu() for encoded in llm.states(texts)]


def restore(llm: LanguageModel, text: str, cached: CachedStates) -> Encoded:
    """The tokens of a text with their cached states in float32, without running the LLM; call `check` first.

    Raises AudioProjectionError when the text has another number of tokens.
    """
    from audio_projection.llm.language_model import Encoded

    ids = llm.tokenize(text)
    if len(ids) != len(cached.values):
        raise AudioProjectionError(
            f"the cached states of {text[:40]!r} are {len(cached.values)}, its tokens {len(ids)}: make them again with "
            "`audio-projection data features`"
        )
    return Encoded(ids, byte_spans(llm.tokenizer, ids, text), cached.values.float())


def check(cached: Sequence[CachedStates], llm: LanguageModel, reading: Reading | str) -> None:
    """Raises AudioProjectionError when states were made with another LLM, layer, context or text normalisation."""
    wanted = conditions(llm, reading)
    for made in {id(states.conditions): states.conditions for states in cached}.values():
        before_heads = {"head": wanted["head"]}  # states of older versions do not say
        differing = [name for name, value in wanted.items() if (before_heads | dict(made)).get(name) != value]
        if differing:
            name = differing[0]
            what = IN_WORDS.get(name, name).format(llm.name)
            raise AudioProjectionError(
                f"the cached LLM states were made with another {what} ({str(made.get(name))[:20]}, now "
                f"{str(wanted[name])[:20]}): make them again with `audio-projection data features ... --states` into "
                "another folder, or set llm.* and tts.normalise as they were"
            )
