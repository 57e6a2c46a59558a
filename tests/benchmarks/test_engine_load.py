"""benchmarks/engine_load.py runs and prints all its figures; their size depends on the machine."""

from __future__ import annotations

import json

import pytest

from helpers import parity_kit

engine_load = parity_kit.script("engine_load")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    engine_load.main(arguments)
    return json.loads(capsys.readouterr().out)


def test_throughput(capsys: pytest.CaptureFixture[str]) -> None:
    figures = printed(capsys, "throughput", "--slots", "1", "2", "--rounds", "1", "--frames", "30")
    assert list(figures) == [
        f"{part}, {slots} slots" for part in ("talker and predictor", "with the codec") for slots in (1, 2)
    ]
    assert all("s of sound a second" in figure and "times one" in figure for figure in figures.values())


def test_listeners(capsys: pytest.CaptureFixture[str]) -> None:
    capacity = printed(capsys, "capacity", "--streams", "1", "--seconds", "3")
    assert capacity["sentences"] >= 1 and capacity["seconds of sound"] > 1
    arrivals = printed(capsys, "arrivals", "--streams", "2", "--arrivals", "3")
    assert arrivals["sentences"] == 3 and arrivals["arrivals a second"] > 0
    first = printed(capsys, "first-sound", "--calls", "2")
    assert first["sentences"] == 2 and 0 < first["first sound, ms"]["median"] <= first["first sound, ms"]["longest"]


def test_late_chunks_are_underruns() -> None:
    class Chunks:
        chunks = [[0.0] * 100]
        over = False

        def __next__(self) -> list[float]:
            return self.chunks.pop()

    spoken = Chunks()
    listener = engine_load.Listener(spoken, asked=5.0, rate=100)
    assert not listener.take(6.0) and (listener.first, listener.ends, listener.gaps) == (1.0, 7.0, [])
    spoken.chunks = [[0.0] * 50]
    listener.take(6.5)
    assert (listener.ends, listener.gaps) == (7.5, [])
    spoken.chunks, spoken.over = [[0.0] * 50], True
    assert listener.take(7.75) and (listener.ends, listener.gaps, listener.sound) == (8.25, [0.25], 2.0)
