"""Speaking: text rows in, frames of codes out.

`Decoder` is the one primitive: each step takes one text row an utterance and gives one frame each. `stream` feeds it
from an iterator as rows come, `generate` from whole texts in a batch, both with a guard against a missed end.
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
from audio_projection.tts.config import SPECIAL_CODES
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import STREAMING, Prompt, check_layout, open_prompt, special_embeddings, text_prompt
from audio_projection.tts.rules import TalkerRules

log = logging.getLogger(__name__)


class Decoder:
    """Decodes a batch of B utterances, one frame a step.

    After a step `logits` (B, V) and `scores` (B, V) are the talker's, raw and by the rules, and `code_logits` the
    predictor's, G-1 tensors (B, K); `ended` (B,) says which utterances are over. Ended ones go on as in the
    official package, fed with their end.
    """

    @torch.inference_mode()
    def __init__(
        self, tts: Qwen3TTS, prompts: Sequence[Prompt], sampling: Sampling, generator: torch.Generator | None = None
    ) -> None:
        self.tts, self.sampling, self.generator = tts, sampling, generator
        batch, talker = len(prompts), tts.config.talker
        embeds, starts = _left_padded([prompt.embeds for prompt in prompts])
        self.talker = tts.talker.transformer.begin(batch, embeds.shape[1] + 256, embeds)
        self.talker.prefill(embeds, starts)
        self.predictor = FramePredictor(tts.code_predictor, batch, sampling.predictor)
        self.rules = TalkerRules(
            batch, embeds, talker.vocab_size, SPECIAL_CODES, talker.codec_eos, sampling.repetition_penalty
        )
        self.last = torch.stack([prompt.last for prompt in prompts])
        self.ended = torch.zeros(batch, dtype=torch.bool, device=embeds.device)
        self.hidden = self.first = self.logits = self.scores = self.last
        self.code_logits: list[Tensor] = []

    def step(self, text_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Feed text rows (B, H); gives codes (B, G), int64, and ended (B,), bool: codes of ended rows mean nothing."""
        self.advance(text_embeddings)
        return self.complete(), self.ended

    @torch.inference_mode()
    def advance(self, text_embeddings: Tensor) -> Tensor:
        """The talker's half of a step: codebook 0 (B,) of the next frame, or the end."""
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
        """The predictor's half: the whole frames (B, G)."""
        start = self.tts.talker.codec_embedding(self.first)
        rest, self.last, self.code_logits = self.predictor.predict(self.hidden, self.first, start, self.generator)
        return rest


class FramePredictor:
    """Decodes codebooks 1 and up of one frame after another; its cache holds one frame and is used again."""

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
    rows: Iterable[Tensor],
    layout: str = STREAMING,
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
    max_frames: int | None = None,
) -> Iterator[Tensor]:
    """Frames (G,), int64, of one utterance, as they are decoded.

    The streaming layout pulls one text row (H,) a frame and waits for as long as `rows` lets it wait; when they are
    over it feeds the end of text once and then padding. The non-streaming layout needs all rows first.
    """
    check_layout(layout)
    text = _LiveText(tts, rows)
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
    """As `stream`, of a prompt that has its whole text, also one that clones a voice (`prompt.clone_prefill`)."""
    decoder = Decoder(tts, [prompt], sampling or tts.sampling, generator)
    text = chain(prompt.text_embeddings, repeat(special_embeddings(tts).pad))
    yield from _frames(decoder, text, LengthGuard(tts, max_frames), lambda: prompt.text_length)


def _frames(
    decoder: Decoder, text: Iterator[Tensor], guard: LengthGuard, text_embeddings: Callable[[], int]
) -> Iterator[Tensor]:
    """Frames (G,) up to the end; `text_embeddings` says how many there have been, which grows in a live stream."""
    frames = 0
    while not (frames and guard.reached(frames, text_embeddings())):
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
    """Codes (T, G), int64, of a batch of utterances, each given as (prefix (P, H), text rows (N, H))."""
    laid_out = [text_prompt(tts, prefix, rows, layout) for prefix, rows in prompts]
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
    for rows in _text_rows(tts, prompts):
        codes, ended = decoder.step(rows)
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

    The reference is decoded before them and cut off again in proportion (official: generate_voice_clone), so that
    the codec starts with the state that the voice left. `decode_codes` is the codec's `decode` unless given.
    """
    samples = (decode_codes or tts.codec.decode)(torch.cat((reference_codes.to(codes.device), codes)))
    return samples[int(len(reference_codes) / (len(reference_codes) + len(codes)) * len(samples)) :]


class LengthGuard:
    """Ends an utterance at `max_frames`, or, without it, when it is far too long for its text: with a warning.

    Speech this long is a missed end: slow speech takes about a quarter of it (0.2 to 0.4 s a text token).
    """

    SECONDS = 6.0
    SECONDS_PER_ROW = 1.28

    def __init__(self, tts: Qwen3TTS, max_frames: int | None) -> None:
        if max_frames is not None and max_frames < 1:
            raise AudioProjectionError(f"max_frames is {max_frames}, must be at least 1")
        self.max_frames = max_frames
        self.frame_rate = tts.frame_rate
        self.longest = max(1, int(tts.generation.get("max_new_tokens", 8192)) - 1)

    def limit(self, text_embeddings: int) -> int:
        """The most frames that a text of so many rows may take."""
        if self.max_frames is not None:
            return self.max_frames
        return min(self.longest, round((self.SECONDS + self.SECONDS_PER_ROW * text_embeddings) * self.frame_rate))

    def reached(self, frames: int, text_embeddings: int) -> bool:
        if frames < self.limit(text_embeddings):
            return False
        if self.max_frames is None:
            log.warning(
                "no end of speech after %.1f s for %d text tokens: stopped there; another seed may do better",
                frames / self.frame_rate,
                text_embeddings,
            )
        return True


class _LiveText(Iterator[Tensor]):
    """The text rows (H,) of one utterance as they come, then the end of text once, then padding for ever."""

    def __init__(self, tts: Qwen3TTS, rows: Iterable[Tensor]) -> None:
        self.special = special_embeddings(tts)
        self.coming: Iterator[Tensor] | None = iter(rows)
        self.count = 0
        self.like = self.special.pad

    def rest(self) -> Tensor:
        """All rows (N, H); what follows them is padding."""
        rows = [self._checked(row) for row in self.coming or ()]
        self.coming, self.count = None, len(rows)
        return torch.stack(rows) if rows else self.like.new_empty(0, len(self.like))

    def __next__(self) -> Tensor:
        if self.coming is None:
            return self.special.pad
        row = next(self.coming, None)
        if row is not None:
            self.count += 1
            return self._checked(row)
        if not self.count:
            raise AudioProjectionError("there is no text to speak: no text row came")
        self.coming = None
        return self.special.eos

    def _checked(self, row: Tensor) -> Tensor:
        if row.shape != self.like.shape:
            raise AudioProjectionError(f"a text row has shape {tuple(row.shape)}, need {tuple(self.like.shape)}")
        return row.to(self.like)


def _text_rows(tts: Qwen3TTS, prompts: Sequence[Prompt]) -> Iterator[Tensor]:
    """For each step the text rows (B, H) of a batch; prompts that have no more get padding."""
    pad = special_embeddings(tts).pad
    longest = max(len(prompt.text_embeddings) for prompt in prompts)
    table = pad.repeat(longest, len(prompts), 1)
    for index, prompt in enumerate(prompts):
        table[: len(prompt.text_embeddings), index] = prompt.text_embeddings
    yield from table
    while True:
        yield pad.expand(len(prompts), -1)


def _left_padded(embeds: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Prefills (B, S, H) aligned at their ends, and where each starts (B,), None when all are of one length."""
    longest = max(len(one) for one in embeds)
    padded = [functional.pad(one, (0, 0, longest - len(one), 0)) for one in embeds]
    starts = torch.tensor([longest - len(one) for one in embeds], device=padded[0].device)
    return torch.stack(padded), starts if bool(starts.any()) else None
