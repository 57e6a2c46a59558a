"""The utterances that are being decoded, each in a slot of the decoder: prompts piece by piece, frames one by one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, takewhile

import torch
from torch import Tensor

from audio_projection.sampling import Sampling
from audio_projection.tts.engine.decoder import Decoder
from audio_projection.tts.engine.utterance import Utterance
from audio_projection.tts.model import Qwen3TTS

PREFILL_PIECE = 128
"""Positions of a prompt that are read at once, so that the utterances that are being spoken wait no longer than that.
The pieces do not depend on whether others are spoken, so neither does the result."""


class Slots:
    """Up to `size` utterances in a decoder's slots; an utterance leaves as soon as all of its frames are decoded."""

    def __init__(self, tts: Qwen3TTS, sampling: Sampling, size: int, graphs: bool) -> None:
        self.size = size
        self.utterances: list[Utterance] = []
        """The utterance in each slot."""
        self._tts, self._sampling, self._graphs = tts, sampling, graphs
        self.decoder: Decoder | None = None
        """None while nobody speaks: its memory is free then, and weights may change."""
        self._unread: list[tuple[list[Utterance], Tensor, Tensor]] = []  # frames whose ends the host does not know
        # On a CPU there is nothing to wait for: ends are read at once, so that no frame is decoded in vain.
        self._on_cpu = tts.device.type == "cpu"

    def __len__(self) -> int:
        return len(self.utterances)

    def admit(self, utterance: Utterance, expected: int) -> None:
        """Gives the utterance a slot; `expected`: how many are about to take one, this one included."""
        if self.decoder is None:
            all_at_once = self._graphs or not self._tts.talker.transformer.slots_grow
            slots = self.size if all_at_once else min(self.size, expected)
            self.decoder = Decoder(self._tts, (), self._sampling, graphs=self._graphs, slots=slots)
        self.decoder.open(utterance.request.seed, utterance.request.sampling)
        utterance.timing.lap("queue")
        self.utterances.append(utterance)

    def prepare(self) -> bool:
        """Reads one piece of a prompt; the whole of all prompts, several at once, where nobody waits for a frame."""
        worked = False
        while True:
            first = next((slot for slot, utterance in enumerate(self.utterances) if not utterance.started), None)
            if first is None:
                return worked
            speaking = any(utterance.started for utterance in self.utterances)
            self._prepare_piece(first, self.utterances[first : first + 1] if speaking else self._alike(first))
            worked = True
            if speaking:
                return worked

    def frame(self) -> bool:
        """One frame of each utterance that can go on; False when there is none."""
        texts = self._texts()
        if not texts:
            return False
        self._move_to_front(texts)
        going, decoder = self.utterances[: len(texts)], self._open_decoder()
        for utterance in going:
            utterance.timing.lap("other")
        codes, ended = decoder.step(torch.stack([texts[utterance] for utterance in going]))
        self._unread.append((going, codes.clone(), ended.clone()))
        for utterance in going:
            utterance.timing.lap("frames")
        return True

    @property
    def must_read(self) -> bool:
        """Whether `read` may find the end of an utterance or the last frame of a chunk."""
        if not self._unread:
            return False
        return self._on_cpu or any(self._will_be_due(utterance) for utterance in self.utterances)

    def read(self) -> list[Utterance]:
        """Brings the ends of the frames since the last time to the host, and the codes to their utterances, which it
        gives; those that are over leave."""
        blocks, self._unread = self._unread, []
        if not blocks:
            return []
        flags = iter(torch.cat([ended for _, _, ended in blocks]).tolist())
        for utterances, codes, _ in blocks:
            for utterance, frame, end in zip(utterances, codes, flags, strict=False):
                if utterance.spoken:
                    continue
                if end:
                    self.leave(utterance)
                    continue
                utterance.frames += 1
                utterance.codes.append(frame)
                if utterance.guard.reached(utterance.frames, utterance.request.text.count):
                    utterance.cut = True
                    self.leave(utterance)
        return list(dict.fromkeys(chain.from_iterable(utterances for utterances, _, _ in blocks)))

    def leave(self, utterance: Utterance) -> None:
        """Frees the utterance's slot."""
        utterance.spoken = True
        utterance.request.text.close()
        if utterance not in self.utterances:
            return
        slot = self.utterances.index(utterance)
        self._open_decoder().close(slot)
        self.utterances[slot] = self.utterances[-1]
        self.utterances.pop()
        if not self.utterances and not self._graphs:
            self.decoder = None

    def abandon(self) -> None:
        """Drops all utterances and the decoder, whose state is unknown."""
        self.utterances, self._unread, self.decoder = [], [], None

    def _open_decoder(self) -> Decoder:
        assert self.decoder is not None
        return self.decoder

    def _alike(self, first: int) -> list[Utterance]:
        """The utterances from slot `first` on of whose prompts as much has been read as of the first one's."""
        read = self.utterances[first].read
        return list(takewhile(lambda each: not each.started and each.read == read, self.utterances[first:]))

    def _prepare_piece(self, first: int, utterances: list[Utterance]) -> None:
        """The next piece of the prompts of utterances in neighbouring slots, of which as much has been read before; or
        of the codes that the first of them continues."""
        decoder, one = self._open_decoder(), utterances[0]
        for utterance in utterances:
            utterance.timing.lap("other")
        if one.read < len(one.request.prompt.embeds):
            start = one.read
            pieces = [each.request.prompt.embeds[start : start + PREFILL_PIECE] for each in utterances]
            decoder.prefill(first, pieces)
            for utterance, piece in zip(utterances, pieces, strict=True):
                utterance.read += len(piece)
        elif one.before:
            one.codec.decode(one.before.pop(0)[None])
        for slot, utterance in enumerate(utterances, first):
            if utterance.read == len(utterance.request.prompt.embeds) and not utterance.before:
                decoder.start(slot, utterance.request.prompt.last)
                utterance.started = True
            utterance.timing.lap("prefill")

    def _texts(self) -> dict[Utterance, Tensor]:
        """The next text embedding of each utterance that can go on."""
        texts: dict[Utterance, Tensor] = {}
        for utterance in list(self.utterances):
            if not utterance.started:
                continue
            utterance.timing.lap(utterance.waits_for or "other")
            utterance.waits_for = None
            if utterance.unheard:
                utterance.waits_for = "unheard"
            elif not utterance.request.text.ready():
                utterance.waits_for = "stalled"
            if utterance.waits_for is not None:
                continue
            try:
                texts[utterance] = utterance.request.text.take()
            except Exception as error:  # its own producer's: no other utterance has to do with it
                utterance.error = error
                self.leave(utterance)
            utterance.timing.lap("text")
        return texts

    def _move_to_front(self, wanted: Iterable[Utterance]) -> None:
        """Swaps utterances so that the wanted ones have the first slots."""
        chosen, slots = set(wanted), self.utterances
        behind = [slot for slot in range(len(chosen), len(slots)) if slots[slot] in chosen]
        for slot in range(len(chosen)):
            if slots[slot] not in chosen:
                other = behind.pop()
                self._open_decoder().swap(slot, other)
                slots[slot], slots[other] = slots[other], slots[slot]

    def _will_be_due(self, utterance: Utterance) -> bool:
        unread = sum(utterance in utterances for utterances, _, _ in self._unread)
        limit = utterance.guard.limit(utterance.request.text.count)
        return len(utterance.codes) + unread >= utterance.size or utterance.frames + unread >= limit
