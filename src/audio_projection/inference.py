"""Voice: text or chat -> LLM hidden states -> projector -> TTS -> waveform, whole or streamed.

voice = Voice.from_config("configs/nano.yaml")
speech = voice.speak("Hello world")            # float32 samples and the sample rate
answer = voice.chat([{"role": "user", "content": "Who are you?"}])
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audio_projection.alignment.controls import as_long_as, check_control, other_sentence, shuffled
from audio_projection.alignment.rereading import Rereading
from audio_projection.alignment.spoken_tokens import SpokenTokens
from audio_projection.alignment.streaming import AnswerToken, LiveAnswer
from audio_projection.alignment.token_states import TokenStates, token_states
from audio_projection.config import Config, load_config
from audio_projection.data.reference_audio import RATE, read_reference, with_silence
from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import find_projector
from audio_projection.llm.hidden_states import resolve_layers
from audio_projection.llm.language_model import LanguageModel, Message
from audio_projection.models import load_llm, load_projector, load_tts, use_threads
from audio_projection.projector import Projector, ProjectorInfo, check_matches
from audio_projection.sampling import Choice, Sampling, derived_seed
from audio_projection.text.input_text import (
    Reading,
    as_spoken,
    check_characters,
    check_text,
    is_speakable,
    split_sentences,
)
from audio_projection.tts.engine.engine import SLOTS, Engine, Utterance
from audio_projection.tts.engine.utterance import Request, Text, Timing, WholeText
from audio_projection.tts.finetune import load_finetuned
from audio_projection.tts.generate import fresh_seed, pulled_prompt
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import Prompt, Reference, check_layout, clone_prefill

log = logging.getLogger(__name__)

VoiceChoice = str | Tensor | Reference | None
"""Who speaks: a speaker's name, an x-vector (H,), a Reference recording that the speech continues, or None for the
default of the settings or of the projector."""
CHUNKS = (1, 2, 4, 8, 12)
"""Frames that the codec decodes at once: one at first, for a short time to the first sound, then more, which is faster.
Played while it is made, speech has no gap from a generation speed of twice real time on."""
LONGEST_LIVE = 4
"""Most frames of a chunk of an answer that the LLM is still writing."""


@dataclass(frozen=True)
class Speech:
    """A synthesised waveform and the text that it speaks."""

    samples: np.ndarray
    """(S,) float32, mono, in [-1, 1]."""
    sample_rate: int
    """Samples per second."""
    text: str
    """The text as given; of a chat, what was spoken of the LLM's answer."""
    ended: bool = True
    """Whether the speech ended by itself; False where it was cut at a limit, `VoiceDefaults.max_frames` or that of its
    text's length."""


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
        check_matches(projector.info, llm, tts)
        _check_llm_settings(projector.info, llm)
        if projector.info.tts_weights not in ("", tts.embeddings_hash):
            log.warning(
                "the projector was trained with the TTS %s; %s has other weights: speech may be wrong",
                *(projector.info.tts, tts.name),
            )

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
        use_threads(settings.threads)
        folder = find_projector(settings, projector)
        trained = load_projector(folder)
        as_trained = {key: getattr(trained.info, key) for key in ("layers", "context", "prompt")}
        llm = load_llm(settings.model_copy(update={"llm": settings.llm.model_copy(update=as_trained)}))
        if trained.info.head is not None:
            llm = llm.with_head(trained.info.head)
        tts = load_tts(settings)
        load_finetuned(tts, trained.info.finetune, folder)
        return cls(llm, tts, trained.to(tts.device), VoiceDefaults.from_config(settings))

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
        prefix = self._utterance_prefix(voice, language)
        coming: deque[_SpokenText] = deque()
        places: list[tuple[_SpokenText, int]] = []  # of each request: its text, and the number of its sentence there

        def requests() -> Iterator[Request]:
            for text, seed in zip(texts, repeat(None) if seeds is None else seeds, strict=False):
                spoken = _SpokenText(text)
                coming.append(spoken)
                try:
                    for request in self._sentence_requests(self._sentences(text), prefix, seed, control):
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
    ) -> Iterator[np.ndarray]:
        """Speaks a text as a stream: samples (s,), float32, chunk by chunk while they are made.

            for chunk in voice.stream("Hello world. How are you?"):
                play(chunk)

        The text is split into sentences, each an utterance of its own. ``voice``: a speaker's name, an x-vector
        (`embed_reference`), a recording that the speech continues (`reference`), or None for the default; ``language``
        as the TTS names it; ``seed`` makes sampling repeatable. ``control``, for ablations: "plain" speaks from the
        TTS's own text embeddings, "shuffled" and "other" from permuted states or those of another sentence. Raises
        AudioProjectionError at the call, before the first chunk, for a text without letters or digits and for a voice,
        language or control that does not exist.
        """
        check_control(control)
        prefix = self._utterance_prefix(voice, language)
        return SpeechStream(
            self._current_engine(), self._sentence_requests(self._sentences(text), prefix, seed, control)
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
        if self.llm.context != "chat":
            raise AudioProjectionError(
                f"this projector was trained with the context {self.llm.context!r} and cannot chat; "
                "train one with llm.context=chat"
            )
        _check_messages(messages)
        conversation, limit = self._with_system(messages), self.defaults.max_new_tokens
        said = self.llm.generate(conversation, limit, sampling, self._generator(self.llm.device, seed))
        tokens = SpokenTokens(said, limit)
        rereading = None
        if self.reading.rewords:
            rereading = Rereading(self.llm, self.reading, lambda: self.llm.chat_ids(conversation), tokens.ids)
        live = LiveAnswer(tokens, self.tts.tokenizer, self.defaults.longest, rereading)
        prefix, first = self._utterance_prefix(voice, language), fresh_seed(seed)
        # the LLM may be slow: no word waits until a long chunk is full
        chunks = tuple(size for size in self.defaults.chunks if size <= LONGEST_LIVE) or (LONGEST_LIVE,)
        requests = (
            self._request(map(self._project_token, sentence), prefix, derived_seed(first, number), chunks)
            for number, sentence in enumerate(live.sentences())
        )
        return Answer(self._current_engine(), requests, live)

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation with the system prompt; in the first message where the template knows no such role."""
        system = self.defaults.system
        if not system or any(message["role"] == "system" for message in messages):
            return list(messages)
        asked: list[Message] = [{"role": "system", "content": system}, *messages]
        try:
            self.llm.chat_ids(asked)
        except AudioProjectionError:
            first = {**messages[0], "content": f"{system}\n\n{messages[0]['content']}"}
            return [first, *messages[1:]]
        return asked

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
        self._prefix_embeddings(voice, language)

    def _utterance_prefix(self, voice: VoiceChoice, language: str | None) -> UtterancePrefix:
        reference = voice if isinstance(voice, Reference) else None
        return UtterancePrefix(self._prefix_embeddings(voice, language), reference)

    def _prefix_embeddings(self, voice: VoiceChoice, language: str | None) -> Tensor:
        """The talker's input embeddings (P, H) before the text: instruction, language and speaker."""
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
    def _project_sentence(self, sentence: str, control: str | None, seed: int) -> Tensor:
        """Projected embeddings (N, H) of a sentence's TTS tokens; with a control, what is spoken instead."""
        if control == "plain":
            ids, _ = self.tts.tokenize(sentence)
            return self.tts.text_embeddings(torch.tensor(ids, device=self.tts.device))
        tokens = token_states(self.llm, self.tts, [sentence])[0]
        return self.projector(self._controlled_states(tokens, sentence, control, seed), tokens.text_embeddings)

    def _controlled_states(self, tokens: TokenStates, sentence: str, control: str | None, seed: int) -> Tensor:
        if control == "shuffled":
            return shuffled(tokens.states, seed)
        if control == "other":
            other = token_states(self.llm, self.tts, [other_sentence(sentence)])[0]
            return as_long_as(other.states, len(tokens.ids))
        return tokens.states

    @torch.no_grad()
    def _project_token(self, token: AnswerToken) -> Tensor:
        """The projected embedding (H,) of one TTS token of an answer."""
        embedding = self.tts.text_embeddings(torch.tensor([token.id], device=self.tts.device)).float()
        return self.projector(token.state[None].to(embedding.device), embedding)[0]

    def _sentences(self, text: str) -> list[str]:
        """What is spoken of a text, split into utterances."""
        spoken = as_spoken(text, self.reading)  # before the split: "Dr." does not end a sentence
        return [piece for piece in split_sentences(spoken, self.defaults.longest) if is_speakable(piece)]

    def _sentence_requests(
        self, sentences: Sequence[str], prefix: UtterancePrefix, seed: int | None, control: str | None
    ) -> Iterator[Request]:
        """Each sentence is read by the LLM when its request is taken."""
        first = fresh_seed(seed)
        for number, sentence in enumerate(sentences):
            embeddings = self._project_sentence(sentence, control, seed or 0)
            yield self._request(embeddings, prefix, derived_seed(first, number), self.defaults.chunks)

    @torch.no_grad()
    def _request(
        self, embeddings: Iterable[Tensor], prefix: UtterancePrefix, seed: int, chunks: Sequence[int]
    ) -> Request:
        """A request to speak text embeddings (H,); in the streaming layout they are pulled while it is spoken."""
        layout, reference = self.defaults.layout, prefix.reference
        prompt: Prompt
        text: Text
        if reference is None:
            prompt, text = pulled_prompt(self.tts, prefix.embeddings, embeddings, layout)
        else:
            prompt = clone_prefill(
                self.tts,
                prefix.embeddings,
                torch.stack(list(embeddings)),
                reference.text_embeddings,
                reference.codes,
                layout,
            )
            text = WholeText(self.tts, prompt)
        before = None if reference is None else reference.codes
        return Request(prompt, text, seed, self.defaults.max_frames, chunks, before)

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

    @staticmethod
    def _generator(device: torch.device, seed: int | None) -> torch.Generator | None:
        return None if seed is None else torch.Generator(device).manual_seed(seed)


@dataclass(frozen=True)
class UtterancePrefix:
    """What comes before the text in the talker's prompt; the same for all utterances of a call."""

    embeddings: Tensor
    """(P, H): the talker's input embeddings of instruction, language and speaker."""
    reference: Reference | None
    """The recording that every utterance continues, if any."""


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


class SpeechStream(Iterator[np.ndarray]):
    """Iterator over chunks (s,), float32, of utterances that are spoken one after another.

    `close` stops it and frees all that it holds, as does dropping it. `timings`: where the time of each utterance went.
    """

    def __init__(self, engine: Engine, requests: Iterator[Request]) -> None:
        self.timings: list[Timing] = []
        self._chunks = self._spoken(engine, requests, self.timings)

    def __next__(self) -> np.ndarray:
        return next(self._chunks)

    def close(self) -> None:
        """Stops speaking; no more chunks come."""
        self._chunks.close()

    @staticmethod
    def _spoken(
        engine: Engine, requests: Iterator[Request], timings: list[Timing]
    ) -> Generator[np.ndarray, None, None]:
        for request in requests:
            utterance = engine.submit(request)
            timings.append(utterance.timing)
            try:
                for samples in utterance:
                    yield samples.cpu().numpy()
            finally:
                utterance.cancel()


class Answer(SpeechStream):
    """Iterator over the samples of a spoken answer: chunks (s,), float32, while the LLM generates it."""

    def __init__(self, engine: Engine, requests: Iterator[Request], live: LiveAnswer) -> None:
        super().__init__(engine, requests)
        self._live = live

    def __next__(self) -> np.ndarray:
        try:
            return super().__next__()
        except StopIteration:
            if self._live.dropped:
                log.warning("the answer was cut off at llm.max_new_tokens: its last sentence is not spoken")
            raise

    @property
    def text(self) -> str:
        """The text that was given to the TTS so far."""
        return self._live.spoken


def _check_llm_settings(info: ProjectorInfo, llm: LanguageModel) -> None:
    """Raises AudioProjectionError where the LLM is set to other layers, context or prompt than the projector's."""
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
