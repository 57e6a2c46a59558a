"""How many tokens get the right text embedding: those for which it is the nearest one, seen and unseen tokens apart."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowsRight:
    """Shares of held-out tokens whose own text embedding is the nearest of all in the texts."""

    share: float  # of all tokens
    seen: float | None  # of the tokens that the regression met in other texts; None: there were none
    unseen: float | None  # of those that it never met; None: there were none
    unseen_tokens: int

    @classmethod
    def measure(cls, predicted: Tensor, ids: Tensor, table: tuple[Tensor, Tensor], fitted: Set[int]) -> RowsRight:
        """From predictions (N, H) for the tokens `ids` (N,); `table` has all text embeddings (V, H) and their token ids
        (V,), `fitted` the tokens that the regression met."""
        right = (table[1][nearest_embeddings(predicted, table[0])] == ids).cpu()
        met = torch.tensor([token in fitted for token in ids.tolist()], dtype=torch.bool)
        return cls(_share(right) or 0.0, _share(right[met]), _share(right[~met]), int((~met).sum()))

    def to_json(self) -> dict[str, float]:
        """The shares, those of which there is no token left out, and the number of unseen tokens."""
        shares = {"nearest_row": self.share, "seen": self.seen, "unseen": self.unseen}
        return {name: share for name, share in shares.items() if share is not None} | {
            "unseen_tokens": self.unseen_tokens
        }

    def __str__(self) -> str:
        if self.unseen is None:
            return f"{self.share:.1%}, every one of them met in fitting"
        seen = "none" if self.seen is None else f"{self.seen:.1%}"
        return f"{self.share:.1%} (met in fitting: {seen}; never met: {self.unseen:.1%} of {self.unseen_tokens})"


def nearest_embeddings(predicted: Tensor, table: Tensor) -> Tensor:
    """Indices (N,) of the embeddings in `table` (V, H) that are nearest to predictions (N, H)."""
    return torch.cat([torch.cdist(part, table).argmin(1) for part in predicted.split(1024)])


def nearest_embedding_accuracy(predicted: Tensor, ids: Tensor, table: Tensor, table_ids: Tensor) -> float:
    """Share of predictions (N, H) whose nearest text embedding in `table` (V, H) is that of their token, `ids` (N,).

    `table_ids` (V,) are the tokens of the table's rows.
    """
    return float((table_ids[nearest_embeddings(predicted, table)] == ids).cpu().double().mean())


def _share(right: Tensor) -> float | None:
    return float(right.double().mean()) if len(right) else None
