"""The LLM's side of a stream: it reads sentences, or writes an answer, and hands them to the engine by a channel.

These functions run in a thread of their own, `Channel.start`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor

from audio_projection.alignment.rereading import Rereading
from audio_projection.alignment.spoken_tokens import SpokenTokens
from audio_projection.alignment.streaming import AnswerToken, LiveAnswer
from audio_projection.inference.channel import Cancelled, Channel, Item
from audio_projection.inference.requests import Requests, UtterancePrefix
from audio_projection.inference.speech import Sentence
from audio_projection.llm.language_model import GeneratedToken, Message
from audio_projection.llm.prefix_cache import PrefixCache
from audio_projection.sampling import Choice, derived_seed
from audio_projection.text.input_text import Reading
from audio_projection.tts.engine.text import FedText
from audio_projection.tts.generate import fresh_seed

log = logging.getLogger(__name__)

WRITTEN_AHEAD = 64
"""Most text embeddings of a sentence that wait for the talker: it takes one a frame."""


@dataclass(frozen=True)
class ReadAloud:
    """Reads the sentences of a text, one after another as there is room."""

    requests: Requests
    sentences: Sequence[str]
    prefix: UtterancePrefix
    seed: int | None
    control: str | None

    def __call__(self, channel: Channel) -> None:
        requests = self.requests.of_sentences(self.sentences, self.prefix, self.seed, self.control)
        for sentence in self.sentences:
            channel.wait_for_room()
            with channel.clock.during("llm_prefill"):
                request = next(requests)
            channel.put(Item(request, Sentence(sentence, sentence, complete=True)))


@dataclass(frozen=True)
class Answering:
    """Writes an answer; its tokens are given to the talker as soon as their word, or their sentence, is complete."""

    requests: Requests
    conversation: Sequence[Message]
    prefix: UtterancePrefix
    seed: int | None
    sampling: Choice | None
    reading: Reading
    cache: PrefixCache = field(default_factory=PrefixCache)
    """The LLM's keys and values of earlier turns."""

    def __call__(self, channel: Channel) -> None:
        with self.cache.used():
            self.cache.check = channel.check
            self._write(channel)

    def _write(self, channel: Channel) -> None:
        llm, limit = self.requests.models.llm, self.requests.defaults.max_new_tokens
        generator = None if self.seed is None else torch.Generator(llm.device).manual_seed(self.seed)
        written = llm.generate(self.conversation, limit, self.sampling, generator, self.cache)
        tokens = SpokenTokens(self._clocked(written, channel), limit)
        rereading = None
        if self.reading.rewords:
            rereading = Rereading(llm, self.reading, lambda: llm.chat_ids(self.conversation), tokens.ids)
        live = LiveAnswer(tokens, self.requests.models.tts.tokenizer, self.requests.defaults.longest, rereading)
        first = fresh_seed(self.seed)
        for number, sentence in enumerate(live.sentences()):
            self._speak(_Writing(live, sentence, self.requests, channel), derived_seed(first, number), channel)
        if live.dropped:
            log.warning("the answer was cut off at llm.max_new_tokens: its last sentence is not spoken")

    def _clocked(self, tokens: Iterator[GeneratedToken], channel: Channel) -> Iterator[GeneratedToken]:
        """The LLM's tokens, as long as somebody listens; the clock gets their time."""
        clock, self.cache.prefill_seconds = channel.clock, 0.0
        while True:
            channel.check()
            with clock.during("llm_tokens"):
                token = next(tokens, None)
            if not clock.tokens:
                clock.move(self.cache.prefill_seconds, "llm_tokens", "llm_prefill")
            if token is None:
                return
            clock.tokens += 1
            yield token

    def _speak(self, writing: _Writing, seed: int, channel: Channel) -> None:
        first = next(writing, None)
        if first is None:
            return
        chunks, prefix = self.requests.defaults.live_chunks, self.prefix
        embeddings = chain((first,), writing)
        if not self.requests.can_be_fed(prefix):
            request = self.requests.whole(embeddings, prefix, seed, chunks)
            channel.put(Item(request, writing.sentence))
            return
        text = FedText(self.requests.models.tts, WRITTEN_AHEAD)
        channel.put(Item(self.requests.fed(text, prefix, seed, chunks), writing.sentence))
        try:
            _feed(text, embeddings, channel, chunks[0])
        except Cancelled:
            raise
        except Exception as error:
            text.finish(error)
            raise


class _Writing(Iterator[Tensor]):
    """The projected embeddings (H,) of one sentence while it is written; `sentence` has its text so far."""

    def __init__(self, live: LiveAnswer, tokens: Iterator[AnswerToken], requests: Requests, channel: Channel) -> None:
        self.sentence = Sentence()
        self._live, self._tokens, self._requests, self._channel = live, tokens, requests, channel

    def __next__(self) -> Tensor:
        self._channel.check()
        token = next(self._tokens, None)
        self.sentence.text, self.sentence.written = self._live.current, self._live.current_as_written
        if token is None:
            self.sentence.complete = True
            raise StopIteration
        with self._channel.clock.during("projector"):
            return self._requests.project_token(token)


def _feed(text: FedText, embeddings: Iterator[Tensor], channel: Channel, enough: int) -> None:
    """Feeds the talker; no more than is `enough` for the first chunk until that is there."""
    for number, embedding in enumerate(embeddings):
        if number == enough:
            channel.wait_for_sound()
        with channel.clock.during("waiting"):
            taken = text.put(embedding)
        if not taken:  # it ended at its limit of frames, or nobody listens
            return
    text.finish()
