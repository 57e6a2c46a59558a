"""Batches of text and codes in the official layout, with what the teacher knows of their timing."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import bpe
import numpy as np
import torch
from codebooks import GROUPS, QUARTERS, quarters
from corpus import read_texts, shard_numbers
from safetensors.torch import load_file
from talker_model import BOS, EOS, NONE, PAD
from text_ids import TextIds
from token_splitting import TokenSplitter
from torch import Tensor

SPLIT = 0.05
"""Share of the tokens that are split in training, in half of the utterances."""


@dataclass(frozen=True)
class Utterance:
    ids: list[int]
    codes: Tensor
    """int16 (F, 16)."""
    places: Tensor
    """float32 (F, 2): about the first and the last character that sound in the frame."""
    phones: Tensor
    """uint8 (F, 4): the phone in each quarter of the frame."""


@dataclass(frozen=True)
class Batch:
    """Channels and targets after the opening, right-padded to S; NONE where there is nothing."""

    text: Tensor
    """(B, S)."""
    codec: Tensor
    """(B, S): codebook 0 or a special code."""
    rest: Tensor
    """(B, S, 15)."""
    targets: Tensor
    """(B, S, 16): the frame that follows."""
    guide: Tensor
    """(B, S, 2): first and last position, counted with the opening, of the text that sounds in the next frame."""
    phones: Tensor
    """(B, S, 4) of the frame that follows."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.text, self.codec, self.rest, self.targets, self.guide, self.phones))

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(each.to(device, non_blocking=True) for each in self))


def timing(phones: Tensor, ends: Tensor, spans: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Characters (F, 2) and phones (F, 4) of each frame of an utterance, from its phones (P,), ends and words' spans.

    A word's phones share its characters evenly; a letter before and after each counts with it.
    """
    changed = torch.ones(len(spans), dtype=torch.bool)
    changed[1:] = (spans[1:] != spans[:-1]).any(1)
    word = changed.cumsum(0) - 1
    size = torch.bincount(word)[word]
    place = torch.arange(len(word)) - torch.nonzero(changed).flatten()[word]
    share = (spans[:, 1] - spans[:, 0]) / size
    low = spans[:, 0] + share * place - 1.0
    which = quarters(ends, frames)
    characters = torch.stack((low[which[:, 0]], (low + share + 1.999)[which[:, -1]]), 1)
    return characters, phones[which]


def covering(starts: Tensor, places: Tensor) -> Tensor:
    """int64 (F, 2): first and last token that hold the characters `places` (F, 2), by the tokens' first characters."""
    tokens = (torch.searchsorted(starts.float(), places, right=True) - 1).clamp_min(0)
    return torch.stack((tokens[:, 0], tokens.amax(1)), 1)


class Corpus:
    """The utterances of all complete shards of a folder."""

    def __init__(self, folder: Path, tts: Path, workers: int = 0) -> None:
        """Read by so many processes, by this one where they are 0."""
        vocabulary, merges = bpe.read(tts)
        self.ids = TextIds.from_folder(tts)
        self.tokenizer, self.splitter = bpe.tokenizer(merges), TokenSplitter(vocabulary, merges)
        with ProcessPoolExecutor(max(1, workers)) as pool:
            mapped = partial(pool.map, chunksize=8) if workers else map
            shards = list(mapped(partial(self.read, folder), shard_numbers(folder)))
        self.utterances = [Utterance(ids, *map(torch.from_numpy, times)) for shard in shards for ids, *times in shard]

    def read(self, folder: Path, number: int) -> list[tuple[list[int], np.ndarray, np.ndarray, np.ndarray]]:
        """The utterances of one shard, as arrays: they go from process to process cheaply."""
        codes = load_file(folder / f"codes-{number:04d}.safetensors")
        times = load_file(folder / f"phones-{number:04d}.safetensors")
        encoded = self.tokenizer.encode_batch(read_texts(folder, number))
        bounds, limits = codes["offsets"].tolist(), times["offsets"].tolist()
        made = []
        for i, each in enumerate(encoded):
            part = slice(limits[i], limits[i + 1])
            frames = bounds[i + 1] - bounds[i]
            places, phones = timing(times["phones"][part], times["ends"][part], times["spans"][part].long(), frames)
            made.append((each.ids, codes["codes"][bounds[i] : bounds[i + 1]].numpy(), places.numpy(), phones.numpy()))
        return made

    def batch(self, numbers: list[int], streaming: bool, generator: torch.Generator | None = None) -> Batch:
        """The utterances of these numbers; with a generator tokens of half of them are split."""
        columns = [self.columns(self.utterances[n], streaming, generator) for n in numbers]
        # Few different lengths: the sizes of the matrices repeat.
        longest = -(-max(len(column[0]) for column in columns) // 8) * 8
        stacked = []
        for which, fill in enumerate((self.ids.pad, NONE, NONE, NONE, NONE, NONE)):
            parts = [column[which] for column in columns]
            out = parts[0].new_full((len(parts), longest, *parts[0].shape[1:]), fill)
            for row, part in zip(out, parts, strict=True):
                row[: len(part)] = part
            stacked.append(out)
        return Batch(*stacked)

    def draw(self, size: int, frames: int, held_out: int, step: int) -> list[int]:
        """Utterances of similar length, at most `size` and about `frames` frames, drawn by the step number alone."""
        generator = torch.Generator().manual_seed(step)
        pool = torch.randint(held_out, len(self.utterances), (size * 8,), generator=generator).tolist()
        pool.sort(key=lambda n: len(self.utterances[n].codes))
        start = int(torch.randint(8, (1,), generator=generator)) * size
        longest = len(self.utterances[pool[start + size - 1]].codes)
        return pool[start : start + min(size, max(1, frames // longest))]

    def columns(self, utterance: Utterance, streaming: bool, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """The channels of one utterance after the opening, in the official layout."""
        ids, codes = utterance.ids, utterance.codes.long()
        if generator is not None and torch.rand((), generator=generator) < 0.5:
            ids = self.splitter.split(ids, SPLIT, generator)
        frames = len(codes)
        if streaming:
            text, codec, rows = [], [], [*ids, self.ids.eos][: frames + 1]
        else:
            text, codec, rows = [*ids, self.ids.eos], [PAD] * (len(ids) + 1), []
        first = len(text)
        rows = rows + [self.ids.pad] * (frames + 1 - len(rows))
        text_channel = torch.tensor(text + rows)
        codec_channel = torch.cat((torch.tensor([*codec, BOS], dtype=torch.long), codes[:, 0]))
        size = len(text_channel)
        rest = torch.full((size, GROUPS - 1), NONE)
        rest[first + 1 :] = codes[:, 1:]
        targets = torch.full((size, GROUPS), NONE)
        targets[first : first + frames] = codes
        targets[first + frames, 0] = EOS
        guide = torch.full((size, 2), NONE)
        guide[first : first + frames] = covering(self.splitter.starts(ids), utterance.places) + len(self.ids.opening)
        phones = torch.full((size, QUARTERS), NONE)
        phones[first : first + frames] = utterance.phones.long()
        return text_channel, codec_channel, rest, targets, guide, phones
