"""The perceptual loss: its spectra against librosa's, its expected latents against an expectation written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from audio_projection.training import perceptual_loss
from audio_projection.training.perceptual_loss import RESOLUTIONS, MelDistance, code_probabilities, segment_distance
from audio_projection.training.teacher_forcing import TeacherForced
from helpers.training import forced


def librosa_distance(sound: np.ndarray, reference: np.ndarray, rate: int) -> float:
    librosa = pytest.importorskip("librosa", reason="librosa is not installed")
    distances = []
    for window, bands in RESOLUTIONS:
        filters = librosa.filters.mel(sr=rate, n_fft=window, n_mels=bands, norm=None)
        filters = filters / filters.sum(1, keepdims=True)
        spectra = [
            np.abs(librosa.stft(each, n_fft=window, hop_length=window // 4, pad_mode="constant"))
            for each in (sound, reference)
        ]
        ours, theirs = (np.log(np.maximum(filters @ spectrum, 1e-5)) for spectrum in spectra)
        distances.append(np.abs(ours - theirs).mean())
    return float(np.mean(distances))


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_mel_distance_is_that_of_librosa(rate: int) -> None:
    random = np.random.default_rng(0)
    sounds = [random.normal(0, scale, 9000).astype(np.float32) for scale in (0.1, 0.02)]
    ours = float(MelDistance(rate)(*(torch.from_numpy(sound) for sound in sounds)))
    assert ours == pytest.approx(librosa_distance(*sounds, rate), rel=1e-3)
    assert ours == pytest.approx(float(np.log(5)), rel=0.15)  # a level is a difference of logarithms
    assert float(MelDistance(rate)(torch.zeros(3000), torch.zeros(3000))) == 0.0


def expectation(quantizer: torch.nn.Module, probabilities: Tensor) -> Tensor:
    """Mean latents of (T, G, K), code by code: a code's part is what putting it in the place of code 0 changes."""
    frames, groups, codes = probabilities.shape
    zeros = torch.zeros(1, frames, groups, dtype=torch.long)
    nothing = quantizer(zeros)
    total = nothing.clone()
    for group in range(groups):
        for code in range(codes):
            frame_codes = zeros.clone()
            frame_codes[..., group] = code
            total += probabilities[:, group, code].to(total.dtype) * (quantizer(frame_codes) - nothing)
    return total


@torch.no_grad()
def test_distance_equals_the_expectation_written_out() -> None:
    """From the first frame on, so that there is no context: expected latents, codec, librosa's mel."""
    batch = forced(1, noise=1.0)
    tts, states, codes = batch.tts, batch.states[0], batch.codes[0]
    probabilities = code_probabilities(tts, states[:4], codes[:4])
    assert torch.allclose(probabilities.sum(-1), torch.ones(4, 16), atol=1e-5)
    assert torch.allclose(probabilities[:, 0], tts.talker.codec_head(states[:4])[:, :64].softmax(-1))
    decoder = tts.codec.decoder
    sound, reference = (
        decoder.synthesize(latents, {})[0].float().numpy()
        for latents in (expectation(decoder.quantizer, probabilities), decoder.quantizer(codes[:4][None]))
    )
    found = float(segment_distance(tts, states, codes, slice(0, 4), MelDistance(tts.sample_rate)))
    assert found == pytest.approx(librosa_distance(sound, reference, tts.sample_rate), rel=1e-3) and found > 0


def test_certain_codes_sound_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a context of true codes, which both waveforms share."""
    batch = forced(1)
    codes = batch.codes[0]

    def certain(tts: object, states: Tensor, codes: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(codes, 64).float()

    monkeypatch.setattr(perceptual_loss, "code_probabilities", certain)
    found = segment_distance(batch.tts, batch.states[0], codes, slice(2, 5), MelDistance(batch.tts.sample_rate))
    assert float(found) < 1e-4


def test_gradient_is_the_slope_of_the_distance() -> None:
    """Along the gradient itself, by the difference of two small steps."""
    batch = forced(1, noise=1.0)
    tts, (embeddings,), place = batch.tts, batch.embeddings, slice(1, 5)

    def at(moved: Tensor) -> Tensor:
        other = TeacherForced(tts, batch.utterances, [moved], "nonstreaming")
        return segment_distance(tts, other.states[0], batch.codes[0], place, MelDistance(tts.sample_rate))

    (gradient,) = torch.autograd.grad(at(embeddings), embeddings)
    step = 1e-3 * embeddings.detach().norm() / gradient.norm()
    with torch.no_grad():
        slope = (at(embeddings + step * gradient) - at(embeddings - step * gradient)) / (2 * step)
    assert float(slope) == pytest.approx(float(gradient.square().sum()), rel=0.05)
