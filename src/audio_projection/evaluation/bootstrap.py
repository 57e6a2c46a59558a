"""Confidence intervals of word error rates by paired bootstrap over the sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class PairedBootstrap:
    """Percentile intervals of word error rates and medians, by resampling sentences, the same for every system.

    Paired as in M. Bisani and H. Ney, "Bootstrap estimates for confidence intervals in ASR performance
    evaluation" (2004). `words` are those of each sentence's reference.
    """

    def __init__(self, words: Sequence[int], samples: int = 10_000, seed: int = 0, confidence: float = 0.95) -> None:
        self._words = np.asarray(words, dtype=np.float64)
        count = len(self._words)
        self._counts = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), samples)
        self._ends = [(1 - confidence) / 2, (1 + confidence) / 2]

    def rates(self, errors: Sequence[int]) -> np.ndarray:
        """Word error rate (samples,) of each bootstrap sample, from the errors of each sentence."""
        return self._counts @ np.asarray(errors, dtype=np.float64) / (self._counts @ self._words)

    def interval(self, errors: Sequence[int]) -> tuple[float, float]:
        """The interval of one system's word error rate."""
        return self._quantiles(self.rates(errors))

    def difference(self, errors: Sequence[int], baseline: Sequence[int]) -> tuple[float, float]:
        """The interval of one system's word error rate minus another's."""
        return self._quantiles(self.rates(errors) - self.rates(baseline))

    def median_interval(self, values: Sequence[float]) -> tuple[float, float]:
        """The interval of the median of one number per sentence."""
        order = np.argsort(values)
        seen = self._counts[:, order].cumsum(1)
        ordered, half = np.asarray(values)[order], len(order) / 2
        # an even count has two middle values, and the median is halfway between them
        middle = ordered[(seen >= half).argmax(1)] + ordered[(seen > half).argmax(1)]
        return self._quantiles(middle / 2)

    def mean_interval(self, values: Sequence[float]) -> tuple[float, float]:
        """The interval of the mean of one number per sentence."""
        return self._quantiles(self._counts @ np.asarray(values, dtype=np.float64) / len(values))

    def _quantiles(self, rates: np.ndarray) -> tuple[float, float]:
        low, high = np.quantile(rates, self._ends)
        return float(low), float(high)
