"""What other machines refuse, emulated here: float64 on Apple's GPU; a large model on a CPU; the chosen device."""

from __future__ import annotations

import copy
import json
import logging
import struct
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from audio_projection import devices
from audio_projection.config import Config
from audio_projection.devices import choose_device, parameter_count, warn_of_slow_model
from audio_projection.errors import AudioProjectionError
from audio_projection.fit.assemble import new_projector
from audio_projection.fit.closed_form import fit_projector
from audio_projection.fit.layer_probe import probe
from audio_projection.inference import Voice, VoiceDefaults
from audio_projection.llm.language_model import LanguageModel
from audio_projection.models import load_llm, load_tts
from audio_projection.sampling import Sampling
from audio_projection.tts.codec.codec import Codec
from audio_projection.tts.model import Qwen3TTS
from helpers.apples_gpu import OnApplesGPU, apples_gpu
from helpers.parity_kit import checkpoint
from helpers.tiny_llm import make_llm, make_model, make_tokenizer
from helpers.training import make_config, make_texts


def test_the_emulation_refuses_what_a_mac_refuses() -> None:
    with apples_gpu() as device:
        values = torch.ones(2, 2, device=device)
        assert values.device.type == "mps" and values.cpu().device.type == "cpu" and float(values.sum()) == 4
        for work in (values.double, lambda: torch.arange(3, device=device, dtype=torch.float64)):
            with pytest.raises(TypeError, match="doesn't support float64"):
                work()
        with pytest.raises(RuntimeError, match="same device"):
            values @ torch.ones(2, 2)
        assert values.cpu().double().dtype == torch.float64


def test_the_codec_decodes_on_apples_gpu() -> None:
    folder = checkpoint("tiny_custom_voice") / "speech_tokenizer"
    codes = torch.randint(64, (40, 16), generator=torch.Generator().manual_seed(0))
    whole = Codec.from_pretrained(folder).decode(codes)
    with apples_gpu() as device:
        codec = Codec.from_pretrained(folder, device)
        assert codec.device.type == "mps"
        samples = codec.decode(codes)
        assert isinstance(samples, OnApplesGPU) and samples.dtype == torch.float32
        torch.testing.assert_close(samples.cpu(), whole, atol=1e-3, rtol=0)


@pytest.mark.parametrize("part", ["tts.codec.decoder", "fit.ridge"])
def test_float64_on_apples_gpu_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr(f"audio_projection.{part}.float64_device", lambda device: device)
    with apples_gpu() as device, pytest.raises(TypeError, match="float64"):
        tts = Qwen3TTS.from_pretrained(checkpoint("tiny_custom_voice"), device=device)
        fitted(tmp_path, tts)
        tts.codec.decode(torch.zeros(3, 16, dtype=torch.long))


def test_the_probe_and_the_fit_run_on_apples_gpu(tmp_path: Path) -> None:
    """With the numbers that the CPU gets: sums are taken in float64 there, the rest in float32."""
    here = fitted(tmp_path, Qwen3TTS.from_pretrained(checkpoint("tiny_custom_voice")))
    with apples_gpu() as device:
        tts = Qwen3TTS.from_pretrained(checkpoint("tiny_custom_voice"), device=device)
        assert tts.device.type == "mps"
        there = fitted(tmp_path, tts)
    assert there[0] == pytest.approx(here[0], rel=1e-3)
    assert there[1] == here[1]
    for name, value in here[2].items():
        torch.testing.assert_close(there[2][name], value, rtol=1e-3, atol=1e-4)


def fitted(folder: Path, tts: Qwen3TTS) -> tuple[dict[str, Any], int, dict[str, torch.Tensor]]:
    """Report of a fit, the layer that the probe chooses, and the fitted weights on the CPU."""
    config, texts = make_config(folder), make_texts(60)
    config.fit.held_out, config.fit.ridges = 5, [1e-3, 1e-2]
    projector = new_projector(config, make_llm(layers=2), tts)
    assert projector.linear.weight.device.type == tts.device.type
    report = fit_projector(config.fit, make_llm(layers=2), tts, projector, texts)
    assert report is not None
    numbers = {name: value for name, value in report.to_json().items() if name != "activation"}
    chosen = probe(config.fit, make_llm(layers=[1, 2, 4]), tts, [1, 2, 4], texts).chosen
    return numbers, chosen, {name: value.cpu() for name, value in projector.state_dict().items()}


def test_a_text_is_spoken_on_apples_gpu(tmp_path: Path) -> None:
    """Language model, projector, talker and codec there: nothing on the way needs float64 or the other device."""
    spoken = []
    for on_the_gpu in (False, True):
        with apples_gpu() if on_the_gpu else nullcontext(torch.device("cpu")) as device:
            tts = Qwen3TTS.from_pretrained(checkpoint("tiny_custom_voice"), device=device)
            model = copy.deepcopy(make_model()).to(device)
            llm = LanguageModel(model, make_tokenizer(), "tiny", layers=2)
            config = make_config(tmp_path)
            projector = new_projector(config, llm, tts)
            defaults = replace(VoiceDefaults.from_config(config), max_frames=6, sampling=Sampling.greedy())
            voice = Voice(llm, tts, projector, defaults)
            spoken.append(voice.speak("hello there", "ada").samples)
    assert len(spoken[0]) == len(spoken[1])
    np.testing.assert_allclose(spoken[1], spoken[0], atol=1e-3)


def test_the_device_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    devices._log_device.cache_clear()
    with caplog.at_level(logging.INFO, "audio_projection"):
        assert choose_device("cpu") == choose_device("cpu") == torch.device("cpu")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1 and told[0].startswith("device: cpu (") and "threads" in told[0]


@pytest.mark.parametrize(
    ("billions", "bfloat16", "device", "told"),
    [(2.1, False, "cpu", True), (2.1, True, "cpu", False), (1.9, False, "cpu", False), (2.1, False, "cuda", False)],
)
def test_a_large_model_on_a_cpu_without_bfloat16_says_what_to_expect(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    billions: float,
    bfloat16: bool,
    device: str,
    told: bool,
) -> None:
    save_header(tmp_path / "model.safetensors", int(billions * 1e9))
    monkeypatch.setattr(devices, "has_bfloat16", lambda: bfloat16)
    with caplog.at_level(logging.WARNING, "audio_projection"):
        warn_of_slow_model("language model", "large", tmp_path, torch.device(device))
    assert bool(caplog.records) == told
    if told:
        assert "2.1B parameters" in caplog.text and "8 GB" in caplog.text and "llm.backend=gguf" in caplog.text


def test_it_is_said_before_the_weights_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr("audio_projection.models.warn_of_slow_model", lambda role, *_: heard.append(role))

    def refuse(*_: Any, **__: Any) -> None:
        raise AudioProjectionError("loading")

    monkeypatch.setattr(LanguageModel, "from_pretrained", refuse)
    monkeypatch.setattr(Qwen3TTS, "from_pretrained", refuse)
    for load in (load_llm, load_tts):
        with pytest.raises(AudioProjectionError, match="loading"):
            load(Config(device="cpu"))
    assert heard == ["language model", "speech model"]


def test_parameters_are_counted_from_the_headers(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"c": torch.zeros(2, 2)}, tmp_path / "model-00002-of-00002.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x05")
    assert parameter_count(tmp_path) == 15 + 7 + 4


def save_header(path: Path, numbers: int) -> None:
    """A weight file of which the header alone is there."""
    header = json.dumps({"weight": {"dtype": "BF16", "shape": [numbers], "data_offsets": [0, 2 * numbers]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
