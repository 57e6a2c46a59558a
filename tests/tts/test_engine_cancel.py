"""A cancel while the only listener decodes: nobody steps afterwards, and yet the slot is free."""

from __future__ import annotations

import threading

from audio_projection.inference import Voice
from helpers.serving import until


def test_a_cancel_during_the_last_frame_frees_the_slot() -> None:
    voice = Voice.from_config("configs/nano.yaml")
    engine = voice._current_engine()
    for _ in range(10):
        stream = voice.stream("This is a sentence that goes on for a while.", seed=1)
        begun = threading.Event()

        def listen(stream=stream, begun=begun) -> None:  # type: ignore[no-untyped-def]
            for _ in stream:
                begun.set()

        listener = threading.Thread(target=listen)
        listener.start()
        assert begun.wait(30)
        stream.cancel()
        listener.join(30)
        until(lambda: engine.active == 0, seconds=2)
