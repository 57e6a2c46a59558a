"""Training checkpoints: resumed bit by bit, the last ones kept, damaged ones refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from audio_projection.errors import AudioProjectionError
from audio_projection.training.checkpoints import Checkpoints, TrainingState


def trained(steps: int) -> tuple[torch.nn.Linear, torch.optim.AdamW]:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for _ in range(steps):
        step(module, optimizer)
    return module, optimizer


def step(module: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()


def state_of(module: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> TrainingState:
    return TrainingState(steps, 2 * steps, module.state_dict(), optimizer.state_dict(), {"seed": 1})


def test_resumed_optimizer_is_bitwise_equal(tmp_path: Path) -> None:
    straight, optimizer = trained(5)
    for _ in range(3):
        step(straight, optimizer)
    module, optimizer = trained(5)
    Checkpoints(tmp_path).save(state_of(module, optimizer, 5))
    again, optimizer = trained(1)
    torch.manual_seed(99)
    found = Checkpoints(tmp_path).latest()
    assert found is not None
    loaded = Checkpoints(tmp_path).load(found)
    assert (loaded.step, loaded.position, loaded.settings) == (5, 10, {"seed": 1})
    again.load_state_dict(loaded.weights)
    optimizer.load_state_dict(loaded.optimizer)
    for _ in range(3):  # samples from torch's generator, which was restored too
        step(again, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), again.parameters(), strict=True))


def test_the_last_n_are_kept_and_unfinished_ones_ignored(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    (tmp_path / ".step-00000001.77").mkdir()
    for steps in (1, 2, 10):
        checkpoints.save(state_of(*trained(1), steps))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000010"]
    assert checkpoints.latest() == tmp_path / "step-00000010"
    formats = {path.suffix for path in (tmp_path / "step-00000010").iterdir()}
    assert formats == {".json", ".safetensors"}


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    folder = checkpoints.save(state_of(*trained(1), 1))
    weights = folder / "weights.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(damaged)
        with pytest.raises(AudioProjectionError, match="damaged.*delete that folder"):
            checkpoints.load(folder)
    weights.unlink()
    with pytest.raises(AudioProjectionError, match="cannot read"):
        checkpoints.load(folder)
    record = json.loads((folder / "state.json").read_text())
    for change, words in [({"format": "other"}, "no training checkpoint"), ({"version": 7}, "version 7")]:
        (folder / "state.json").write_text(json.dumps(record | change))
        with pytest.raises(AudioProjectionError, match=words):
            checkpoints.load(folder)
    (folder / "state.json").write_text("[")
    with pytest.raises(AudioProjectionError, match="not valid JSON"):
        checkpoints.load(folder)
