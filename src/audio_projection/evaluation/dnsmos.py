"""DNSMOS: how natural speech sounds, by a network that listeners' opinions taught (Reddy et al., 2021 and 2022).

Needs speechmos (extra `dnsmos`), which brings the networks along. P808 is the overall quality of one network, OVRL that
of another, both on the scale of opinions from 1 (bad) to 5 (excellent).
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from audio_projection.evaluation.extras import library
from audio_projection.evaluation.recognisers import SAMPLE_RATE, at_rate


class DNSMOS:
    """The judge; its networks are loaded at first use."""

    model_name = "dnsmos"

    @staticmethod
    def installed() -> bool:
        return all(find_spec(name) is not None for name in ("speechmos", "onnxruntime", "librosa"))

    def scores(self, samples: np.ndarray, rate: int) -> dict[str, float]:
        """OVRL and P808 of mono float samples (S,) in [-1, 1]; no samples at all are judged as silence."""
        sound = at_rate(samples, rate, SAMPLE_RATE) if len(samples) else np.zeros(SAMPLE_RATE, np.float32)
        peak = float(np.abs(sound).max())
        found = library("speechmos.dnsmos", "dnsmos").run(sound / max(1.0, 1.001 * peak), SAMPLE_RATE)
        return {"OVRL": float(found["ovrl_mos"]), "P808": float(found["p808_mos"])}
