"""A held-out text spoken while the training goes on: sound and picture under the run's folder."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from audio_projection.data.pairs import Pair
from audio_projection.evaluation.spectral_distance import Frames
from audio_projection.evaluation.spectrograms import draw
from audio_projection.files import audio
from audio_projection.inference import Speech, Voice, VoiceDefaults
from audio_projection.models import Models

if TYPE_CHECKING:
    from audio_projection.config import Config


@dataclass(frozen=True)
class Sample:
    """What was spoken, and the file of its picture."""

    speech: Speech
    picture: Path


class SpokenSample:
    """Speaks one text again and again, and draws it over the sound of the pair's own codes."""

    def __init__(self, config: Config, parts: Models, pair: Pair) -> None:
        self._parts, self._pair, self._seed = parts, pair, config.seed
        self.folder = config.run_dir / "samples"
        # an early projector does not know how to end: twice the time of the codes is enough to hear that
        self._defaults = replace(VoiceDefaults.from_config(config), max_frames=2 * len(pair.codes) + 12)

    def write(self, step: int) -> Sample:
        """Writes step-00000100.wav and .png. Touches neither the projector in training nor any shared random state."""
        parts, pair, target = self._parts, self._pair, self.folder / f"step-{step:08d}"
        voice = Voice(parts.llm, parts.tts, copy.deepcopy(parts.projector), self._defaults)
        speech = voice.speak(pair.text, pair.voice, seed=self._seed)
        codes = parts.tts.codec.decode(pair.codes.to(parts.tts.device).long()).cpu().numpy()
        self.folder.mkdir(parents=True, exist_ok=True)
        audio.write(target.with_suffix(".wav"), speech.samples, speech.sample_rate)
        spoken = {f"step {step}": speech.samples, "the pair's codes": codes}
        frames = [(name, Frames(samples, speech.sample_rate)) for name, samples in spoken.items()]
        draw(frames, pair.text, target.with_suffix(".png"))
        return Sample(speech, target.with_suffix(".png"))
