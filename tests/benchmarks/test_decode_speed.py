"""The decoding speed benchmark runs, and reports when the official package is absent."""

from __future__ import annotations

import importlib.util

import pytest

from helpers import parity_kit

decode_speed = parity_kit.script("decode_speed")


@pytest.mark.skipif(importlib.util.find_spec("qwen_tts") is not None, reason="the official package is installed here")
def test_own_side_alone(capfd: pytest.CaptureFixture[str]) -> None:
    model = parity_kit.checkpoint("tiny_custom_voice")
    assert decode_speed.main([str(model), "--runs", "1", "--frames", "3"]) == 0
    printed = capfd.readouterr().out
    assert "own " in printed and "frames/s" in printed and "skipped: the official package is not installed" in printed


def test_different_codes_are_no_comparison() -> None:
    class Fake:
        def __init__(self, code: int) -> None:
            self.code = code

        def run(self, frames: int) -> dict:
            return {"codes": [[self.code]] * frames, "seconds": 0.5}

    assert decode_speed.measure({"own": Fake(1), "official": Fake(1)}, 4, 2) == {
        "own": [8.0] * 2,
        "official": [8.0] * 2,
    }
    with pytest.raises(SystemExit, match="do not give the same codes"):
        decode_speed.measure({"own": Fake(1), "official": Fake(2)}, 4, 2)
