"""How good a fit is, on texts that it did not see."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from audio_projection.alignment.token_states import device_of
from audio_projection.fit.refine import Refinement
from audio_projection.fit.ridge import Split, embedding_table, r_squared
from audio_projection.fit.rows_right import RowsRight
from audio_projection.projector import Projector


@dataclass(frozen=True)
class FitReport:
    """Quality of a fit on held-out texts. R2 is over all channels, after the activation."""

    activation: str
    tokens: int  # TTS tokens in the regression
    held_out_tokens: int
    ridge: float
    r2: float
    right: RowsRight
    refined: Refinement | None = None  # of `fit.refine`; what stands above is the ridge regression alone

    @property
    def nearest_row(self) -> float:
        """Share of held-out tokens whose own text embedding is the nearest of all in the texts."""
        return self.right.share

    @classmethod
    @torch.no_grad()
    def measure(cls, projector: Projector, split: Split, ridge: float) -> FitReport:
        """Of a projector that was fitted on the texts of `split` by a ridge of that strength."""
        states, embeddings, ids = split.held_out.moved(device_of(projector))
        predicted = projector(states, embeddings)
        return cls(
            activation=projector.info.activation,
            tokens=split.tokens,
            held_out_tokens=len(ids),
            ridge=ridge,
            r2=r_squared(predicted, embeddings),
            right=RowsRight.measure(predicted, ids, embedding_table(split.table), split.fitted),
        )

    def to_json(self) -> dict[str, Any]:
        """The entry `measurements.fit` of projector.json."""
        entries = {name: value for name, value in asdict(self).items() if name not in ("right", "refined")}
        entries |= self.right.to_json()
        return entries if self.refined is None else entries | {"refined": self.refined.to_json()}

    def __str__(self) -> str:
        refined = "" if self.refined is None else f"; {self.refined}"
        return (
            f"R2 {self.r2:.3f} after the activation ({self.activation}) on {self.held_out_tokens} held-out tokens "
            f"(ridge {self.ridge:g}, {self.tokens} tokens); the nearest text embedding is right for {self.right}"
            f"{refined}"
        )
