"""Batches of text and codes in the official layout, with what flite knows of their timing."""

import bisect
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from codebooks import GROUPS, QUARTERS, quarters
from safetensors.torch import load_file
from talker_model import BOS, EOS, NONE, PAD, PREFIX_TEXT, TEXT_EOS, TEXT_PAD
from torch import Tensor
from transformers import Qwen2TokenizerFast


@dataclass(frozen=True)
class Utterance:
    ids: list[int]
    codes: Tensor
    """int16 (F, 4)."""
    tokens: Tensor
    """int16 (F, 2): first and last text token that sound in the frame."""
    phones: Tensor
    """uint8 (F, 4): the phone in each quarter of the frame."""


@dataclass(frozen=True)
class Batch:
    """Channels and targets after the prefix, right-padded to S; NONE where there is nothing."""

    text: Tensor
    """(B, S)."""
    codec: Tensor
    """(B, S): codebook 0 or a special code."""
    rest: Tensor
    """(B, S, 3)."""
    targets: Tensor
    """(B, S, 4): the frame that follows."""
    guide: Tensor
    """(B, S, 2): first and last position, counted with the prefix, of the text that sounds in the next frame."""
    phones: Tensor
    """(B, S, 4) of the frame that follows."""


def timing(text: str, starts: list[int], shard: dict[str, Tensor], part: slice, frames: int) -> tuple[Tensor, Tensor]:
    """Tokens (F, 2) and phones (F, 4) of each frame; `starts`: the first character of each token."""
    phones = shard["phones"][part]
    spans = shard["spans"][part].tolist()
    chars: list[tuple[float, float]] = []
    for i, span in enumerate(spans):
        first, last = i, i
        while first > 0 and spans[first - 1] == span:
            first -= 1
        while last + 1 < len(spans) and spans[last + 1] == span:
            last += 1
        share = (span[1] - span[0]) / (last - first + 1)
        chars.append((span[0] + share * (i - first) - 1.0, span[0] + share * (i - first + 1) + 0.999))
    which = quarters(phones, shard["ends"][part], frames)
    tokens = []
    for frame in which.tolist():
        low, high = chars[frame[0]][0], chars[frame[-1]][1]
        first = max(0, bisect.bisect_right(starts, low) - 1)
        tokens.append((first, max(first, bisect.bisect_right(starts, high) - 1)))
    return torch.tensor(tokens, dtype=torch.int16), phones[which]


class Corpus:
    """Utterances of the shards that exist; new ones are picked up by `refresh`."""

    def __init__(self, folder: Path, tokenizer: Qwen2TokenizerFast) -> None:
        self.folder, self.tokenizer, self.known = folder, tokenizer, 0
        self.utterances: list[Utterance] = []

    def refresh(self) -> None:
        """Read the shards that have appeared, in order."""
        while (path := self.folder / f"codes-{self.known:04d}.safetensors").exists():
            self.utterances += self.read(path, self.folder / f"speech-{self.known:04d}")
            self.known += 1

    def read(self, path: Path, speech: Path) -> list[Utterance]:
        coded, shard = load_file(path), load_file(speech.with_suffix(".safetensors"))
        texts = json.loads(speech.with_suffix(".json").read_text())
        encoded = self.tokenizer(texts, return_offsets_mapping=True)
        bounds, limits = coded["offsets"].tolist(), shard["phone_offsets"].tolist()
        made = []
        for i, text in enumerate(texts):
            codes = coded["codes"][bounds[i] : bounds[i + 1]].clone()
            starts = [start for start, _ in encoded.offset_mapping[i]]
            tokens, phones = timing(text, starts, shard, slice(limits[i], limits[i + 1]), len(codes))
            made.append(Utterance(encoded.input_ids[i], codes, tokens, phones))
        return made

    def batch(self, numbers: list[int], streaming: bool) -> Batch:
        columns = [sequence(self.utterances[n], streaming) for n in numbers]
        # Few different lengths: the sizes of the matrices repeat.
        longest = -(-max(len(column[0]) for column in columns) // 8) * 8
        stacked = []
        for which, fill in enumerate((TEXT_PAD, NONE, NONE, NONE, NONE, NONE)):
            parts = [column[which] for column in columns]
            out = parts[0].new_full((len(parts), longest, *parts[0].shape[1:]), fill)
            for row, part in zip(out, parts, strict=True):
                row[: len(part)] = part
            stacked.append(out)
        return Batch(*stacked)

    def draw(self, size: int, held_out: int, step: int) -> list[int]:
        """Utterances of similar length, drawn by the step number alone."""
        generator = torch.Generator().manual_seed(step)
        pool = torch.randint(held_out, len(self.utterances), (size * 8,), generator=generator).tolist()
        pool.sort(key=lambda n: len(self.utterances[n].codes))
        start = int(torch.randint(8, (1,), generator=generator)) * size
        return pool[start : start + size]


def sequence(utterance: Utterance, streaming: bool) -> tuple[Tensor, ...]:
    """The channels of one utterance after the prefix, in the official layout."""
    ids, codes = utterance.ids, utterance.codes.long()
    frames = len(codes)
    if streaming:
        text, codec, rows = [], [], [*ids, TEXT_EOS][: frames + 1]
    else:
        text, codec, rows = [*ids, TEXT_EOS], [PAD] * (len(ids) + 1), []
    first = len(text)
    rows = rows + [TEXT_PAD] * (frames + 1 - len(rows))
    text_channel = torch.tensor(text + rows)
    codec_channel = torch.cat((torch.tensor([*codec, BOS], dtype=torch.long), codes[:, 0]))
    size = len(text_channel)
    rest = torch.full((size, GROUPS - 1), NONE)
    rest[first + 1 :] = codes[:, 1:]
    targets = torch.full((size, GROUPS), NONE)
    targets[first : first + frames] = codes
    targets[first + frames, 0] = EOS
    guide = torch.full((size, 2), NONE)
    guide[first : first + frames] = utterance.tokens.long() + len(PREFIX_TEXT)
    phones = torch.full((size, QUARTERS), NONE)
    phones[first : first + frames] = utterance.phones.long()
    return text_channel, codec_channel, rest, targets, guide, phones
