"""Codes to sound: which chunks the codec decodes next, and which of them together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audio_projection.tts.codec.codec import Codec
from audio_projection.tts.engine.utterance import Utterance

FRAMES_A_STEP = 12
"""Frames that the codec decodes at most between two steps of the talker, or as many as there are slots in use: chunks
that are due at once wait for one another, and nobody's next frame waits for all of them."""


class Sound:
    """The codec's work: chunks that are due, soonest needed first."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        # on a CPU each is decoded by itself, so that its samples do not depend on neighbours at all
        self._together = codec.device.type != "cpu"

    def next_group(self, due: Sequence[Utterance]) -> list[Utterance]:
        """Of utterances whose chunks are due, the one whose listener will be without sound first; on a GPU also those
        whose chunks are as long."""
        ordered = sorted(due, key=lambda utterance: utterance.deadline)
        size = _frames(ordered[0])
        return [utterance for utterance in ordered if _frames(utterance) == size] if self._together else ordered[:1]

    def decode(self, utterances: Sequence[Utterance]) -> list[Tensor]:
        """The next chunk of samples (s,) of each of the utterances, which are equally long."""
        for utterance in utterances:
            utterance.timing.lap("other")
        codes = [torch.stack(utterance.take_codes()) for utterance in utterances]
        samples = self._codec.decode_together([utterance.codec for utterance in utterances], torch.stack(codes))
        for utterance, frames in zip(utterances, codes, strict=True):
            utterance.timing.lap("codec")
            utterance.delivered(len(frames))
        return list(samples)


def _frames(utterance: Utterance) -> int:
    return min(len(utterance.codes), utterance.size)
