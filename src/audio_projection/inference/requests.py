"""Requests to the engine: sentences of a text, or of an answer, as projected embeddings after a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audio_projection.alignment.controls import as_long_as, other_sentence, shuffled
from audio_projection.alignment.streaming import AnswerToken
from audio_projection.alignment.token_states import TokenStates, token_states
from audio_projection.errors import AudioProjectionError
from audio_projection.inference.defaults import VoiceDefaults
from audio_projection.models import Models
from audio_projection.sampling import derived_seed
from audio_projection.tts.engine.text import FedText, Text, WholeText
from audio_projection.tts.engine.utterance import Request
from audio_projection.tts.generate import fresh_seed, pulled_prompt
from audio_projection.tts.prompt import STREAMING, Prompt, Reference, clone_prefill, open_prompt

VoiceChoice = str | Tensor | Reference | None
"""Who speaks: a speaker's name, an x-vector (H,), a Reference recording that the speech continues, or None for the
default of the settings or of the projector."""


@dataclass(frozen=True)
class UtterancePrefix:
    """What comes before the text in the talker's prompt; the same for all utterances of a call."""

    embeddings: Tensor
    """(P, H): the talker's input embeddings of instruction, language and speaker."""
    reference: Reference | None
    """The recording that every utterance continues, if any."""


@dataclass(frozen=True)
class Requests:
    """Makes requests from sentences and from answers, by the models and the defaults of a voice."""

    models: Models
    defaults: VoiceDefaults

    def prefix(self, voice: VoiceChoice, language: str | None) -> UtterancePrefix:
        """Raises AudioProjectionError for a voice or a language that the TTS doesn't have, or no voice at all."""
        tts, projector, defaults = self.models.tts, self.models.projector, self.defaults
        reference = voice if isinstance(voice, Reference) else None
        chosen = next((each for each in (voice, defaults.speaker, projector.voice) if each is not None), None)
        if chosen is None and tts.config.kind != "voice_design":
            names = ", ".join(tts.config.talker.speakers)
            ways = f"choose one of {names}" if names else "give a recording with --ref-audio"
            raise AudioProjectionError(f"no voice: neither the configuration nor the projector has one; {ways}")
        if isinstance(chosen, Reference):
            chosen = chosen.voice
        with torch.no_grad():
            embeddings = tts.prefix(chosen, language or defaults.language or projector.info.language)
        return UtterancePrefix(embeddings, reference)

    def of_sentences(
        self, sentences: Sequence[str], prefix: UtterancePrefix, seed: int | None, control: str | None
    ) -> Iterator[Request]:
        """Each sentence is read by the LLM when its request is taken."""
        first = fresh_seed(seed)
        for number, sentence in enumerate(sentences):
            embeddings = self._project_sentence(sentence, control, seed or 0)
            yield self.whole(embeddings, prefix, derived_seed(first, number), self.defaults.chunks)

    @torch.no_grad()
    def whole(self, embeddings: Iterable[Tensor], prefix: UtterancePrefix, seed: int, chunks: Sequence[int]) -> Request:
        """A request to speak text embeddings (H,) that are all there."""
        tts, layout, reference = self.models.tts, self.defaults.layout, prefix.reference
        prompt: Prompt
        text: Text
        if reference is None:
            prompt, text = pulled_prompt(tts, prefix.embeddings, embeddings, layout)
        else:
            known = torch.stack(list(embeddings))
            prompt = clone_prefill(tts, prefix.embeddings, known, reference.text_embeddings, reference.codes, layout)
            text = WholeText(tts, prompt)
        before = None if reference is None else reference.codes
        return Request(prompt, text, seed, self.defaults.max_frames, chunks, before)

    def can_be_fed(self, prefix: UtterancePrefix) -> bool:
        """Whether an utterance can begin before all of its text is there."""
        return self.defaults.layout == STREAMING and prefix.reference is None

    @torch.no_grad()
    def fed(self, text: FedText, prefix: UtterancePrefix, seed: int, chunks: Sequence[int]) -> Request:
        """A request to speak a text that is still being written."""
        prompt = open_prompt(self.models.tts, prefix.embeddings)
        return Request(prompt, text, seed, self.defaults.max_frames, chunks)

    @torch.no_grad()
    def project_token(self, token: AnswerToken) -> Tensor:
        """The projected embedding (H,) of one TTS token of an answer."""
        tts = self.models.tts
        embedding = tts.text_embeddings(torch.tensor([token.id], device=tts.device)).float()
        return self.models.projector(token.state[None].to(embedding.device), embedding)[0]

    @torch.no_grad()
    def _project_sentence(self, sentence: str, control: str | None, seed: int) -> Tensor:
        """Projected embeddings (N, H) of a sentence's TTS tokens; with a control, what is spoken instead."""
        tts = self.models.tts
        if control == "plain":
            ids, _ = tts.tokenize(sentence)
            return tts.text_embeddings(torch.tensor(ids, device=tts.device))
        tokens = token_states(self.models.llm, tts, [sentence])[0]
        return self.models.projector(self._controlled(tokens, sentence, control, seed), tokens.text_embeddings)

    def _controlled(self, tokens: TokenStates, sentence: str, control: str | None, seed: int) -> Tensor:
        """The states, or what a control speaks instead of them."""
        if control == "shuffled":
            return shuffled(tokens.states, seed)
        if control == "other":
            other = token_states(self.models.llm, self.models.tts, [other_sentence(sentence)])[0]
            return as_long_as(other.states, len(tokens.ids))
        return tokens.states
