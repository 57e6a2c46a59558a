"""The first words, which nobody hears: kernels are chosen, packages are imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_projection.server.audio_formats import Recoder

if TYPE_CHECKING:
    from audio_projection.inference import Voice


def warm_up(voice: Voice) -> None:
    """Speaks and encodes a text and the beginning of an answer."""
    recoder = Recoder("mp3", voice.sample_rate)
    for samples in voice.stream("One, two.", seed=0):
        recoder.encode(samples)
    recoder.finish()
    if voice.llm.context == "chat":
        answer = voice.chat_stream([{"role": "user", "content": "Hello."}], seed=0)
        next(answer, None)
        answer.close()
