"""One state for each TTS token, from the states of the LLM tokens that it overlaps.

A linear map cannot tell two summed states apart, so each is marked by its place first: its channels are rotated, as
vector symbolic architectures bind a place to a content (Sahlgren et al., 2008, "Permutations as a means to encode
order in word space"). A TTS token that is one LLM token has that one's state, unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from audio_projection.alignment import Overlap


def bind(states: Tensor, overlaps: Sequence[Overlap]) -> Tensor:
    """States (S, L, D) of S LLM tokens -> (N, L, D), one for each of N TTS tokens; a new tensor.

    Of several LLM tokens the last one, which has read the others, counts as it is; the one j before it is
    rotated by j channels and added. Of several TTS tokens in one LLM token the k-th (from 1) is rotated back by k.
    """
    bound = states[[overlap.tokens[-1] for overlap in overlaps]]
    for back in range(1, max((len(overlap.tokens) for overlap in overlaps), default=1)):
        several = [n for n, overlap in enumerate(overlaps) if len(overlap.tokens) > back]
        earlier = states[[overlaps[n].tokens[-1 - back] for n in several]]
        bound[several] += earlier.roll(back, -1)
    for turn in {overlap.turn for overlap in overlaps} - {0}:
        sharing = [n for n, overlap in enumerate(overlaps) if overlap.turn == turn]
        bound[sharing] = bound[sharing].roll(-turn, -1)
    return bound
