"""Voice: text or chat -> LLM hidden states -> projector -> TTS -> waveform, whole or streamed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audio_projection.alignment.controls import check_control
from audio_projection.config import Config, load_config
from audio_projection.data.reference_audio import RATE, read_reference, with_silence
from audio_projection.errors import AudioProjectionError
from audio_projection.inference.conversation import check_chat, check_messages, fitting, with_system
from audio_projection.inference.defaults import VoiceDefaults
from audio_projection.inference.loading import check_models, load_models
from audio_projection.inference.producers import Answering, ReadAloud
from audio_projection.inference.requests import Requests, VoiceChoice
from audio_projection.inference.session import Session
from audio_projection.inference.speech import Speech
from audio_projection.inference.streams import Answer, SpeechStream
from audio_projection.llm.language_model import LanguageModel, Message
from audio_projection.llm.prefix_cache import PrefixCache
from audio_projection.models import Models
from audio_projection.projector import Projector
from audio_projection.sampling import Choice, derived_seed
from audio_projection.text.input_text import Reading, as_spoken, check_text, is_speakable, split_sentences
from audio_projection.tts.engine.engine import Engine
from audio_projection.tts.engine.utterance import Request, Utterance
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import Reference, check_layout

WRITTEN_AHEAD = 3
"""Sentences of an answer that are written before the first of them is heard."""


class Voice:
    """Speaks texts and an LLM's answers: a frozen LLM, a trained projector and a frozen TTS.

        voice = Voice.from_config("configs/nano.yaml")
        voice.speak("Hello world").samples                   # (S,) float32 at voice.sample_rate
        for chunk in voice.stream("A long text ..."):        # (s,) float32, as they are made
            play(chunk)

    All samples are float32, mono, in [-1, 1], at `sample_rate`. Texts and answers that cannot be spoken raise
    AudioProjectionError.
    """

    def __init__(
        self, llm: LanguageModel, tts: Qwen3TTS, projector: Projector, defaults: VoiceDefaults | None = None
    ) -> None:
        """Freezes the projector; `defaults` None: `VoiceDefaults()`.

        Raises AudioProjectionError when the projector was trained with other models, layers or another context.
        """
        self.llm = llm
        self.tts = tts
        self.projector = projector.eval().requires_grad_(False)
        self.defaults = defaults or VoiceDefaults()
        self._engine: Engine | None = None
        check_layout(self.defaults.layout)
        check_models(llm, tts, projector)

    @classmethod
    def from_config(
        cls, config: Config | str | Path, overrides: Sequence[str] = (), projector: str | None = None
    ) -> Voice:
        """Loads the LLM, the projector and the TTS that a configuration names.

            Voice.from_config("configs/nano.yaml", ["seed=1"], projector="residual")

        ``config`` is a Config or a YAML file; ``overrides`` are ``key=value`` words for the file. ``projector``:
        "linear", "residual" or the folder of a trained one. The LLM's layers, context and prompt are those that the
        projector was trained with; a talker that was fine-tuned with it is loaded too. Raises AudioProjectionError
        naming what is missing, damaged or doesn't match.
        """
        if isinstance(config, Config) and overrides:
            raise AudioProjectionError("overrides go with a configuration file; change the Config itself")
        settings = config if isinstance(config, Config) else load_config(config, overrides)
        models = load_models(settings, projector)
        return cls(models.llm, models.tts, models.projector, VoiceDefaults.from_config(settings))

    def with_projector(self, projector: Projector) -> Voice:
        """The same LLM and TTS, speaking through another projector; both voices share one engine and its slots.

        Raises AudioProjectionError for a projector that was trained with other models, another context or prompt, or
        with a fine-tuned talker.
        """
        info = projector.info
        if info.finetune != "none":
            raise AudioProjectionError(
                "this projector was trained with a fine-tuned talker: it needs a voice of its own"
            )
        llm = self.llm.select(info.layers)
        if info.head is not None:
            llm = llm.with_head(info.head)
        other = Voice(llm, self.tts, projector.to(self.tts.device), self.defaults)
        other._engine = self._current_engine()
        return other

    @property
    def sample_rate(self) -> int:
        """Samples per second of everything that the voice speaks."""
        return self.tts.sample_rate

    @property
    def reading(self) -> Reading:
        """How texts are read: as `defaults` say."""
        reading, normalise = self.defaults.reading, self.defaults.normalise
        return Reading(normalise) if reading is None else replace(reading, normalise=normalise)

    def speak(
        self,
        text: str,
        voice: VoiceChoice = None,
        language: str | None = None,
        seed: int | None = None,
        control: str | None = None,
    ) -> Speech:
        """Speaks a text; returns the whole waveform.

            speech = voice.speak("Hello world", voice="ada", seed=1)
            soundfile.write("hello.wav", speech.samples, speech.sample_rate)

        Arguments and errors are those of `stream`, which gives the same samples in chunks.
        """
        return next(self.speak_all([text], voice, language, [seed], control))

    def speak_all(
        self,
        texts: Iterable[str],
        voice: VoiceChoice = None,
        language: str | None = None,
        seeds: Iterable[int | None] | None = None,
        control: str | None = None,
    ) -> Iterator[Speech]:
        """Speaks many texts, several sentences at once: a Speech for each, in their order.

            for number, speech in enumerate(voice.speak_all(lines)):
                soundfile.write(f"{number}.wav", speech.samples, speech.sample_rate)

        ``seeds``: one for each text, or None. Arguments and errors are otherwise those of `stream`, which gives the
        same samples for each of the texts; an error is raised when a text's turn comes.
        """
        check_control(control)
        for speech in self.speak_each(texts, voice, language, seeds, control):
            if isinstance(speech, AudioProjectionError):
                raise speech
            yield speech

    def speak_each(
        self,
        texts: Iterable[str],
        voice: VoiceChoice = None,
        language: str | None = None,
        seeds: Iterable[int | None] | None = None,
        control: str | None = None,
    ) -> Iterator[Speech | AudioProjectionError]:
        """As `speak_all`, but a text that cannot be spoken gives its error in its place, and the others are spoken."""
        check_control(control)
        making = self._requests
        prefix = making.prefix(voice, language)
        coming: deque[_SpokenText] = deque()
        places: list[tuple[_SpokenText, int]] = []  # of each request: its text, and the number of its sentence there

        def requests() -> Iterator[Request]:
            for text, seed in zip(texts, repeat(None) if seeds is None else seeds, strict=False):
                spoken = _SpokenText(text)
                coming.append(spoken)
                try:
                    for request in making.of_sentences(self._sentences(text), prefix, seed, control):
                        places.append((spoken, len(spoken.utterances)))
                        spoken.utterances.append(None)
                        yield request
                except AudioProjectionError as error:
                    spoken.error = error
                spoken.requested = True

        for number, utterance in self._current_engine().run(requests()):
            spoken, place = places[number]
            spoken.utterances[place] = utterance
            while coming and coming[0].over:
                yield self._joined(coming.popleft())
        while coming:
            yield self._joined(coming.popleft())

    def stream(
        self,
        text: str,
        voice: VoiceChoice = None,
        language: str | None = None,
        seed: int | None = None,
        control: str | None = None,
    ) -> SpeechStream:
        """Speaks a text as a stream: samples (s,), float32, chunk by chunk while they are made.

            for chunk in voice.stream("Hello world. How are you?"):
                play(chunk)

        `async for` takes the chunks without blocking the event loop. The text is split into sentences, each an
        utterance of its own; the next one is begun while one is spoken. ``voice``: a speaker's name, an x-vector
        (`embed_reference`), a recording that the speech continues (`reference`), or None for the default; ``language``
        as the TTS names it; ``seed`` makes sampling repeatable. ``control``, for ablations: "plain" speaks from the
        TTS's own text embeddings, "shuffled" and "other" from permuted states or those of another sentence. Raises
        AudioProjectionError at the call, before the first chunk, for a text without letters or digits and for a voice,
        language or control that does not exist.
        """
        check_control(control)
        prefix = self._requests.prefix(voice, language)
        return SpeechStream(
            self._current_engine(), ReadAloud(self._requests, self._sentences(text), prefix, seed, control)
        )

    def chat(
        self,
        messages: Sequence[Message],
        voice: VoiceChoice = None,
        language: str | None = None,
        seed: int | None = None,
    ) -> Speech:
        """Lets the LLM answer and speaks its answer; returns the whole waveform.

            speech = voice.chat([{"role": "user", "content": "Who are you?"}])
            speech.text, speech.samples

        `Speech.text` is what was spoken. Arguments and errors are those of `chat_stream`; also raises
        AudioProjectionError for an answer without letters or digits.
        """
        answer = self.chat_stream(messages, voice, language, seed)
        chunks = list(answer)
        if not answer.text:
            raise AudioProjectionError("the language model's answer has nothing to speak in it; ask differently")
        return Speech(np.concatenate(chunks) if chunks else np.zeros(0, np.float32), self.sample_rate, answer.text)

    def chat_stream(
        self,
        messages: Sequence[Message],
        voice: VoiceChoice = None,
        language: str | None = None,
        seed: int | None = None,
        sampling: Choice | None = None,
    ) -> Answer:
        """Speaks the LLM's answer while the LLM generates it, from the hidden states of its own tokens.

            answer = voice.chat_stream([{"role": "user", "content": "Who are you?"}])
            for chunk in answer:         # samples (s,), float32
                play(chunk)
            answer.text                  # what was spoken so far

        ``messages``: the conversation, each with "role" and "content". ``voice``, ``language`` and ``seed`` as in
        `stream`; the seed is the LLM's too. ``sampling``: how the LLM chooses tokens; None: by its generation
        configuration. In the streaming layout each word goes to the TTS as soon as it is complete; the non-streaming
        one waits for the end of each sentence. Raises AudioProjectionError for a projector that was not trained with
        the chat context, and for messages that are empty or that the chat template refuses.
        """
        check_chat(self.llm)
        check_messages(messages)
        conversation = with_system(self.llm, messages, self.defaults.system)
        prefix = self._requests.prefix(voice, language)
        answering = Answering(self._requests, conversation, prefix, seed, sampling, self.reading)
        return Answer(self._current_engine(), answering, WRITTEN_AHEAD)

    def session(
        self,
        messages: Iterable[Message] = (),
        voice: VoiceChoice = None,
        language: str | None = None,
        seed: int | None = None,
        sampling: Choice | None = None,
    ) -> Session:
        """A conversation of several turns with memory.

            with voice.session() as session:
                for chunk in session.say("Who are you?"):
                    play(chunk)

        ``messages``: what was said before. The others are those of `chat_stream`, for all answers; with ``seed`` the
        conversation is repeatable. Where the conversation grows too long for the LLM, its oldest turns are left out.
        Raises AudioProjectionError as `chat_stream`.
        """
        check_chat(self.llm)
        prefix = self._requests.prefix(voice, language)

        turns = count()

        def begin(said: list[Message], cache: PrefixCache) -> Answer:
            check_messages(said)
            conversation = fitting(self.llm, said, self.defaults)
            own = None if seed is None else derived_seed(seed, next(turns))
            answering = Answering(self._requests, conversation, prefix, own, sampling, self.reading, cache)
            return Answer(self._current_engine(), answering, WRITTEN_AHEAD)

        return Session(begin, messages)

    def embed_reference(self, path: str | Path) -> Tensor:
        """The x-vector (speaker embedding) of a recording: (H,), on the TTS's device, to pass as ``voice``.

            voice.speak("Hello world", voice=voice.embed_reference("speaker.wav"))

        Raises AudioProjectionError for a file that is not readable audio, a recording that is too short, silent or
        clipped, and a TTS that takes no x-vectors (only Base checkpoints do). 3 to 30 s are advised.
        """
        encoder = self.tts.speaker_encoder
        if encoder is None:
            raise AudioProjectionError(
                f"a {self.tts.config.kind} TTS cannot take its voice from a recording; use a named voice, "
                "or a Base checkpoint"
            )
        return encoder.embed(read_reference(path), RATE)

    @torch.no_grad()
    def reference(self, path: str | Path, text: str, silence: float = 0.0) -> Reference:
        """A recording and its transcript as a prompt that speech continues (in-context voice cloning).

            voice.speak("Hello world", voice=voice.reference("speaker.wav", "What is said in it."))

        Intonation and pace are imitated too, not only the voice. Each sentence is then spoken when all of its words
        are known, also in an answer. `silence`: seconds of it put after the recording, so that its last sound does not
        run into the first word (the official package puts none). Raises AudioProjectionError as `embed_reference`, and
        for a transcript without letters or digits, or one that cannot be said in its time.
        """
        vector = self.embed_reference(path)
        samples = with_silence(read_reference(path, check_text(text)), silence)
        ids, _ = self.tts.tokenize(as_spoken(text, self.reading))
        embeddings = self.tts.text_embeddings(torch.tensor(ids, device=self.tts.device))
        return Reference(vector, self.tts.codec.encode(samples, RATE), embeddings)

    def check(self, voice: VoiceChoice = None, language: str | None = None) -> None:
        """Raises AudioProjectionError for a voice or a language that the TTS doesn't have, or no voice at all."""
        self._requests.prefix(voice, language)

    @property
    def _requests(self) -> Requests:
        return Requests(Models(self.llm, self.projector, self.tts), self.defaults)

    def _sentences(self, text: str) -> list[str]:
        """What is spoken of a text, split into utterances."""
        spoken = as_spoken(text, self.reading)  # before the split: "Dr." does not end a sentence
        return [piece for piece in split_sentences(spoken, self.defaults.longest) if is_speakable(piece)]

    def _current_engine(self) -> Engine:
        """The engine for the present defaults; it holds no memory while nothing is spoken."""
        wanted = (self.defaults.sampling or self.tts.sampling, self.defaults.slots, self.defaults.graphs)
        engine = self._engine
        if engine is None or (engine.sampling, engine.slots, engine.graphs) != wanted:
            self._engine = engine = Engine(self.tts, *wanted)
        return engine

    def _joined(self, spoken: _SpokenText) -> Speech | AudioProjectionError:
        utterances = [utterance for utterance in spoken.utterances if utterance is not None]
        try:
            chunks = [chunk.cpu().numpy() for utterance in utterances for chunk in utterance]
        except AudioProjectionError as error:
            return error
        if spoken.error is not None:
            return spoken.error
        samples = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
        return Speech(samples, self.sample_rate, spoken.text, not any(utterance.cut for utterance in utterances))


@dataclass
class _SpokenText:
    """One of many texts while it is spoken: an utterance for each sentence, None until it has ended."""

    text: str
    utterances: list[Utterance | None] = field(default_factory=list)
    requested: bool = False
    """Whether all of its sentences are in `utterances`."""
    error: AudioProjectionError | None = None

    @property
    def over(self) -> bool:
        return self.requested and None not in self.utterances
