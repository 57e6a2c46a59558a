"""Streamed speech of nano has no discontinuity at the borders of its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from audio_projection.inference import Voice
from audio_projection.tts.codec.codec import CodecStream


@pytest.fixture(scope="module")
def streamed() -> tuple[list[np.ndarray], np.ndarray]:
    """The chunks of a sentence, and the codec's decoding of all its codes at once."""
    voice = Voice.from_config("configs/nano.yaml")
    codec, codes = voice.tts.codec, list[Tensor]()
    decode = codec.decode_together

    def captured(streams: Sequence[CodecStream], chunk: Tensor) -> Tensor:
        codes.append(chunk[0])
        return decode(streams, chunk)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "decode_together", captured)
        chunks = list(voice.stream("The old dog slept beside the warm stove.", seed=0, control="plain"))
    return chunks, codec.decode(torch.cat(codes)).numpy()


def test_chunks_are_the_whole(streamed: tuple[list[np.ndarray], np.ndarray]) -> None:
    chunks, whole = streamed
    assert len(chunks) > 4 and np.abs(whole).max() > 0.05
    np.testing.assert_allclose(np.concatenate(chunks), whole, rtol=0, atol=1e-5)


def test_no_jump_at_a_border(streamed: tuple[list[np.ndarray], np.ndarray]) -> None:
    """The largest step from one sample to the next is inside a chunk, not between two."""
    chunks, _ = streamed
    borders = [abs(float(after[0] - before[-1])) for before, after in pairwise(chunks)]
    inside = [float(np.abs(np.diff(chunk)).max()) for chunk in chunks]
    assert max(borders) <= max(inside)
