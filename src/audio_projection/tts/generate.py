"""Autoregressive decoding: text embeddings in, frames of codes out.

`Decoder` is the primitive: each step takes one text embedding for each utterance of a batch and gives one frame of
codes for each. `stream` feeds it from an iterator as embeddings arrive, `generate` from whole texts in a batch, both
with a length guard against a missed end of speech.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat

import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_projection.errors import AudioProjectionError
from audio_projection.sampling import Choice, Sampling
from audio_projection.tts.code_predictor import CodePredictor
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import STREAMING, Prompt, check_layout, open_prompt, special_embeddings, text_prompt
from audio_projection.tts.rules import TalkerRules

log = logging.getLogger(__name__)


class Decoder:
    """The decoding loop of talker and code predictor for a batch of B utterances, one frame a step.

    After a step `hidden` (B, H) is the talker's state, `logits` (B, V) its raw scores of codebook 0 and `scores` (B, V)
    those after the decoding rules; `code_logits` are the code predictor's, G-1 tensors (B, K); `ended` (B,) says which
    utterances are over. Ended ones are decoded further as in the official package, fed with their end-of-speech code.
    """

    @torch.inference_mode()
    def __init__(
        self, tts: Qwen3TTS, prompts: Sequence[Prompt], sampling: Sampling, generator: torch.Generator | None = None
    ) -> None:
        self.tts, self.sampling, self.generator = tts, sampling, generator
        batch = len(prompts)
        embeds, starts = _left_padded([prompt.embeds for prompt in prompts])
        self.talker = tts.talker.transformer.begin(batch, embeds.shape[1] + 256, embeds)
        self.talker.prefill(embeds, starts)
        self.predictor = FramePredictor(tts.code_predictor, batch, sampling.predictor)
        self.rules = TalkerRules(batch, tts.config.talker, sampling.repetition_penalty, embeds.device)
        self.last = torch.stack([prompt.last for prompt in prompts])
        self.ended = torch.zeros(batch, dtype=torch.bool, device=embeds.device)
        self.hidden = self.first = self.logits = self.scores = self.last
        self.code_logits: list[Tensor] = []

    def step(self, text_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Text embeddings (B, H) -> codes (B, G), int64, and ended (B,), bool; codes of ended utterances are void."""
        self.advance(text_embeddings)
        return self.complete(), self.ended

    @torch.inference_mode()
    def advance(self, text_embeddings: Tensor) -> Tensor:
        """The talker's half of a step: code 0 (B,) of the next frame, or the end of speech."""
        self.hidden = self.talker.step(text_embeddings + self.last)
        self.logits = self.tts.talker.logits(self.hidden)
        self.scores = self.sampling.talker.warp(self.rules.apply(self.logits))
        first = self.sampling.talker.pick(self.scores, self.generator)
        end = self.tts.config.talker.codec_eos
        self.first = first.masked_fill(self.ended, end)
        self.ended = self.first == end
        self.rules.record(self.first)
        return self.first

    @torch.inference_mode()
    def complete(self) -> Tensor:
        """The code predictor's half of a step: the whole frames (B, G)."""
        embedded = self.tts.talker.codec_embedding(self.first)
        codes, self.last, self.code_logits = self.predictor.predict(self.hidden, self.first, embedded, self.generator)
        return codes


class FramePredictor:
    """Decodes codebooks 1 and up, frame by frame; its key-value cache holds one frame and is reused for the next."""

    def __init__(self, predictor: CodePredictor, batch: int, choice: Choice) -> None:
        self.choice = choice
        like = predictor.lm_head
        self.stepper = predictor.transformer.begin(batch, predictor.config.code_groups, like)
        self.heads, self.tables = list(predictor.lm_head), list(predictor.codec_embedding)
        projection = predictor.small_to_mtp_projection
        self.projection = (projection.weight, projection.bias) if isinstance(projection, nn.Linear) else None

    def predict(
        self, hidden: Tensor, first: Tensor, embedded: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """From the talker's state (B, H), code 0 (B,) and its embedding (B, H): codes (B, G), the sum of their
        embeddings (B, H), and the scores of codebooks 1 and up, G-1 tensors (B, K)."""
        self.stepper.restart()
        self._step(hidden)
        codes, embeddings, logits = [first], [embedded], []
        for head, table in zip(self.heads, self.tables, strict=True):
            logits.append(functional.linear(self._step(embeddings[-1]), head))
            codes.append(self.choice.pick(self.choice.warp(logits[-1]), generator))
            embeddings.append(torch.embedding(table, codes[-1]))
        return torch.stack(codes, 1), torch.stack(embeddings).sum(0), logits

    def _step(self, x: Tensor) -> Tensor:
        return self.stepper.step(x if self.projection is None else functional.linear(x, *self.projection))


def stream(
    tts: Qwen3TTS,
    prefix: Tensor,
    text_embeddings: Iterable[Tensor],
    layout: str = STREAMING,
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
    max_frames: int | None = None,
) -> Iterator[Tensor]:
    """Frames (G,), int64, of one utterance, each as soon as it is decoded.

    The streaming layout pulls one text embedding (H,) a frame and blocks as long as the iterator of `text_embeddings`
    does; at its end it feeds the end of text once, then padding. The non-streaming layout needs the whole text first.
    """
    check_layout(layout)
    text = _LiveText(tts, text_embeddings)
    prompt = open_prompt(tts, prefix) if layout == STREAMING else text_prompt(tts, prefix, text.rest(), layout)
    decoder = Decoder(tts, [prompt], sampling or tts.sampling, generator)
    yield from _frames(decoder, text, LengthGuard(tts, max_frames), lambda: text.count)


def stream_prompt(
    tts: Qwen3TTS,
    prompt: Prompt,
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
    max_frames: int | None = None,
) -> Iterator[Tensor]:
    """As `stream`, for a prompt that has its whole text, also one that clones a voice (`prompt.clone_prefill`)."""
    decoder = Decoder(tts, [prompt], sampling or tts.sampling, generator)
    text = chain(prompt.text_embeddings, repeat(special_embeddings(tts).pad))
    yield from _frames(decoder, text, LengthGuard(tts, max_frames), lambda: prompt.text_length)


def _frames(
    decoder: Decoder, text: Iterator[Tensor], guard: LengthGuard, text_length: Callable[[], int]
) -> Iterator[Tensor]:
    """Frames (G,) up to the end of speech; `text_length`: text embeddings so far, a count that grows in a stream."""
    frames = 0
    while not (frames and guard.reached(frames, text_length())):
        codes, ended = decoder.step(next(text)[None])
        if ended.item():
            return
        frames += 1
        yield codes[0].clone()


def generate(
    tts: Qwen3TTS,
    prompts: Sequence[tuple[Tensor, Tensor]],
    layout: str = STREAMING,
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
    max_frames: int | None = None,
) -> list[Tensor]:
    """Codes (T, G), int64, of a batch of utterances, each given as (prefix (P, H), text embeddings (N, H))."""
    laid_out = [text_prompt(tts, prefix, embeddings, layout) for prefix, embeddings in prompts]
    return decode(tts, laid_out, sampling, generator, max_frames)


def decode(
    tts: Qwen3TTS,
    prompts: Sequence[Prompt],
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
    max_frames: int | None = None,
) -> list[Tensor]:
    """Codes (T, G), int64, of a batch of prompts, also those that clone a voice (`prompt.clone_prefill`)."""
    if not prompts:
        return []
    decoder = Decoder(tts, prompts, sampling or tts.sampling, generator)
    guard = LengthGuard(tts, max_frames)
    lengths: list[int | None] = [None] * len(prompts)
    frames: list[Tensor] = []
    for text_embeddings in _batched_text(tts, prompts):
        codes, ended = decoder.step(text_embeddings)
        frames.append(codes)
        for index, over in enumerate(ended.tolist()):
            if lengths[index] is not None:
                continue
            if over:
                lengths[index] = len(frames) - 1
            elif guard.reached(len(frames), prompts[index].text_length):
                lengths[index] = len(frames)
        if None not in lengths:
            break
    whole = torch.stack(frames, 1)
    return [whole[index, :length].clone() for index, length in enumerate(lengths)]


def clone_samples(
    tts: Qwen3TTS, reference_codes: Tensor, codes: Tensor, decode_codes: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Waveform (S,), float32, of codes (T, G) that continue `reference_codes` (R, G).

    The codec decodes the reference first, so that it starts in the state that the recording leaves; the reference's
    share of the samples is cut off again (official: generate_voice_clone). `decode_codes`: the codec's `decode` unless
    given.
    """
    samples = (decode_codes or tts.codec.decode)(torch.cat((reference_codes.to(codes.device), codes)))
    return samples[int(len(reference_codes) / (len(reference_codes) + len(codes)) * len(samples)) :]


class LengthGuard:
    """Stops an utterance at `max_frames` or, without it, with a warning when it is far too long for its text.

    Speech of 6 s and 1.28 s more a text token is a missed end: slow speech takes about a quarter of that (0.2 to 0.4 s
    a token).
    """

    SECONDS = 6.0
    SECONDS_PER_TOKEN = 1.28

    def __init__(self, tts: Qwen3TTS, max_frames: int | None) -> None:
        if max_frames is not None and max_frames < 1:
            raise AudioProjectionError(f"max_frames is {max_frames}, must be at least 1")
        self.max_frames = max_frames
        self.frame_rate = tts.frame_rate
        self.longest = max(1, int(tts.generation.get("max_new_tokens", 8192)) - 1)

    def limit(self, text_length: int) -> int:
        """The most frames that a text of `text_length` tokens may take."""
        if self.max_frames is not None:
            return self.max_frames
        return min(self.longest, round((self.SECONDS + self.SECONDS_PER_TOKEN * text_length) * self.frame_rate))

    def reached(self, frames: int, text_length: int) -> bool:
        """Whether to stop after so many frames."""
        if frames < self.limit(text_length):
            return False
        if self.max_frames is None:
            log.warning(
                "no end of speech after %.1f s for %d text tokens: stopped there; another seed may do better",
                frames / self.frame_rate,
                text_length,
            )
        return True


class _LiveText(Iterator[Tensor]):
    """Text embeddings (H,) of one utterance as they arrive, then the end of text once, then padding without end.

    `count`: how many have arrived.
    """

    def __init__(self, tts: Qwen3TTS, text_embeddings: Iterable[Tensor]) -> None:
        self.special = special_embeddings(tts)
        self.remaining: Iterator[Tensor] | None = iter(text_embeddings)
        self.count = 0

    def rest(self) -> Tensor:
        """All that are still to come, (N, H); afterwards there is padding only."""
        embeddings = [self._checked(embedding) for embedding in self.remaining or ()]
        self.remaining, self.count = None, len(embeddings)
        pad = self.special.pad
        return torch.stack(embeddings) if embeddings else pad.new_empty(0, len(pad))

    def __next__(self) -> Tensor:
        if self.remaining is None:
            return self.special.pad
        embedding = next(self.remaining, None)
        if embedding is not None:
            self.count += 1
            return self._checked(embedding)
        if not self.count:
            raise AudioProjectionError("there is no text to speak: no text embedding was given")
        self.remaining = None
        return self.special.eos

    def _checked(self, embedding: Tensor) -> Tensor:
        pad = self.special.pad
        if embedding.shape != pad.shape:
            raise AudioProjectionError(f"a text embedding has shape {tuple(embedding.shape)}, need {tuple(pad.shape)}")
        return embedding.to(pad)


def _batched_text(tts: Qwen3TTS, prompts: Sequence[Prompt]) -> Iterator[Tensor]:
    """For each step the text embeddings (B, H) of a batch; prompts that have no more get padding."""
    pad = special_embeddings(tts).pad
    longest = max(len(prompt.text_embeddings) for prompt in prompts)
    steps = pad.repeat(longest, len(prompts), 1)
    for index, prompt in enumerate(prompts):
        steps[: len(prompt.text_embeddings), index] = prompt.text_embeddings
    yield from steps
    while True:
        yield pad.expand(len(prompts), -1)


def _left_padded(embeds: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Left-padded prefills (B, S, H) and where each starts (B,), None when all are of one length."""
    longest = max(len(one) for one in embeds)
    padded = [functional.pad(one, (0, 0, longest - len(one), 0)) for one in embeds]
    starts = torch.tensor([longest - len(one) for one in embeds], device=padded[0].device)
    return torch.stack(padded), starts if bool(starts.any()) else None
