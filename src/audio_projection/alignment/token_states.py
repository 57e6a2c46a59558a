"""Texts as the projector meets them: for every TTS token its LLM states and the TTS's own text row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from audio_projection.alignment.align import align, bind

if TYPE_CHECKING:
    from audio_projection.llm.language_model import Encoded, LanguageModel
    from audio_projection.tts.model import Qwen3TTS

Item = TypeVar("Item")


@dataclass(frozen=True)
class TokenStates:
    """The N TTS tokens of one text."""

    ids: list[int]
    states: Tensor  # (N, L, D) float32, of the LLM tokens that each overlaps
    text_embeddings: Tensor  # (N, H) float32, the TTS's own text rows


def token_states(llm: LanguageModel, tts: Qwen3TTS, texts: Sequence[str]) -> list[TokenStates]:
    """One TokenStates per text, the LLM run over all texts in one batch; tensors on the TTS's device."""
    encoded = llm.states(list(texts))
    return [align_states(tts, text, tokens) for text, tokens in zip(texts, encoded, strict=True)]


@torch.no_grad()
def align_states(tts: Qwen3TTS, text: str, encoded: Encoded) -> TokenStates:
    """The TTS tokens of a text with the states of their LLM tokens, on the TTS's device."""
    ids, spans = tts.tokenize(text)
    rows = tts.text_embeddings(torch.tensor(ids, dtype=torch.long, device=device_of(tts))).float()
    states = encoded.states.to(rows.device, torch.float32)
    return TokenStates(ids, bind(states, align(encoded.spans, spans)), rows)


def stream_token_states(
    llm: LanguageModel, tts: Qwen3TTS, texts: Iterable[str], batch: int
) -> Iterator[tuple[str, TokenStates]]:
    """(text, TokenStates) one by one, `batch` texts in one pass of the LLM."""
    for group in chunks(texts, batch):
        yield from zip(group, token_states(llm, tts, group), strict=True)


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def device_of(module: torch.nn.Module) -> torch.device:
    """The device of the module's first parameter."""
    return next(module.parameters()).device
