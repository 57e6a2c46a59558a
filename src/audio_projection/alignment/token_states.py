"""The projector's inputs for a text: for each TTS token its LLM hidden state and the TTS's own text embedding."""

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
    """The N TTS tokens of one text with their LLM hidden states and the TTS's own text embeddings."""

    ids: list[int]
    """Token ids of the TTS's tokenizer."""
    states: Tensor
    """(N, L, D) float32: one bound state for each TTS token, of the LLM tokens that overlap it (`align.bind`)."""
    text_embeddings: Tensor
    """(N, H) float32, from the TTS."""


def token_states(llm: LanguageModel, tts: Qwen3TTS, texts: Sequence[str]) -> list[TokenStates]:
    """One TokenStates for each text; the LLM reads all texts in one batch. Tensors are on the TTS's device.

    Raises AudioProjectionError for a text that is too long for the LLM.
    """
    encoded = llm.states(list(texts))
    return [align_states(tts, text, tokens) for text, tokens in zip(texts, encoded, strict=True)]


@torch.no_grad()
def align_states(tts: Qwen3TTS, text: str, encoded: Encoded) -> TokenStates:
    """The TTS tokens of a text with the hidden states of their LLM tokens, on the TTS's device."""
    ids, spans = tts.tokenize(text)
    embeddings = tts.text_embeddings(torch.tensor(ids, dtype=torch.long, device=device_of(tts))).float()
    states = encoded.states.to(embeddings.device, torch.float32)
    return TokenStates(ids, bind(states, align(encoded.spans, spans)), embeddings)


def stream_token_states(
    llm: LanguageModel, tts: Qwen3TTS, texts: Iterable[str], batch: int
) -> Iterator[tuple[str, TokenStates]]:
    """Yields (text, TokenStates) one by one; the LLM reads `batch` texts in each forward pass."""
    for group in chunks(texts, batch):
        yield from zip(group, token_states(llm, tts, group), strict=True)


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last one may be shorter."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def device_of(module: torch.nn.Module) -> torch.device:
    """The device of the module's first parameter."""
    return next(module.parameters()).device
