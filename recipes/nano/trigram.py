"""The baseline of the nano language model: an interpolated trigram, modified Kneser-Ney.

S. F. Chen and J. Goodman, "An empirical study of smoothing techniques for language modeling" (1998):
three discounts an order, found from the counts of counts; lower orders count distinct left contexts.
"""

from collections.abc import Sequence

import numpy as np

Sequences = Sequence[Sequence[int]]


def ngrams(sequences: Sequences, order: int, vocabulary: int) -> np.ndarray:
    """Every n-gram as one integer in base `vocabulary`, sequences never joined; int64 (N,)."""
    found = []
    for sequence in sequences:
        ids = np.asarray(sequence, dtype=np.int64)
        length = len(ids) - order + 1
        if length > 0:
            found.append(sum(ids[i : i + length] * vocabulary ** (order - 1 - i) for i in range(order)))
    return np.concatenate(found)


class Order:
    """Discounted probabilities and back-off weights of one n-gram order."""

    def __init__(self, keys: np.ndarray, counts: np.ndarray, vocabulary: int) -> None:
        self.keys, self.vocabulary = keys, vocabulary
        discount = self.discounts(counts)[np.minimum(counts, 3)]
        contexts, place = np.unique(keys // vocabulary, return_inverse=True)
        total = np.bincount(place, counts)
        self.contexts = contexts
        self.share = (counts - discount) / total[place]
        self.backoff = np.bincount(place, discount) / total

    @staticmethod
    def discounts(counts: np.ndarray) -> np.ndarray:
        """Discounts of counts 0, 1, 2 and 3 or more."""
        once, twice, thrice, four = (max(1, int((counts == n).sum())) for n in (1, 2, 3, 4))
        y = once / (once + 2 * twice)
        found = [0.0, 1 - 2 * y * twice / once, 2 - 3 * y * thrice / twice, 3 - 4 * y * four / thrice]
        return np.clip(found, [0, 0.1, 0.1, 0.1], [0, 1, 2, 3])

    def probability(self, keys: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """P(last id | ids before) of each key, given the next lower order's answer."""
        return look_up(self.keys, self.share, keys, 0.0) + lower * look_up(
            self.contexts, self.backoff, keys // self.vocabulary, 1.0
        )


def look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, default: float) -> np.ndarray:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], default)


class Trigram:
    """P(c | a, b) over `vocabulary` ids; every sequence starts with its own start id."""

    def __init__(self, sequences: Sequences, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        # The first prediction sees the start id alone, so it is doubled to make a trigram of it.
        keys, counts = np.unique(ngrams(doubled(sequences), 3, vocabulary), return_counts=True)
        self.orders = [Order(keys, counts, vocabulary)]
        while len(self.orders) < 3:
            power = vocabulary ** (3 - len(self.orders))
            keys, counts = np.unique(keys % power, return_counts=True)
            self.orders.append(Order(keys, counts, vocabulary))

    def log_probabilities(self, sequences: Sequences) -> np.ndarray:
        """Natural logarithms of every id after the first of each sequence, joined."""
        keys = ngrams(doubled(sequences), 3, self.vocabulary)
        answer = np.full(len(keys), 1 / self.vocabulary)
        for level, order in reversed(list(enumerate(self.orders))):
            answer = order.probability(keys % self.vocabulary ** (3 - level), answer)
        return np.log(answer)

    def perplexity(self, sequences: Sequences) -> float:
        return float(np.exp(-self.log_probabilities(sequences).mean()))


def doubled(sequences: Sequences) -> list[list[int]]:
    return [[sequence[0], *sequence] for sequence in sequences]
