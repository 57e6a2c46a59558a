"""Voice: text or chat -> LLM hidden states -> projector -> TTS -> waveform, whole or streamed.

voice = Voice.from_config("configs/nano.yaml")
speech = voice.speak("Hello world")            # float32 samples and the sample rate
answer = voice.chat([{"role": "user", "content": "Who are you?"}])
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from audio_projection.sampling import Choice, Sampling
from audio_projection.text.input_text import (
    Reading,
    as_spoken,
    check_characters,
    check_text,
    is_speakable,
    split_sentences,
)
from audio_projection.tts.finetune import load_finetuned
from audio_projection.tts.generate import stream as stream_codes
from audio_projection.tts.generate import stream_prompt
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import Reference, check_layout, clone_prefill

log = logging.getLogger(__name__)

VoiceChoice = str | Tensor | Reference | None
"""Who speaks: a speaker's name, an x-vector (H,), a Reference recording that the speech continues, or None for the
default of the settings or of the projector."""
CHUNKS = (4, 4, 8, 12)
"""Frames that the codec decodes at once: few at first, for a short time to the first sound, then more, which is faster.
Played while it is made, speech has no gap from a generation speed of 1.5 times real time on."""


@dataclass(frozen=True)
class Speech:
    """A synthesised waveform and the text that it speaks."""

    samples: np.ndarray
    """(S,) float32, mono, in [-1, 1]."""
    sample_rate: int
    """Samples per second."""
    text: str
    """The text as given; of a chat, what was spoken of the LLM's answer."""


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
        return self._concatenated(self.stream(text, voice, language, seed, control), lambda: text)

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
        spoken = as_spoken(text, self.reading)  # before the split: "Dr." does not end a sentence
        sentences = [piece for piece in split_sentences(spoken, self.defaults.longest) if is_speakable(piece)]
        utterances = (self._project_sentence(sentence, control, seed or 0) for sentence in sentences)
        return self._synthesise(self._utterance_prefix(voice, language), utterances, seed, self.defaults.chunks)

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
        speech = self._concatenated(answer, lambda: answer.text)
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
        utterances = (map(self._project_token, sentence) for sentence in live.sentences())
        chunks = self.defaults.chunks[:1]  # the LLM may be slow: no word waits until a long chunk is full
        return Answer(self._synthesise(self._utterance_prefix(voice, language), utterances, seed, chunks), live)

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

    def _synthesise(
        self, prefix: UtterancePrefix, utterances: Iterable[Iterable[Tensor]], seed: int | None, chunks: Sequence[int]
    ) -> Iterator[np.ndarray]:
        """float32 samples of utterances, each given as embeddings (H,), which are pulled when they are needed."""
        generator = self._generator(self.tts.device, seed)
        before = None if prefix.reference is None else prefix.reference.codes
        for embeddings in utterances:
            codes = self._generate_codes(prefix, embeddings, generator)
            for samples in self.tts.codec.decode_stream(codes, chunks, before):
                yield samples.cpu().numpy()

    def _generate_codes(
        self, prefix: UtterancePrefix, embeddings: Iterable[Tensor], generator: torch.Generator | None
    ) -> Iterator[Tensor]:
        """Frames of speech codes (G,) of one utterance."""
        layout, limit = self.defaults.layout, self.defaults.max_frames
        sampling, reference = self.defaults.sampling or self.tts.sampling, prefix.reference
        if reference is None:
            return stream_codes(self.tts, prefix.embeddings, embeddings, layout, sampling, generator, limit)
        with torch.no_grad():
            text = torch.stack(list(embeddings))
            prompt = clone_prefill(
                self.tts, prefix.embeddings, text, reference.text_embeddings, reference.codes, layout
            )
        return stream_prompt(self.tts, prompt, sampling, generator, limit)

    def _concatenated(self, chunks: Iterable[np.ndarray], text: Callable[[], str]) -> Speech:
        collected = list(chunks)
        samples = np.concatenate(collected) if collected else np.zeros(0, np.float32)
        return Speech(samples, self.sample_rate, text())

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


class Answer(Iterator[np.ndarray]):
    """Iterator over the samples of a spoken answer: chunks (s,), float32, while the LLM generates it."""

    def __init__(self, chunks: Iterator[np.ndarray], live: LiveAnswer) -> None:
        self._chunks = chunks
        self._live = live

    def __next__(self) -> np.ndarray:
        try:
            return next(self._chunks)
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
