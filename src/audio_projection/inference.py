"""Speaking: text -> LLM states -> projector -> TTS -> waveform, also while the LLM is still answering.

voice = Voice.from_config("configs/nano.yaml")
speech = voice.speak("Hello world")            # float32 samples and the sample rate
answer = voice.chat([{"role": "user", "content": "Who are you?"}])
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audio_projection.alignment.controls import as_long_as, check_control, other_sentence, shuffled
from audio_projection.alignment.streaming import LiveAnswer, Slot
from audio_projection.alignment.token_states import TokenStates, token_states
from audio_projection.config import Config, load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio
from audio_projection.files.locations import find_projector
from audio_projection.llm.hidden_states import resolve_layers
from audio_projection.llm.language_model import LanguageModel, Message
from audio_projection.models import load_llm, load_projector, load_tts
from audio_projection.projector import Projector, ProjectorInfo, check_matches
from audio_projection.sampling import Choice, Sampling
from audio_projection.text.input_text import as_spoken, check_characters, is_speakable, split_sentences
from audio_projection.tts.finetune import load_finetuned
from audio_projection.tts.generate import stream as stream_codes
from audio_projection.tts.generate import stream_prompt
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import Reference, check_layout, clone_prefill

log = logging.getLogger(__name__)

VoiceChoice = str | Tensor | Reference | None
"""A speaker's name, an x-vector (H,), a recording that is continued, or what the settings say."""
REFERENCE_RATE = 24_000
CHUNKS = (4, 4, 8, 12)
"""Short ones, so that sound comes soon, then longer ones, which the codec decodes faster. Speech that is made 1.5 times
as fast as it is heard is heard without a gap."""


@dataclass(frozen=True)
class Speech:
    """Spoken text: float32 mono samples (S,) in [-1, 1]."""

    samples: np.ndarray
    sample_rate: int
    text: str


@dataclass(frozen=True)
class VoiceDefaults:
    """How a voice speaks when nothing else is asked for."""

    layout: str = "nonstreaming"
    language: str | None = None  # None: the projector's
    speaker: str | None = None  # None: the projector's voice
    sampling: Sampling | None = None  # None: the TTS folder's generation_config.json
    longest: int = 200  # characters spoken as one utterance
    normalise: str = "none"  # "english": what is read aloud is spelled out first
    max_frames: int | None = None  # of one utterance; None: the guard against a missed end of speech
    chunks: tuple[int, ...] = CHUNKS  # frames that the codec decodes at once, the last size for all that follow
    max_new_tokens: int = 256  # of an answer

    @classmethod
    def from_config(cls, settings: Config) -> VoiceDefaults:
        language = settings.tts.language
        return cls(
            layout=settings.tts.layout,
            language=None if language == "auto" else language,
            speaker=settings.tts.speaker,
            longest=settings.tts.longest,
            normalise=settings.tts.normalise,
            max_new_tokens=settings.llm.max_new_tokens,
        )


class Voice:
    """A frozen LLM, a projector and a frozen TTS that speak together."""

    def __init__(
        self, llm: LanguageModel, tts: Qwen3TTS, projector: Projector, defaults: VoiceDefaults | None = None
    ) -> None:
        """Raises AudioProjectionError when the projector was trained with other models, layers or context."""
        self.llm = llm
        self.tts = tts
        self.projector = projector.eval().requires_grad_(False)
        self.defaults = defaults or VoiceDefaults()
        check_layout(self.defaults.layout)
        check_matches(projector.info, llm, tts)
        _check_reading(projector.info, llm)

    @classmethod
    def from_config(
        cls, config: Config | str | Path, overrides: Sequence[str] = (), projector: str | None = None
    ) -> Voice:
        """Loads everything that a configuration (or its file, with ``key=value`` words laid over it) names.

        ``projector``: "linear", "residual" or the folder of a trained one. The LLM is read as the projector was
        trained: its layers, context and prompt come from there, and the talker that was trained with it, if any.
        Raises AudioProjectionError naming what is missing.
        """
        if isinstance(config, Config) and overrides:
            raise AudioProjectionError("overrides go with a configuration file; change the Config itself")
        settings = config if isinstance(config, Config) else load_config(config, overrides)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        folder = find_projector(settings, projector)
        trained = load_projector(folder)
        reading = {key: getattr(trained.info, key) for key in ("layers", "context", "prompt")}
        llm = load_llm(settings.model_copy(update={"llm": settings.llm.model_copy(update=reading)}))
        tts = load_tts(settings)
        load_finetuned(tts, trained.info.finetune, folder)
        return cls(llm, tts, trained.to(tts.device), VoiceDefaults.from_config(settings))

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        return self.tts.sample_rate

    def speak(
        self,
        text: str,
        voice: VoiceChoice = None,
        language: str | None = None,
        seed: int | None = None,
        control: str | None = None,
    ) -> Speech:
        """The whole text spoken; see `stream`."""
        return self._joined(self.stream(text, voice, language, seed, control), lambda: text)

    def stream(
        self,
        text: str,
        voice: VoiceChoice = None,
        language: str | None = None,
        seed: int | None = None,
        control: str | None = None,
    ) -> Iterator[np.ndarray]:
        """float32 samples of the text, chunk by chunk, sentence after sentence.

        ``voice``: a speaker's name, an x-vector (`embed_reference`) or a recording (`reference`); ``seed`` makes
        sampling repeatable; ``control``: None, "plain", "shuffled" or "other". Raises AudioProjectionError before
        anything is spoken.
        """
        check_control(control)
        spoken = as_spoken(text, self.defaults.normalise)  # before the cut: the stop of "Dr." ends no sentence
        pieces = [piece for piece in split_sentences(spoken, self.defaults.longest) if is_speakable(piece)]
        utterances = (self._rows(piece, control, seed or 0) for piece in pieces)
        return self._sound(self._opening(voice, language), utterances, seed, self.defaults.chunks)

    def chat(
        self,
        messages: Sequence[Message],
        voice: VoiceChoice = None,
        language: str | None = None,
        seed: int | None = None,
    ) -> Speech:
        """The LLM's answer spoken; `Speech.text` is what was spoken. See `chat_stream`."""
        answer = self.chat_stream(messages, voice, language, seed)
        speech = self._joined(answer, lambda: answer.text)
        if not speech.text:
            raise AudioProjectionError("the language model's answer has nothing to speak in it; ask differently")
        return speech

    def chat_stream(
        self,
        messages: Sequence[Message],
        voice: VoiceChoice = None,
        language: str | None = None,
        seed: int | None = None,
        sampling: Choice | None = None,
    ) -> Answer:
        """Sound of the LLM's answer while it is generated, from the states of its own tokens.

        In the streaming layout each word goes to the TTS as soon as it is complete; the non-streaming one waits for
        the end of each sentence. ``sampling`` is the LLM's. Raises AudioProjectionError for a projector that was
        not trained in the chat context.
        """
        if self.llm.context != "chat":
            raise AudioProjectionError(
                f"this projector was trained with the context {self.llm.context!r} and cannot chat; "
                "train one with llm.context=chat"
            )
        _check_messages(messages)
        tokens = self.llm.generate(
            messages, self.defaults.max_new_tokens, sampling, self._generator(self.llm.device, seed)
        )
        live = LiveAnswer(tokens, self.tts.tokenizer, self.defaults.longest)
        utterances = (map(self._row, sentence) for sentence in live.sentences())
        chunks = self.defaults.chunks[:1]  # the LLM may be slow: no word waits for a long chunk to be full
        return Answer(self._sound(self._opening(voice, language), utterances, seed, chunks), live)

    def embed_reference(self, path: str | Path) -> Tensor:
        """The x-vector of a recording, to speak with. Raises AudioProjectionError where the TTS takes none."""
        encoder = self.tts.speaker_encoder
        if encoder is None:
            raise AudioProjectionError(
                f"a {self.tts.config.kind} TTS cannot take its voice from a recording; use a named voice, "
                "or a Base checkpoint"
            )
        return encoder.embed(audio.read(path, REFERENCE_RATE), REFERENCE_RATE)

    @torch.no_grad()
    def reference(self, path: str | Path, text: str) -> Reference:
        """A recording and what it says, for speech that continues it: its manner is imitated, not the voice alone.

        Each sentence waits for its last word then, also in an answer. Raises AudioProjectionError as `embed_reference`.
        """
        vector = self.embed_reference(path)
        ids, _ = self.tts.tokenize(as_spoken(text, self.defaults.normalise))
        rows = self.tts.text_embeddings(torch.tensor(ids, device=self.tts.device))
        return Reference(vector, self.tts.codec.encode(audio.read(path, REFERENCE_RATE), REFERENCE_RATE), rows)

    def check(self, voice: VoiceChoice = None, language: str | None = None) -> None:
        """Raises AudioProjectionError for a voice or a language that the TTS has not."""
        self._prefix(voice, language)

    def _opening(self, voice: VoiceChoice, language: str | None) -> UtterancePrefix:
        return UtterancePrefix(self._prefix(voice, language), voice if isinstance(voice, Reference) else None)

    def _prefix(self, voice: VoiceChoice, language: str | None) -> Tensor:
        """The TTS's rows (P, H) before the text."""
        info, defaults = self.projector.info, self.defaults
        chosen = next((each for each in (voice, defaults.speaker, self.projector.voice) if each is not None), None)
        if chosen is None and self.tts.config.kind != "voice_design":
            names = ", ".join(self.tts.config.talker.speakers)
            ways = f"choose one of {names}" if names else "give a recording with --ref-audio"
            raise AudioProjectionError(f"no voice: neither the configuration nor the projector has one; {ways}")
        if isinstance(chosen, Reference):
            chosen = chosen.voice
        with torch.no_grad():
            return self.tts.prefix(chosen, language or defaults.language or info.language)

    @torch.no_grad()
    def _rows(self, piece: str, control: str | None, seed: int) -> Tensor:
        """Feature rows (N, H) of one sentence."""
        if control == "plain":
            ids, _ = self.tts.tokenize(piece)
            return self.tts.text_embeddings(torch.tensor(ids, device=self.tts.device))
        features = token_states(self.llm, self.tts, [piece])[0]
        return self.projector(self._controlled(features, piece, control, seed), features.text_embeddings)

    def _controlled(self, features: TokenStates, piece: str, control: str | None, seed: int) -> Tensor:
        if control == "shuffled":
            return shuffled(features.states, seed)
        if control == "other":
            other = token_states(self.llm, self.tts, [other_sentence(piece)])[0]
            return as_long_as(other.states, len(features.ids))
        return features.states

    @torch.no_grad()
    def _row(self, slot: Slot) -> Tensor:
        """The feature row (H,) of one token of an answer."""
        own = self.tts.text_embeddings(torch.tensor([slot.id], device=self.tts.device)).float()
        return self.projector(slot.state[None].to(own.device), own)[0]

    def _sound(
        self, opening: UtterancePrefix, utterances: Iterable[Iterable[Tensor]], seed: int | None, chunks: Sequence[int]
    ) -> Iterator[np.ndarray]:
        """float32 samples of utterances given as rows, one after another; rows are taken when they are needed."""
        generator = self._generator(self.tts.device, seed)
        before = None if opening.reference is None else opening.reference.codes
        for rows in utterances:
            codes = self._codes(opening, rows, generator)
            for samples in self.tts.codec.decode_stream(codes, chunks, before):
                yield samples.cpu().numpy()

    def _codes(
        self, opening: UtterancePrefix, rows: Iterable[Tensor], generator: torch.Generator | None
    ) -> Iterator[Tensor]:
        """Frames (G,) of one utterance."""
        layout, most = self.defaults.layout, self.defaults.max_frames
        sampling, reference = self.defaults.sampling or self.tts.sampling, opening.reference
        if reference is None:
            return stream_codes(self.tts, opening.prefix, rows, layout, sampling, generator, most)
        with torch.no_grad():
            text = torch.stack(list(rows))
            prompt = clone_prefill(self.tts, opening.prefix, text, reference.text_embeddings, reference.codes, layout)
        return stream_prompt(self.tts, prompt, sampling, generator, most)

    def _joined(self, chunks: Iterable[np.ndarray], text: Callable[[], str]) -> Speech:
        parts = list(chunks)
        samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return Speech(samples, self.sample_rate, text())

    @staticmethod
    def _generator(device: torch.device, seed: int | None) -> torch.Generator | None:
        return None if seed is None else torch.Generator(device).manual_seed(seed)


@dataclass(frozen=True)
class UtterancePrefix:
    """What every utterance begins with: the TTS's rows (P, H) before the text, and the recording it continues."""

    prefix: Tensor
    reference: Reference | None


class Answer(Iterator[np.ndarray]):
    """Sound of an answer, chunk by chunk; `text` is what went to the TTS so far."""

    def __init__(self, chunks: Iterator[np.ndarray], live: LiveAnswer) -> None:
        self._chunks = chunks
        self._live = live

    def __next__(self) -> np.ndarray:
        return next(self._chunks)

    @property
    def text(self) -> str:
        return self._live.spoken


def _check_reading(info: ProjectorInfo, llm: LanguageModel) -> None:
    """The LLM must give the states that the projector was trained on."""
    given = {"layers": llm.layers, "context": llm.context, "prompt": llm.prompt if llm.context == "chat" else ""}
    trained = {
        "layers": resolve_layers(info.layers, llm.num_layers),
        "context": info.context,
        "prompt": info.prompt if info.context == "chat" else "",
    }
    for what, value in trained.items():
        if given[what] != value:
            raise AudioProjectionError(
                f"the projector was trained with llm.{what} {value!r}, the language model is set to {given[what]!r}"
            )


def _check_messages(messages: Sequence[Message]) -> None:
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise AudioProjectionError("each chat message needs a role and a content")
        check_characters(message["content"])
    if not messages or not messages[-1]["content"].strip():
        raise AudioProjectionError("there is nothing to answer: the last chat message is empty")
