"""Tokens split into the two that they were merged of, at random: BPE dropout that a seed repeats.

Provilkov et al., 2020, drop merges while text is cut; splitting what is cut already gives the same pieces and needs
nothing but token ids.  It teaches the voice the small tokens, which rare words fall back to.
"""

import torch
from bpe import Merge
from torch import Tensor


class TokenSplitter:
    """Splits ids, and knows how many characters of a text each id stands for."""

    def __init__(self, vocabulary: dict[str, int], merges: list[Merge]) -> None:
        self.parts = {vocabulary[a + b]: (vocabulary[a], vocabulary[b]) for a, b in merges}
        self.letters = {number: characters(token) for token, number in vocabulary.items()}

    def split(self, ids: list[int], rate: float, generator: torch.Generator) -> list[int]:
        """Each token is split with probability `rate`, and its parts again."""
        found = []
        for number in ids:
            draw = torch.rand((), generator=generator).item() if number in self.parts else 1.0
            found += self.split(list(self.parts[number]), rate, generator) if draw < rate else [number]
        return found

    def starts(self, ids: list[int]) -> Tensor:
        """int64 (tokens,): the first character of each token in its text."""
        return torch.tensor([0, *(self.letters[number] for number in ids[:-1])]).cumsum(0)


def characters(token: str) -> int:
    """How many characters begin in a byte-level token: in UTF-8 all bytes but 0x80-0xBF begin one.

    Byte-level BPE writes those as U+0122 (0x80) to U+0142 (0xA0), ¡ (0xA1) to ¬ (0xAC), U+0143 (0xAD) and ® to ¿.
    """
    return sum(not ("Ģ" <= letter <= "Ń" or "¡" <= letter <= "¬" or "®" <= letter <= "¿") for letter in token)
