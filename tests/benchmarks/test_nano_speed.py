"""benchmarks/nano_speed.py runs and prints all its figures; their size depends on the machine."""

from __future__ import annotations

import re

import pytest

from helpers import parity_kit

nano_speed = parity_kit.script("nano_speed")


def test_all_figures(capsys: pytest.CaptureFixture[str]) -> None:
    nano_speed.main(["--starts", "1", "--sentences", "1"])
    printed = capsys.readouterr().out
    print(printed)
    times = re.findall(r"(cold start|the imports alone).*: ([\d.]+) s \([\d.]+ s of processor time\)", printed)
    assert [what for what, _ in times] == ["cold start", "the imports alone"]
    assert all(float(seconds) > 0 for _, seconds in times)
    assert len(re.findall(r"speaking, .*: [\d.]+ x real time, \d+ frames/s", printed)) == 4


def test_a_failed_start_is_reported() -> None:
    with pytest.raises(SystemExit, match="nano_speed: the command failed: error: .*nowhere.yaml"):
        nano_speed.cold_start(nano_speed.ROOT / "nowhere.yaml", 1)
