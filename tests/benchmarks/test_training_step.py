"""The training step benchmark: its count of floating-point operations is right for a frozen model."""

from __future__ import annotations

import json

import torch

from audio_projection.files.locations import NANO_FOLDER
from audio_projection.projector import ProjectorInfo, build_projector
from audio_projection.tts.config import Qwen3TTSConfig
from helpers import parity_kit

benchmark = parity_kit.script("training_step")


def test_operations_are_those_of_the_forward_and_of_the_backward_to_the_activations() -> None:
    config = Qwen3TTSConfig.from_dict(json.loads((NANO_FOLDER / "tts" / "config.json").read_text()))
    tts = benchmark.build(config, torch.float32, "cpu")
    info = ProjectorInfo(kind="linear", llm_size=64, tts_size=config.hidden_size)
    shape = benchmark.Shape(batch=2, tokens=5, frames=11)
    step = benchmark.Step(tts, build_projector(info), shape)
    positions, frames = shape.batch * (benchmark.PREFIX + 5 + 11), shape.batch * 11
    matrices = sum(p.numel() for p in tts.talker.transformer.parameters() if p.ndim == 2)
    frozen = 2 * 2 * (positions * matrices + frames * tts.talker.codec_head.weight.numel())
    trained = 2 * 2 * shape.batch * 5 * info.llm_size * info.tts_size  # forward and weight gradient
    alone, both = step.operations(0), step.operations(0.5)
    assert frozen + trained <= alone < 1.1 * (frozen + trained), "attention itself is little at this length"
    predictor = sum(p.numel() for p in tts.code_predictor.transformer.parameters() if p.ndim == 2)
    assert both - alone > 2 * 2 * (frames // 2) * config.code_groups * predictor
    assert all(weight.grad is None for weight in tts.parameters())


def test_it_prints_its_measurements(capsys) -> None:
    words = "--dtype float32 --runs 1 --batch 1 --tokens 3 --frames 6 --llm-size 64"
    benchmark.SIDE = 64
    benchmark.main([str(NANO_FOLDER / "tts" / "config.json"), *words.split()])
    printed = capsys.readouterr().out
    assert "with the predictor / alone" in printed and "peak memory" in printed
