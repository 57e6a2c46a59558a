"""DDP and FSDP: several processes take the steps of one with the same global batch, and resume each other's runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from audio_projection.errors import AudioProjectionError
from audio_projection.files.tensors import read_tensors
from audio_projection.training.run_log import read_metrics
from audio_projection.training.trainer import Trainer
from audio_projection.tts import transformer
from helpers.paths import TESTS
from helpers.training import make_pairs, train_until, tuned

PAIRS = make_pairs(8)

pytestmark = [
    pytest.mark.posix,
    pytest.mark.timeout(900),
]  # ten processes: seconds on an idle machine, minutes on a busy one
TRAIN = {"steps": 2, "batch": 2, "checkpoint_every": 1, "eval_every": 2, "loss": {"perceptual": 0.1, "rows": 0.5}}


def job(name: str, finetune: str, folder: str | None = None, sharded: bool = False, until: int = 2) -> dict[str, Any]:
    made = {"name": name, "folder": folder or name, "finetune": finetune, "sharded": sharded, "until": until}
    return made | {"processes": 2, "train": TRAIN | {"grad_accumulation": 2}}


LORA_UNDECIDED = 1 / 200
"""Share of LoRA's weights whose first gradients are near 0: 1e-8 among 3e-4, because B starts at zero."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes: DDP, DDP stopped half-way, FSDP."""
    folder = tmp_path_factory.mktemp("processes")
    jobs = [
        job("ddp", "lora"),
        job("stopped", "lora", until=1),
        job("fsdp", "full", sharded=True),
        job("fsdp stopped", "full", sharded=True, until=1),
        job("fsdp resumed", "full", folder="fsdp stopped", sharded=True),
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])}
    command = [sys.executable, str(TESTS / "helpers" / "processes.py"), str(folder), str(folder / "jobs.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def trained(run: Path, step: int = 2) -> dict[str, torch.Tensor]:
    return read_tensors(run / "linear" / "checkpoints" / f"step-{step:08d}" / "weights.safetensors")


def alone(folder: Path, finetune: str, accumulation: int = 4, until: int = 2) -> dict[str, torch.Tensor]:
    """The weights of a run by this process alone, with as many micro-batches a step."""
    config, models = tuned(folder, finetune, **TRAIN | {"grad_accumulation": accumulation})
    train_until(Trainer(config, models, PAIRS[:6], PAIRS[6:]), until)
    return trained(folder, until)


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], undecided: float = 0.0) -> None:
    """To what sums in another order differ by, which Adam's first steps enlarge where a gradient is near zero.

    In a share `undecided` of a tensor's places the gradient is no more than that itself: there two steps of 0.01 may
    go either way.
    """
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=2 * 0.01)
        near = torch.isclose(one[name], other[name], rtol=1e-3, atol=2e-4)
        assert near.float().mean() >= 1 - undecided, name


def gradients(run: Path) -> dict[str, torch.Tensor]:
    """Adam's running means of them after two steps."""
    stored = read_tensors(run / "linear" / "checkpoints" / "step-00000002" / "optimizer.safetensors")
    return {name: mean for name, mean in stored.items() if name.endswith(".exp_avg")}


def test_two_processes_take_the_steps_of_one_with_the_same_batch(folder: Path, tmp_path: Path) -> None:
    assert_close(trained(folder / "ddp"), alone(tmp_path, "lora"), LORA_UNDECIDED)
    one, other = gradients(folder / "ddp"), gradients(tmp_path)
    assert one and one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-6)
    records = [read_metrics(run / "linear" / "metrics.jsonl") for run in (folder / "ddp", tmp_path)]
    for one, other in zip(*records, strict=True):  # one line a step, from one of the processes
        for group in ("training", "held_out", "plain"):
            assert one.get(group, {}) == pytest.approx(other.get(group, {}), rel=1e-3, abs=1e-5)


def test_another_number_of_processes_resumes_a_run(folder: Path) -> None:
    """The data go on where they were: the steps are those that two processes would have taken."""
    with pytest.raises(AudioProjectionError, match="number of micro-batches a step"):
        alone(folder / "stopped", "lora", accumulation=2)
    assert_close(alone(folder / "stopped", "lora"), trained(folder / "ddp"), LORA_UNDECIDED)


def test_sharded_weights_train_as_whole_ones(folder: Path, tmp_path: Path) -> None:
    assert_close(trained(folder / "fsdp"), alone(tmp_path, "full"))
    saved = [run / "linear/projector/talker/model.safetensors" for run in (folder / "fsdp", tmp_path)]
    assert_close(*(read_tensors(path) for path in saved))


def test_a_sharded_run_resumes_exactly(folder: Path) -> None:
    straight, resumed = trained(folder / "fsdp"), trained(folder / "fsdp stopped")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_the_fsdp_configuration_is_accelerates_and_names_our_layer(repository: Path) -> None:
    settings = load_config_from_file(str(repository / "configs" / "fsdp.yaml"))
    assert settings.distributed_type.value == "FSDP" and settings.fsdp_config["fsdp_version"] == 2
    assert hasattr(transformer, settings.fsdp_config["fsdp_transformer_layer_cls_to_wrap"])
