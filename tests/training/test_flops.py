"""The estimated FLOPs of a run against a counter of what torch computes."""

from __future__ import annotations

import json

import pytest
import torch

from audio_projection.config import Config
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.projector import ProjectorInfo, build_projector
from audio_projection.training.estimates.dry_run import estimate_run
from audio_projection.training.estimates.flops import (
    PREFIX,
    LLMSizes,
    SpeechAmount,
    TTSSizes,
    fit_flops,
    hours,
    training_flops,
)
from audio_projection.tts.config import Qwen3TTSConfig
from helpers import parity_kit

benchmark = parity_kit.script("training_step")
LLM = LLMSizes(hidden=64, layers=4, parameters=400, vocabulary=2)


def nano_sizes() -> TTSSizes:
    return estimate_run(Config.model_validate({"llm": {"name": "nano"}, "tts": {"name": "nano"}})).tts


def test_a_step_has_the_estimated_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output heads and attention scores, which the estimate leaves out, are small in nano."""
    monkeypatch.setattr(benchmark, "PREFIX", PREFIX)
    settings = Qwen3TTSConfig.from_dict(json.loads((NANO_FOLDER / "tts" / "config.json").read_text()))
    projector = build_projector(ProjectorInfo(kind="linear", llm_size=64, tts_size=settings.hidden_size))
    step = benchmark.Step(benchmark.build(settings, torch.float32, "cpu"), projector, benchmark.Shape(2, 20, 60))
    config = Config.model_validate({"train": {"predictor_share": 0.5}})
    estimate = training_flops(config, LLM, nano_sizes(), 2, projector.parameter_count, SpeechAmount(2, 40, 120))
    assert estimate["LLM"] == 2 * 200 * 40
    alone, both = step.operations(0), step.operations(0.5)
    assert estimate["talker"] + estimate["projector"] == pytest.approx(alone, rel=0.2)
    assert estimate["code predictor"] == pytest.approx(both - alone, rel=0.3)


def test_what_is_not_computed_has_no_flops() -> None:
    config, sizes, seen = Config(), nano_sizes(), SpeechAmount(1, 10, 50)

    def talker(**loss: float) -> float:
        none = dict.fromkeys(type(config.train.loss).model_fields, 0.0)
        config.train.loss = type(config.train.loss)(**(none | loss))
        return training_flops(config, LLM, sizes, 4, 100, seen)["talker"]

    projector = build_projector(ProjectorInfo(llm_size=64, tts_size=sizes.hidden))
    assert talker(rows=1) == 0 and fit_flops(config, LLM, sizes, 4, projector) > 0
    assert talker(talker=1, distill=1) == 1.5 * talker(talker=1), "the teacher is a forward pass"
    config.tts.finetune = "full"
    assert talker(talker=1) == 2 * sizes.talker_stack * 3 * (PREFIX + 60)
    config.projector.kind = "residual"
    assert fit_flops(config, LLM, sizes, 4, projector) == 0


def test_hours() -> None:
    assert hours(0.4 * 1e15 * 3600, 1e15) == pytest.approx(1.0)
