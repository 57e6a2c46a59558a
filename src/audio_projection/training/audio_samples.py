"""Audio samples during training: a held-out text spoken every few steps, as a wav file and a spectrogram."""

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
    """Spoken text, and the file of its spectrogram."""

    speech: Speech
    picture: Path


class SpokenSample:
    """Speaks the text of one pair, and plots its spectrogram beside that of the pair's decoded codes."""

    def __init__(self, config: Config, models: Models, pair: Pair) -> None:
        self._models, self._pair, self._seed = models, pair, config.seed
        self.folder = config.run_dir / "samples"
        # an early projector often misses the end of speech; twice the length of the codes shows that
        self._defaults = replace(VoiceDefaults.from_config(config), max_frames=2 * len(pair.codes) + 12)

    def write(self, step: int) -> Sample:
        """Writes step-00000100.wav and .png. Changes neither the projector in training nor any shared random state."""
        models, pair, target = self._models, self._pair, self.folder / f"step-{step:08d}"
        voice = Voice(models.llm, models.tts, copy.deepcopy(models.projector), self._defaults)
        speech = voice.speak(pair.text, pair.voice, seed=self._seed)
        codes = models.tts.codec.decode(pair.codes.to(models.tts.device).long()).cpu().numpy()
        self.folder.mkdir(parents=True, exist_ok=True)
        audio.write(target.with_suffix(".wav"), speech.samples, speech.sample_rate)
        spoken = {f"step {step}": speech.samples, "the pair's codes": codes}
        frames = [(name, Frames(samples, speech.sample_rate)) for name, samples in spoken.items()]
        draw(frames, pair.text, target.with_suffix(".png"))
        return Sample(speech, target.with_suffix(".png"))
