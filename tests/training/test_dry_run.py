"""The dry run's estimate: parameters, sizes, data, FLOPs and time, without any weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from audio_projection.config import Config, TTSConfig, load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.training.dry_run import KNOWN_TTS, describe, estimate_run
from audio_projection.tts.model import Qwen3TTS
from helpers.training import load_tts, make_config, make_texts, parity_file, save_llm


@pytest.fixture
def default(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """configs/default.yaml on a machine that has nothing of it."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return load_config(repository / "configs" / "default.yaml", [f"data.path={tmp_path / 'none'}"])


def test_default_configuration_is_estimated_without_any_file(default: Config) -> None:
    estimate = estimate_run(default)
    assert abs(estimate.parameters - 8.39e6) < 0.01 * 8.39e6
    assert estimate.utterances == 28_539 and estimate.steps is not None
    text = describe(default)
    assert "8,394,752 (8.39M)" in text and "linear.weight (2048, 4096)" in text
    assert "LLM weights: 16.06 GB" in text and "not there yet" in text and "x-vector" in text


def test_flops_and_time_are_printed(default: Config) -> None:
    text = describe(default)
    assert "FLOPs, about:" in text and "H100 or H200" in text and " min" in text
    assert "113,136 utterances" in text and "assumed to be half" not in text
    default.data.source, default.data.limit, default.train.steps = "manifest", None, 100
    assert "assumed to be half of" in describe(default)
    default.train.steps = None
    assert "FLOPs and time: not known before the data are there" in describe(default)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_what_is_tuned_in_the_talker_is_counted(tmp_path: Path, kind: str) -> None:
    from audio_projection.tts.finetune import finetuning

    config = make_config(tmp_path)
    config.tts.name, config.llm.name = str(parity_file("tiny_custom_voice")), str(save_llm(tmp_path / "llm"))
    config.tts.finetune, config.tts.lora_rank = kind, 4  # type: ignore[assignment]
    counted, tts = estimate_run(config).tts.finetuned(config.tts), Qwen3TTS.from_pretrained(config.tts.name)
    finetuning(config, tts)
    assert counted == sum(weight.numel() for weight in tts.parameters() if weight.requires_grad)
    assert f"tts.finetune={kind}: {counted:,}" in describe(config)


def test_residual_of_the_default_is_as_large(default: Config) -> None:
    default.projector.kind = "residual"
    assert abs(estimate_run(default).parameters - 8.39e6) < 0.01 * 8.39e6


def test_a_model_without_known_sizes_is_asked_for(default: Config) -> None:
    default.llm.name = "someone/unknown"
    with pytest.raises(AudioProjectionError, match="sizes of someone/unknown are not known"):
        estimate_run(default)


def test_folders_are_read_by_their_configuration_only(tmp_path: Path) -> None:
    llm, tts = save_llm(tmp_path / "llm"), tmp_path / "tts"
    for weights in llm.glob("*.safetensors"):
        weights.unlink()
    (tts / "speech_tokenizer").mkdir(parents=True)
    for name in ("config.json", "speech_tokenizer/config.json"):
        (tts / name).write_bytes((parity_file("tiny_custom_voice") / name).read_bytes())
    (tmp_path / "texts.txt").write_text("\n".join(make_texts(50)))
    config = make_config(tmp_path / "run", steps=None, epochs=3.0, batch=5)
    config.llm.name, config.tts.name, config.data.texts = str(llm), str(tts), tmp_path / "texts.txt"
    config.llm.layers, config.data.held_out = [1, -1], 10
    estimate = estimate_run(config)
    assert estimate.layers == "1, 4" and estimate.parameters == 32 * 64 + 3 * 64 + 2
    assert estimate.utterances == 50 and estimate.steps == 3 * 40 // 5
    real = load_tts()
    parts = (real.codec.encoder, real.codec.decoder)
    codec = sum(parameter.numel() for part in parts for parameter in part.parameters())
    assert estimate.tts.codec_parameters == codec
    assert estimate.tts.parameters == sum(parameter.numel() for parameter in real.parameters()) - codec
    assert describe(config).startswith("trained parameters: 2,242")


def test_known_sizes_are_those_of_the_published_configurations(shared: Path, tmp_path: Path) -> None:
    from audio_projection.training.dry_run import _tts_sizes

    settings = TTSConfig(name=str(tmp_path))
    for name, known in (("1.7B-CustomVoice.derived", "1.7B-CustomVoice"), ("0.6B-CustomVoice", "0.6B-CustomVoice")):
        (tmp_path / "config.json").write_text((shared / "data" / "configs" / f"config.{name}.json").read_text())
        sizes, table = _tts_sizes(settings, None), KNOWN_TTS[f"Qwen/Qwen3-TTS-12Hz-{known}"]
        rounded = replace(sizes, parameters=table.parameters, codec_parameters=table.codec_parameters)
        assert rounded == table
        assert abs(sizes.parameters - table.parameters) < 0.01 * table.parameters
