"""Probe that chooses the LLM layer whose hidden states best identify their own token. Closed form, no audio.

The deeper a layer, the more its state says about the tokens to come and the less about the token that was read. So a
few of the first layers are candidates, `fit.probe_layers`: one pass over the texts, in a memory that does not grow
with the depth of the LLM.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audio_projection.alignment.token_states import TokenStates, stream_token_states
from audio_projection.files.progress import shown
from audio_projection.fit.ridge import RidgeFit, Split, embedding_table, r_squared, reserve_memory
from audio_projection.fit.rows_right import RowsRight

if TYPE_CHECKING:
    from audio_projection.config import FitConfig
    from audio_projection.llm.language_model import LanguageModel
    from audio_projection.tts.model import Qwen3TTS

log = logging.getLogger(__name__)

TOKENS = 20_000
"""Most text tokens that the probe's regressions see."""
BLOCK = 2048  # tokens of each layer that are buffered for one matrix product: 0.1 GB for 4096 -> 2048
TOLERANCE = 0.002  # accuracies within it count as equal; of equal layers the deeper one, which has more context, wins


def probe_memory(layers: int, inputs: int, outputs: int) -> int:
    """Peak memory of `probe_layers` in bytes: equations and buffers of every layer, and the states kept aside."""
    each = 8 * inputs * (inputs + outputs) + 4 * BLOCK * (3 * inputs + 2 * outputs)
    return layers * (each + reserve_memory(inputs)) + 16 * inputs * (inputs + outputs)


@dataclass(frozen=True)
class LayerResult:
    """How well one layer's hidden states predict the text embedding of their own token, on held-out texts."""

    layer: int
    r2: float
    right: RowsRight

    @property
    def nearest_row(self) -> float:
        """Share of tokens whose own text embedding is the nearest to the prediction."""
        return self.right.share

    def to_json(self) -> dict[str, Any]:
        return {"r2": self.r2, **self.right.to_json()}


@dataclass(frozen=True)
class ProbeReport:
    """The results of all layers and the chosen one."""

    layers: list[LayerResult]  # as given, shallow to deep
    chosen: int

    def to_json(self) -> dict[str, Any]:
        """The entry `measurements.probe` of projector.json: R2 and accuracy of each layer, and the choice."""
        return {"chosen": self.chosen, "layers": {str(item.layer): item.to_json() for item in self.layers}}

    def __str__(self) -> str:
        results = ", ".join(f"{item.layer}: {item.nearest_row:.1%} (R2 {item.r2:.3f})" for item in self.layers)
        return f"layer {self.chosen}, nearest text embedding right by layer: {results}"


@torch.no_grad()
def probe(
    settings: FitConfig, llm: LanguageModel, tts: Qwen3TTS, layers: Sequence[int], texts: Sequence[str]
) -> ProbeReport:
    """Probes the layers that `llm` returns; `layers` are their L numbers, in the order of its states.

    Of the texts at most `TOKENS` tokens are fitted on. Raises AudioProjectionError when there are too few texts.
    """
    split = Split(len(set(texts)), settings.model_copy(update={"tokens": min(settings.tokens, TOKENS)}))
    stream = shown(stream_token_states(llm, tts, texts, settings.batch), "probing the layers", len(texts))
    report = probe_layers(stream, layers, split, settings.ridges)
    log.info("probe: %s", report)
    return report


@torch.no_grad()
def probe_layers(
    pairs: Iterable[tuple[str, TokenStates]], layers: Sequence[int], split: Split, ridges: Sequence[float]
) -> ProbeReport:
    """Ridge regression from each layer's states to the text embeddings; of the best layers the deepest is chosen."""
    equations: list[RidgeFit] = []
    for tokens in split.stream(pairs):
        if not equations:
            sizes = tokens.states.shape[-1], tokens.text_embeddings.shape[-1]
            equations = [RidgeFit(*sizes, tokens.states.device, BLOCK) for _ in layers]
        ids = torch.tensor(tokens.ids)
        for index, equation in enumerate(equations):
            equation.add(tokens.states[:, index], tokens.text_embeddings, ids)
    calibration, held_out = split.calibration.stacked(), split.held_out.stacked()
    judge = partial(RowsRight.measure, table=embedding_table(split.table), fitted=split.fitted)
    results = [
        _layer_result(layer, equations[index], _layer(calibration, index), _layer(held_out, index), ridges, judge)
        for index, layer in enumerate(layers)
    ]
    best = max(result.nearest_row for result in results)
    chosen = max(result.layer for result in results if result.nearest_row >= best - TOLERANCE)
    return ProbeReport(results, chosen)


Tokens = tuple[Tensor, Tensor, Tensor]
"""states, text embeddings (N, H) and ids (N,) of N tokens."""


def _layer(tokens: Tokens, index: int) -> Tokens:
    """The tokens with the states (N, D) of one layer, from those (N, L, D) of all."""
    return tokens[0][:, index], tokens[1], tokens[2]


def _layer_result(
    layer: int,
    equation: RidgeFit,
    calibration: Tokens,
    held_out: Tokens,
    ridges: Sequence[float],
    judge: Callable[[Tensor, Tensor], RowsRight],
) -> LayerResult:
    def predict(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return states @ weight.to(states.device).T + bias.to(states.device)  # solved on a device with float64

    def score(weight: Tensor, bias: Tensor) -> float:
        return r_squared(predict(calibration[0], weight, bias), calibration[1])

    _, weight, bias = equation.best(ridges, score)
    states, embeddings, ids = held_out
    predicted = predict(states, weight, bias)
    return LayerResult(layer, r_squared(predicted, embeddings), judge(predicted, ids))
