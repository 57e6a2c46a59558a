"""Training runs of the installed command that are killed or terminated, and resumed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from audio_projection.config import Config
from audio_projection.data.pairs import Pair, PairFolder
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.projector import Projector
from audio_projection.train import run_training
from audio_projection.training.run_log import read_metrics
from audio_projection.tts.config import Qwen3TTSConfig
from helpers.nano import SPEAKER
from helpers.paths import TESTS
from helpers.training import make_config, make_texts


def nano_config(folder: Path, **train: Any) -> dict[str, Any]:
    """nano on ready pairs: texts and random codes."""
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    groups = Qwen3TTSConfig.from_folder(NANO_FOLDER / "tts").code_groups
    codes = [torch.randint(256, (4 + index % 7, groups), generator=generator) for index in range(14)]
    pairs = [Pair(text, text, code, SPEAKER) for text, code in zip(make_texts(14), codes, strict=True)]
    PairFolder(folder / "pairs", {}).add(pairs)
    (folder / "texts.txt").write_text("\n".join(make_texts(60, seed=5)), encoding="utf-8")
    values = make_config(folder / "run", **train).model_dump(mode="json")
    values["llm"] |= {"name": "nano", "layers": 1}
    values["tts"] |= {"name": "nano", "speaker": SPEAKER}
    values["data"] |= {"source": "pairs", "path": str(folder / "pairs"), "min_seconds": 0.0, "held_out": 2}
    values["data"] |= {"texts": str(folder / "texts.txt")}
    values["fit"] |= {"held_out": 5, "ridges": [1e-3]}
    return values


def start(folder: Path, values: dict[str, Any]) -> subprocess.Popen:
    (folder / "config.json").write_text(json.dumps(values))  # JSON is YAML
    command = [sys.executable, "-m", "audio_projection", "train", "--config", str(folder / "config.json")]
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent / "src")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def steps(metrics: Path) -> list[int]:
    return [record["step"] for record in read_metrics(metrics) if "training" in record]


def wait_for_step(process: subprocess.Popen, metrics: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while max(steps(metrics), default=0) < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run never got that far"
        time.sleep(0.005)


@pytest.mark.posix
@pytest.mark.parametrize(
    "kills", [2, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])], ids=lambda kills: f"{kills}"
)
def test_killed_at_random_moments_a_run_ends_with_the_weights_of_one_never_stopped(tmp_path: Path, kills: int) -> None:
    """SIGKILL in the middle of steps and of writing; fit, training and states by name."""
    settings = {"steps": 10 * kills + 10, "checkpoint_every": 3, "eval_every": 15}
    settings |= {"loss": {"distill": 0.5, "rows": 0.1, "perceptual": 0.02}, "perceptual_seconds": 0.4}
    straight, killed = (nano_config(tmp_path / name, **settings) for name in ("straight", "killed"))
    config, moments = Config.model_validate(killed), random.Random(kills)
    metrics = config.run_dir / "metrics.jsonl"
    for _ in range(kills):
        process = start(tmp_path / "killed", killed)
        wait_for_step(process, metrics, max(steps(metrics), default=0) + moments.randint(1, 7))
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not config.trained_projector.exists()
    ended = {}
    for name, values in {"straight": straight, "killed": killed}.items():
        chosen = Config.model_validate(values)
        assert run_training(chosen).step == settings["steps"]
        records = read_metrics(chosen.run_dir / "metrics.jsonl")
        losses = [record["training"]["loss"] for record in records if "training" in record]
        ended[name] = Projector.from_pretrained(chosen.trained_projector).state_dict(), losses
    assert ended["straight"][1] == ended["killed"][1] and len(ended["killed"][1]) == settings["steps"]
    for name, value in ended["straight"][0].items():
        assert torch.equal(ended["killed"][0][name], value), name


def test_sigterm_writes_a_checkpoint_and_says_so(tmp_path: Path) -> None:
    values = nano_config(tmp_path, steps=100_000, checkpoint_every=100_000, eval_every=100_000)
    config = Config.model_validate(values)
    process = start(tmp_path, values)
    wait_for_step(process, config.run_dir / "metrics.jsonl", 5)
    process.terminate()
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    done = max(steps(config.run_dir / "metrics.jsonl"))
    assert (config.run_dir / "checkpoints" / f"step-{done:08d}").is_dir()
    assert not config.trained_projector.exists() and f"stopped after step {done}" in said


def test_ctrl_c_writes_a_checkpoint_says_so_and_exits_with_130(tmp_path: Path) -> None:
    values = nano_config(tmp_path, steps=100_000, checkpoint_every=100_000, eval_every=100_000)
    config = Config.model_validate(values)
    process = start(tmp_path, values)
    wait_for_step(process, config.run_dir / "metrics.jsonl", 3)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    done = max(steps(config.run_dir / "metrics.jsonl"))
    assert (config.run_dir / "checkpoints" / f"step-{done:08d}").is_dir()
    assert f"stopped after step {done}" in said and "the same command goes on" in said
    assert "stopping after this step; Ctrl-C again ends at once" in errors and "Traceback" not in errors
    assert errors.index("the run is in") < errors.index("loading the speech model")
