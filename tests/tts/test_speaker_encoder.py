"""The speaker encoder: parity with the official x-vector, and input that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from audio_projection.errors import AudioProjectionError
from audio_projection.tts.speaker_encoder import SpeakerEncoder, log_mel
from helpers import parity_kit

SIZES: dict[str, object] = {
    "enc_dim": 12, "enc_channels": [16, 16, 16, 32], "enc_kernel_sizes": [5, 3, 3, 1], "enc_dilations": [1, 2, 6, 1],
    "enc_attention_channels": 8, "enc_se_channels": 4, "enc_res2net_scale": 4, "mel_dim": 40,
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    torch.manual_seed(0)
    return SpeakerEncoder.from_dict(SIZES).eval()


def test_official_x_vector(shared: Path) -> None:
    folder = shared / "parity" / "tiny_base"
    sizes = json.loads((folder / "config.json").read_text())["speaker_encoder_config"]
    encoder = SpeakerEncoder.from_dict(sizes).eval()
    prefix = "speaker_encoder."
    weights = load_file(folder / "model.safetensors")
    state = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    encoder.load_state_dict(state)
    reference = load_file(shared / "parity" / "tiny_base.ref.safetensors")
    made = encoder.embed(reference["ref.wav"], 24000)
    assert (made - reference["ref.x_vector"]).abs().max() < 1e-4


def test_default_sizes_are_the_official_ones() -> None:
    with torch.device("meta"):
        encoder = SpeakerEncoder.from_dict({"enc_dim": 2048, "sample_rate": 24000})
    assert sum(value.numel() for value in encoder.parameters()) == pytest.approx(12.0e6, rel=0.02)
    assert encoder.fc.weight.shape == (2048, 3072, 1)


def test_voice_does_not_depend_on_the_rate_of_the_recording(encoder: SpeakerEncoder) -> None:
    def tone(rate: int) -> np.ndarray:
        time = np.arange(rate) / rate
        return 0.3 * np.sin(2 * np.pi * 220 * time) + 0.2 * np.sin(2 * np.pi * 1800 * time)

    here, there = encoder.embed(tone(24000), 24000), encoder.embed(tone(48000), 48000)
    assert here.shape == (12,) and here.dtype == torch.float32
    assert (here - there).abs().max() < 0.05 * here.abs().max()
    assert (here - encoder.embed(tone(24000)[::-1] * 0.01, 24000)).abs().max() > 0.05 * here.abs().max()


def test_one_mel_frame_for_every_256_samples() -> None:
    assert log_mel(torch.zeros(24000), 40, 24000).shape == (93, 40)
    assert torch.allclose(log_mel(torch.zeros(2560), 40, 24000).exp(), torch.tensor(1e-5))


def test_shortest_recording(encoder: SpeakerEncoder) -> None:
    """A dilation of 6 with a kernel of 3 reflects 6 frames, so it needs 7."""
    assert encoder.embed(np.zeros(7 * 256), 24000).isfinite().all()
    with pytest.raises(AudioProjectionError, match="too short"):
        encoder.embed(np.zeros(7 * 256 - 1), 24000)


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros((24000, 2)), np.full(24000, np.inf)])
def test_refused_recordings(encoder: SpeakerEncoder, samples: np.ndarray) -> None:
    with pytest.raises(AudioProjectionError):
        encoder.embed(samples, 24000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"enc_dilations": [1, 2]}, "one length"),
        ({"enc_channels": [16, 16, 16, 48]}, "sum"),
        ({"enc_channels": [16, 8, 24, 32]}, "equal"),
        ({"enc_channels": 16}, "enc_channels"),
        ({"enc_res2net_scale": 5}, "enc_res2net_scale"),
        ({"enc_dim": "wide"}, "enc_dim"),
        ({"mel_dim": 0}, "mel_dim"),
    ],
)
def test_refused_sizes(change: dict[str, object], message: str) -> None:
    with pytest.raises(AudioProjectionError, match=message):
        SpeakerEncoder.from_dict(SIZES | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speaker_encoder.fc.bias": None}, "1 of .* tensors are missing: speaker_encoder.fc.bias"),
        ({"speaker_encoder.fc.bias": torch.zeros(3)}, r"speaker_encoder.fc.bias is \[3\]"),
        ({"speaker_encoder.foreign": torch.zeros(3)}, "no use for: speaker_encoder.foreign"),
    ],
)
def test_refused_checkpoints(tmp_path: Path, change: dict[str, torch.Tensor | None], message: str) -> None:
    folder = parity_kit.assemble("tiny_base", tmp_path)
    assert not SpeakerEncoder.from_pretrained(folder).training
    weights = load_file(folder / "model.safetensors") | change
    save_file({name: value for name, value in weights.items() if value is not None}, folder / "model.safetensors")
    with pytest.raises(AudioProjectionError, match=message):
        SpeakerEncoder.from_pretrained(folder)
