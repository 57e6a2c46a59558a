"""LLM states that were computed once and kept: what they are made with, and the check that they still fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.text.token_spans import byte_spans

if TYPE_CHECKING:
    from audio_projection.llm.language_model import Encoded, LanguageModel

BYTES = 2
"""Of a number: bfloat16."""


@dataclass(frozen=True)
class CachedStates:
    """The states of one text."""

    values: Tensor  # (S, L, D) bfloat16, of the text's S LLM tokens; a view of a file that is mapped into memory
    conditions: Mapping[str, Any]  # as `conditions` gives them


def conditions(llm: LanguageModel, normalise: str) -> dict[str, Any]:
    """All that the states of a transcript depend on."""
    return {
        "llm": llm.fingerprint,
        "tokenizer": llm.tokenizer_hash,
        "layers": list(llm.layers),
        "context": llm.context,
        "prompt": llm.prompt if llm.context == "chat" else "",
        "normalise": normalise,
    }


def compute(llm: LanguageModel, texts: Sequence[str]) -> list[Tensor]:
    """States (S, L, D), bfloat16 on the CPU, of each text."""
    return [encoded.states.to(torch.bfloat16).cpu() for encoded in llm.states(texts)]


def restore(llm: LanguageModel, text: str, cached: CachedStates) -> Encoded:
    """The tokens of a text with their kept states in float32, the LLM left alone; `check` comes first."""
    from audio_projection.llm.language_model import Encoded

    ids = llm.tokenize(text)
    if len(ids) != len(cached.values):
        raise AudioProjectionError(
            f"the cached states of {text[:40]!r} are {len(cached.values)}, its tokens {len(ids)}: make them again with "
            "`audio-projection data features`"
        )
    return Encoded(ids, byte_spans(llm.tokenizer, ids, text), cached.values.float())


def check(cached: Sequence[CachedStates], llm: LanguageModel, normalise: str) -> None:
    """Raises AudioProjectionError when states were made with another LLM, layer, context or spelling."""
    wanted = conditions(llm, normalise)
    for made in {id(states.conditions): states.conditions for states in cached}.values():
        differing = [name for name, value in wanted.items() if made.get(name) != value]
        if differing:
            name = differing[0]
            raise AudioProjectionError(
                f"the cached LLM states were made with another {name} ({str(made.get(name))[:20]}, now "
                f"{str(wanted[name])[:20]}): make them again with `audio-projection data features ... --states` into "
                "another folder, or set llm.* and tts.normalise as they were"
            )
