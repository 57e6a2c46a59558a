"""The decoding loop of talker and code predictor: one frame of codes a step for each utterance of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_projection.sampling import Sampling, exponential_noise
from audio_projection.tts.code_predictor import CodePredictor
from audio_projection.tts.engine.graphs import DirectCalls, GraphReplays
from audio_projection.tts.engine.slot_choices import SlotChoices
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import Prompt
from audio_projection.tts.rules import TalkerRules, swap_rows

Calls = DirectCalls | GraphReplays


class Decoder:
    """Decodes utterances in slots 0 to `count` - 1, one frame a step; they may be of any lengths.

    `open` takes a slot at the end, `close` gives one back and moves the last utterance there. A step of the first B
    slots leaves the others as they are, so an utterance that has to wait is swapped behind those that need not. What an
    utterance becomes depends on its prompt, its text and its seed alone, not on its slot or its neighbours.

    After a step of B utterances `hidden` (B, H) is the talker's state, `logits` (B, V) its raw scores of codebook 0 and
    `scores` (B, V) those after the decoding rules; `code_logits` are the code predictor's, G-1 tensors (B, K); `ended`
    (B,) says which utterances are over. Ended ones are decoded further as in the official package, fed with their
    end-of-speech code. No step waits for the device.
    """

    @torch.inference_mode()
    def __init__(
        self,
        tts: Qwen3TTS,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        generator: torch.Generator | None = None,
        seeds: Sequence[int] | None = None,
        graphs: bool = False,
        slots: int = 1,
    ) -> None:
        """Begins with whole `prompts`, one in each slot; there are at least `slots` slots.

        `sampling` is that of all utterances that bring none. Sampled ones draw by their `seeds`, or all by
        `torch.multinomial` and one `generator`, which gives the official package's samples for its order of utterances.
        `graphs`: replay steps as CUDA graphs.
        """
        self.tts, self.sampling, self.generator = tts, sampling, generator
        like = tts.talker.codec_head.weight
        talker, slots = tts.config.talker, max(1, slots, len(prompts))
        self.talker = tts.talker.transformer.begin(slots, 256, like, graphs)
        self.choices = SlotChoices(slots, sampling.talker, like.device)
        self.predictor = FramePredictor(tts.code_predictor, SlotChoices(slots, sampling.predictor, like.device), slots)
        self.rules = TalkerRules(slots, talker, sampling.repetition_penalty, like.device)
        self.calls: Calls = GraphReplays() if graphs else DirectCalls()
        self.count = 0
        """Slots in use, the first ones."""
        self._text = like.new_zeros(slots, tts.config.hidden_size)
        self.last = torch.zeros_like(self._text)
        self._seeds = torch.zeros(slots, dtype=torch.int64, device=like.device)
        self._steps = torch.zeros_like(self._seeds)
        self._over = torch.zeros(slots, dtype=torch.bool, device=like.device)
        self.hidden = self.first = self.logits = self.scores = self.ended = self.last
        self.code_logits: list[Tensor] = []
        self._talked: tuple[Tensor, ...] = ()
        for number, prompt in enumerate(prompts):
            self.open(seeds[number] if seeds else 0)
            self.start(number, prompt.last)
        if prompts:
            self.prefill(0, [prompt.embeds for prompt in prompts])

    @property
    def slots(self) -> int:
        return len(self.last)

    @torch.inference_mode()
    def open(self, seed: int, sampling: Sampling | None = None) -> int:
        """Takes a free slot for an utterance; gives its number. `sampling` None: the decoder's."""
        slot = self.count
        if slot == self.slots:
            self._grow(2 * slot)
        self.count += 1
        self._seeds[slot] = seed
        self._over[slot] = False
        self.talker.clear(slot)
        sampling = sampling or self.sampling
        self.choices.set(slot, sampling.talker)
        self.predictor.choices.set(slot, sampling.predictor)
        self.rules.clear(slot, sampling.repetition_penalty)
        return slot

    @torch.inference_mode()
    def prefill(self, slot: int, embeds: Sequence[Tensor]) -> None:
        """Reads the next embeds[b] (S, H) of the prompt of slot + b; as much of these prompts has been read before."""
        self.talker.prefill(slot, embeds)

    @torch.inference_mode()
    def start(self, slot: int, last: Tensor) -> None:
        """`last` (H,), of the slot's prompt, is added to its first text embedding."""
        self.last[slot] = last

    def close(self, slot: int) -> None:
        """Frees a slot; the utterance of the last slot in use moves there."""
        self.swap(slot, self.count - 1)
        self.count -= 1
        self.talker.clear(self.count)

    @torch.inference_mode()
    def swap(self, first: int, second: int) -> None:
        """Exchanges the utterances of two slots."""
        if first == second:
            return
        for part in (self.talker, self.rules, self.choices, self.predictor.choices):
            part.swap(first, second)
        for rows in (self.last, self._seeds, self._over):
            swap_rows(rows, first, second)

    def step(self, text_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Text embeddings (B, H) of the first B slots -> codes (B, G), int64, and ended (B,), bool; codes of ended
        utterances are void."""
        self.advance(text_embeddings)
        return self.complete(), self.ended

    @torch.inference_mode()
    def advance(self, text_embeddings: Tensor) -> Tensor:
        """The talker's half of a step: code 0 (B,) of the next frame, or the end of speech."""
        count = len(text_embeddings)
        size = self.calls.size(count, self.slots)
        shape = self.talker.prepare(size)
        self._text[:count] = text_embeddings
        if not (self.choices.greedy(count) and self.predictor.choices.greedy(count)):
            self._steps[:count].copy_(torch.tensor(self.rules.steps[:count]), non_blocking=True)
        kind = self.choices.kind(size), self.rules.penalised
        self._talked = self.calls.call(("talker", shape, kind), lambda: self._talk(size))
        self.hidden, self.logits, self.scores, self.first, self.ended = (_first(each, count) for each in self._talked)
        self.talker.advance(count)
        self._over[:count] = self.ended
        self.rules.record(self.first)
        return self.first

    @torch.inference_mode()
    def complete(self) -> Tensor:
        """The code predictor's half of a step: the whole frames (B, G)."""
        hidden, _, _, first, _ = self._talked
        count, size = len(self.first), len(first)
        codes, last, *logits = self.calls.call(
            ("predictor", size, self.predictor.choices.kind(size)), self._predict, hidden, first
        )
        self.last[:count] = _first(last, count)
        self.code_logits = [_first(each, count) for each in logits]
        return _first(codes, count)

    def _talk(self, count: int) -> tuple[Tensor, ...]:
        """Talker states, logits, scores, code 0 and ends of the first `count` slots; stores their keys and values."""
        hidden = self.talker.step(self._text[:count] + self.last[:count])
        logits = self.tts.talker.logits(hidden)
        scores = self.choices.warp(self.rules.apply(logits))
        if self.generator is None:
            first = self.choices.race(scores, self._noise_of(self.choices, count, 0, scores.shape[1]))
        else:
            first = self.choices.pick(scores, self.generator)
        first = first.masked_fill(self._over[:count], self.rules.end)
        return hidden, logits, scores, first, first == self.rules.end

    def _predict(self, hidden: Tensor, first: Tensor) -> tuple[Tensor, ...]:
        """Codes (B, G), their summed embeddings (B, H) and the code predictor's logits, G-1 tensors (B, K)."""
        embedded = self.tts.talker.codec_embedding(first)
        if self.generator is not None:
            return self.predictor.predict(hidden, first, embedded, self.generator)
        predictor, before = self.predictor, self.tts.config.talker.vocab_size
        noise = self._noise_of(predictor.choices, len(first), before, predictor.noise_width)
        return self.predictor.predict(hidden, first, embedded, noise)

    def _noise_of(self, choices: SlotChoices, count: int, start: int, width: int) -> Tensor | None:
        """Exponential noise (B, width) of the present frames, of their columns from `start` on; None when greedy."""
        if choices.greedy(count):
            return None
        return exponential_noise(self._seeds[:count], self._steps[:count], start, width)

    def _grow(self, slots: int) -> None:
        more = slots - self.slots
        for name in ("_text", "last", "_seeds", "_steps", "_over"):
            rows: Tensor = getattr(self, name)
            setattr(self, name, torch.cat((rows, rows.new_zeros(more, *rows.shape[1:]))))
        for part in (self.rules, self.choices, self.predictor.choices):
            part.grow(slots)
        self.calls.clear()


class FramePredictor:
    """Decodes codebooks 1 and up, frame by frame; its key-value cache holds one frame and is reused for the next."""

    def __init__(self, predictor: CodePredictor, choices: SlotChoices, slots: int) -> None:
        self.choices = choices
        self.stepper = predictor.transformer.begin_frames(slots, predictor.config.code_groups, predictor.lm_head)
        self.heads, self.tables = list(predictor.lm_head), list(predictor.codec_embedding)
        self.noise_width = len(self.heads) * predictor.config.vocab_size
        projection = predictor.small_to_mtp_projection
        self.projection = (projection.weight, projection.bias) if isinstance(projection, nn.Linear) else None

    def predict(
        self, hidden: Tensor, first: Tensor, embedded: Tensor, noise: Tensor | torch.Generator | None
    ) -> tuple[Tensor, ...]:
        """From the talker's state (B, H), code 0 (B,) and its embedding (B, H): codes (B, G), the sum of their
        embeddings (B, H), and the scores of codebooks 1 and up, G-1 tensors (B, K).

        `noise`: exponential noise (B, (G-1) * K), or a generator for `torch.multinomial`.
        """
        state = self.stepper.begin(self._projected(hidden), self._projected(embedded))
        codes, embeddings, logits = [first], [embedded], []
        for group, (head, table) in enumerate(zip(self.heads, self.tables, strict=True)):
            if group:
                state = self.stepper.step(self._projected(embeddings[-1]))
            logits.append(functional.linear(state, head))
            codes.append(self._choose(self.choices.warp(logits[-1]), noise, group))
            embeddings.append(torch.embedding(table, codes[-1]))
        return torch.stack(codes, 1), torch.stack(embeddings).sum(0), *logits

    def _choose(self, scores: Tensor, noise: Tensor | torch.Generator | None, group: int) -> Tensor:
        if isinstance(noise, torch.Generator):
            return self.choices.pick(scores, noise)
        size = scores.shape[1]
        return self.choices.race(scores, None if noise is None else noise[:, group * size : (group + 1) * size])

    def _projected(self, x: Tensor) -> Tensor:
        return x if self.projection is None else functional.linear(x, *self.projection)


def _first(rows: Tensor, count: int) -> Tensor:
    return rows if len(rows) == count else rows[:count]
