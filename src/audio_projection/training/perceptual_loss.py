"""Multi-resolution mel loss through the frozen codec decoder, on expected latents.

The expected latents are the mean of the codebook vectors under the predicted probabilities; they are differentiable,
and a sampled code is not. The reference is the decoded true codes, so that what the codec itself loses of a recording
does not count.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

if TYPE_CHECKING:
    from audio_projection.tts.model import Qwen3TTS

RESOLUTIONS = ((512, 20), (1024, 40), (2048, 80))
"""(window in samples, mel bands); windows overlap by three quarters."""
CONTEXT = 25
"""Frames of true codes that the codec decodes before a segment, as in the official package's blocks."""
_QUIETEST = 1e-5  # magnitude; everything below it counts as equal


class MelDistance:
    """Mean absolute difference of log mel spectra (nats) at several resolutions, of waveforms (S,) at `rate` Hz.

    The multi-resolution mel distance of neural codecs (Kumar et al., 2023, arXiv 2306.06546), with fewer resolutions.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate

    def __call__(self, waveform: Tensor, reference: Tensor) -> Tensor:
        """A scalar, float32; differentiable in both."""
        distances = [
            (self._log_mel(waveform, *sizes) - self._log_mel(reference, *sizes)).abs().mean() for sizes in RESOLUTIONS
        ]
        return torch.stack(distances).mean()

    def _log_mel(self, waveform: Tensor, window: int, bands: int) -> Tensor:
        """(bands, frames)"""
        spectrum = torch.stft(
            waveform.float(),
            window,
            hop_length=window // 4,
            window=torch.hann_window(window, device=waveform.device),
            pad_mode="constant",
            return_complex=True,
        )
        # the square root has no gradient at 0; this floor is far below the one of the spectrum
        magnitude = (spectrum.real.square() + spectrum.imag.square()).clamp_min(_QUIETEST**2 * 1e-4).sqrt()
        return (_filters(self.rate, window, bands).to(waveform.device) @ magnitude).clamp_min(_QUIETEST).log()


@lru_cache(maxsize=16)
def _filters(rate: int, window: int, bands: int) -> Tensor:
    """(bands, window / 2 + 1), float32, each of area 1."""
    weights = mel_filter_bank(window // 2 + 1, bands, 0.0, rate / 2, rate, mel_scale="slaney")
    filters = torch.from_numpy(weights.T).float()
    return filters / filters.sum(1, keepdim=True)


def code_probabilities(tts: Qwen3TTS, states: Tensor, codes: Tensor) -> Tensor:
    """Predicted probabilities (T, G, K), float32, of the codes of frames (T, G), given the talker states (T, H) before.

    Codebook 0 is without its special ids. Codebooks 1 and up are teacher-forced with the true codes before them.
    """
    rest = tts.code_predictor(states, codes).float()
    first = tts.talker.logits(states)[:, : rest.shape[-1]].float()
    return torch.cat((first[:, None], rest), 1).softmax(-1)


def segment_distance(tts: Qwen3TTS, states: Tensor, codes: Tensor, place: slice, distance: MelDistance) -> Tensor:
    """The mel distance over the frames `place` of an utterance with codes (T, G) and predicting states (T + 1, H)."""
    decoder, wanted = tts.codec.decoder, codes[place][None]
    probabilities = code_probabilities(tts, states[place], codes[place])
    with torch.autocast(codes.device.type, enabled=False):
        with torch.no_grad():
            past: dict[torch.nn.Module, Tensor] = {}
            before = codes[max(0, place.start - CONTEXT) : place.start][None]
            if before.shape[1]:
                decoder(before, past)
            reference = decoder.synthesize(decoder.quantizer(wanted), dict(past))[0]
        expected = decoder.synthesize(decoder.quantizer.expected(probabilities[None]), past)[0]
    return distance(expected, reference)
