"""Which layer of the LLM still says which token is spoken: an identity probe, closed form and without audio.

The deeper a layer, the more it tells about what comes next and the less about the token it stands at.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audio_projection.alignment.token_states import TokenStates, stream_token_states
from audio_projection.fit.ridge import RidgeFit, Split, embedding_table, nearest_embedding_accuracy, r_squared

if TYPE_CHECKING:
    from audio_projection.config import FitConfig
    from audio_projection.llm.language_model import LanguageModel
    from audio_projection.tts.model import Qwen3TTS

log = logging.getLogger(__name__)

BLOCK = 2048  # rows of each layer that wait for their products: 0.1 GB for 4096 -> 2048
TOLERANCE = 0.002  # of the share of tokens found: within it the deeper layer, which has read more context, is better


@dataclass(frozen=True)
class LayerResult:
    """How well one layer's states give the text row of their own token, on held-out texts."""

    layer: int
    r2: float
    nearest_row: float  # share of the tokens whose own row is the nearest


@dataclass(frozen=True)
class ProbeReport:
    layers: list[LayerResult]  # as given, shallow to deep
    chosen: int

    def to_json(self) -> dict[str, Any]:
        """Per layer its R2 and accuracy, and the choice."""
        results = {str(item.layer): {"r2": item.r2, "nearest_row": item.nearest_row} for item in self.layers}
        return {"chosen": self.chosen, "layers": results}

    def __str__(self) -> str:
        results = ", ".join(f"{item.layer}: {item.nearest_row:.1%} (R2 {item.r2:.3f})" for item in self.layers)
        return f"layer {self.chosen}, nearest row right by layer: {results}"


@torch.no_grad()
def probe(
    settings: FitConfig, llm: LanguageModel, tts: Qwen3TTS, layers: Sequence[int], texts: Sequence[str]
) -> ProbeReport:
    """Probes the layers that `llm` gives, named by `layers` (L numbers in the order of its states)."""
    split = Split(len(set(texts)), settings)
    report = probe_layers(stream_token_states(llm, tts, texts, settings.batch), layers, split, settings.ridges)
    log.info("probe: %s", report)
    return report


@torch.no_grad()
def probe_layers(
    pairs: Iterable[tuple[str, TokenStates]], layers: Sequence[int], split: Split, ridges: Sequence[float]
) -> ProbeReport:
    """A ridge from each layer's states to the text rows; the deepest layer close to the best one is chosen."""
    equations: list[RidgeFit] = []
    for features in split.stream(pairs):
        if not equations:
            sizes = features.states.shape[-1], features.text_embeddings.shape[-1]
            equations = [RidgeFit(*sizes, features.states.device, BLOCK) for _ in layers]
        ids = torch.tensor(features.ids)
        for index, equation in enumerate(equations):
            equation.add(features.states[:, index], features.text_embeddings, ids)
    calibration, held_out = split.calibration.stacked(), split.held_out.stacked()
    table = embedding_table(split.table)
    results = [
        _layer_result(layer, equations[index], _layer(calibration, index), _layer(held_out, index), table, ridges)
        for index, layer in enumerate(layers)
    ]
    best = max(result.nearest_row for result in results)
    chosen = max(result.layer for result in results if result.nearest_row >= best - TOLERANCE)
    return ProbeReport(results, chosen)


Rows = tuple[Tensor, Tensor, Tensor]


def _layer(rows: Rows, index: int) -> Rows:
    return rows[0][:, index], rows[1], rows[2]


def _layer_result(
    layer: int,
    equation: RidgeFit,
    calibration: Rows,
    held_out: Rows,
    table: tuple[Tensor, Tensor],
    ridges: Sequence[float],
) -> LayerResult:
    def judge(weight: Tensor, bias: Tensor) -> float:
        return r_squared(calibration[0] @ weight.T + bias, calibration[1])

    _, weight, bias = equation.best(ridges, judge)
    states, rows, ids = held_out
    predicted = states @ weight.T + bias
    return LayerResult(layer, r_squared(predicted, rows), nearest_embedding_accuracy(predicted, ids, *table))
