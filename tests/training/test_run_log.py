"""The log of a run: spoken samples and TensorBoard events."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio
from audio_projection.train import run_training, train_projector
from audio_projection.training.run_log import read_metrics
from audio_projection.training.trainer import Trainer
from helpers.training import load_tts, make_config, make_models, make_pairs

PAIRS = make_pairs(8)


def test_samples_are_what_the_projector_says_and_change_nothing(tmp_path: Path) -> None:
    results = []
    for every in (None, 2):
        config = make_config(tmp_path / str(every), steps=4, sample_every=every)
        models = make_models(config)
        train_projector(config, models, PAIRS[:6], PAIRS[6:])
        results.append(models.projector.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert all(value.requires_grad for value in models.projector.parameters())
    folder = tmp_path / "2" / "linear" / "samples"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"step-0000000{step}.{kind}" for step in (2, 4) for kind in ("png", "wav")
    ]
    tts = load_tts()
    sounds = [audio.read(path, tts.sample_rate) for path in sorted(folder.glob("*.wav"))]
    assert all(0 < len(sound) <= (2 * len(PAIRS[6].codes) + 12) * tts.samples_per_frame for sound in sounds)
    assert len(sounds[0]) != len(sounds[1]) or np.abs(sounds[0] - sounds[1]).max() > 0  # two projectors
    assert (folder / "step-00000002.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "None" / "linear" / "samples").exists()


def test_a_trainer_logs_nothing_before_it_begins_and_all_steps_after_it(tmp_path: Path) -> None:
    config = make_config(tmp_path, steps=1)
    trainer = Trainer(config, make_models(config), PAIRS[:6], PAIRS[6:])
    trainer.run_log.add({"step": 0})
    trainer.run_log.close()
    assert not config.run_dir.exists()
    trainer.run_log.begin(0)
    trainer.run_log.add({"step": 1})
    assert read_metrics(config.run_dir / "metrics.jsonl") == [{"step": 1}]


def test_tensorboard_has_the_records_and_the_samples(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = make_config(tmp_path, steps=4, sample_every=4, tensorboard=True)
    train_projector(config, make_models(config), PAIRS[:6], PAIRS[6:])
    events = EventAccumulator(str(config.run_dir / "tensorboard")).Reload()
    written = [(event.step, event.value) for event in events.Scalars("training/talker")]
    records = read_metrics(config.run_dir / "metrics.jsonl")
    losses = [(record["step"], record["training"]["talker"]) for record in records if "training" in record]
    assert written == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in losses] and len(losses) == 4
    assert {"held_out/talker", "plain/accuracy"} <= set(events.Tags()["scalars"])
    assert [len(events.Audio("sample")), len(events.Images("sample"))] == [1, 1]


def test_missing_tensorboard_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(AudioProjectionError, match=r"pip install 'audio-projection\[tensorboard\]'"):
        run_training(make_config(tmp_path, tensorboard=True))
