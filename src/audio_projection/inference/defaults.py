"""Settings of a voice for everything that a call does not set."""

from __future__ import annotations

from dataclasses import dataclass

from audio_projection.config import Config
from audio_projection.sampling import Sampling
from audio_projection.text.input_text import Reading
from audio_projection.tts.engine.engine import SLOTS

CHUNKS = (1, 2, 4, 8, 12)
"""Frames that the codec decodes at once: one at first, for a short time to the first sound, then more, which is faster.
Played while it is made, speech has no gap from a generation speed of twice real time on."""
LONGEST_LIVE = 4
"""Most frames of a chunk of an answer that the LLM is still writing."""


@dataclass(frozen=True)
class VoiceDefaults:
    """Settings of a Voice for everything that a call does not set."""

    layout: str = "nonstreaming"
    """Of the talker's prompt: "streaming" feeds one text embedding in each frame, so speech of an answer starts while
    the LLM is generating its words; "nonstreaming" feeds the whole sentence first."""
    language: str | None = None
    """A language of the TTS, for example "english"; None: the projector's."""
    speaker: str | None = None
    """A named speaker of the TTS; None: the projector's default voice."""
    sampling: Sampling | None = None
    """How speech codes are sampled; None: as the TTS's generation_config.json says."""
    longest: int = 200
    """Most characters of one utterance; a longer text is split at sentence, clause or word ends."""
    normalise: str = "none"
    """Text normalisation: "none", or "english", which spells out numbers, dates, symbols and abbreviations."""
    reading: Reading | None = None
    """Everything of how texts are read: lexicon and learned characters too; None: by `normalise` alone."""
    max_frames: int | None = None
    """Most frames of one utterance (12.5 a second); None: a limit by the length of its text, against a missed end."""
    chunks: tuple[int, ...] = CHUNKS
    """Frames that the codec decodes at once; the last size is that of all further chunks."""
    max_new_tokens: int = 256
    """Most LLM tokens of an answer; one that is cut off there is spoken up to its last sentence end."""
    system: str | None = None
    """System prompt of a conversation that brings none."""
    slots: int = SLOTS
    """Most utterances that are decoded at once."""
    graphs: bool = False
    """Replay the decoding steps as CUDA graphs; for CUDA devices."""

    @classmethod
    def from_config(cls, settings: Config) -> VoiceDefaults:
        """The defaults of a configuration: its sections `tts` and `llm`."""
        language = settings.tts.language
        return cls(
            layout=settings.tts.layout,
            language=None if language == "auto" else language,
            speaker=settings.tts.speaker,
            longest=settings.tts.longest,
            normalise=settings.tts.normalise,
            reading=Reading.from_config(settings),
            max_new_tokens=settings.llm.max_new_tokens,
            system=settings.llm.system,
            slots=settings.engine.slots,
            graphs=settings.engine.graphs,
        )

    @property
    def live_chunks(self) -> tuple[int, ...]:
        """The chunks of an answer: the LLM may be slow, and no word waits until a long chunk is full."""
        return tuple(size for size in self.chunks if size <= LONGEST_LIVE) or (LONGEST_LIVE,)
