"""Tiny GGUF files for tests, and ways to damage them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch

from audio_projection.gguf.llm_file import write_llm
from audio_projection.gguf.projector_file import write_projector
from audio_projection.gguf.reader import SEAL
from audio_projection.projector import Projector, ProjectorInfo, build_projector
from helpers.tiny_llm import make_model, make_tokenizer


def tiny_projector(kind: str = "linear", **entries: object) -> Projector:
    torch.manual_seed(0)
    projector = build_projector(ProjectorInfo(**{"kind": kind, "llm_size": 64, "tts_size": 32, **entries}))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in projector.parameters():
            parameter.normal_()
    return projector


def projector_file(folder: Path) -> Path:
    return write_projector(tiny_projector(), folder / "projector.gguf", "F16").path


def tiny_llm_folder(folder: Path) -> Path:
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def llm_file(folder: Path, wanted: str = "F32") -> Path:
    return write_llm(tiny_llm_folder(folder / "llm"), folder / f"llm-{wanted}.gguf", "tiny", wanted).path


def unsealed(path: Path) -> Path:
    """A copy without the header's hash, as another program would have written it."""
    other = path.with_name(f"foreign-{path.name}")
    other.write_bytes(path.read_bytes().replace(SEAL.encode(), SEAL.replace("seal", "note").encode()))
    return other


def damaged(data: bytes, header: int, count: int, seed: int) -> Iterator[bytes]:
    """`count` mutations of a file whose tensor data begins at byte `header`."""
    chance = random.Random(seed)
    makers = [_cut, _flipped, _flipped, _flipped, _absurd, _foreign]
    for number in range(count):
        yield makers[number % len(makers)](data, header, chance)


def _cut(data: bytes, header: int, chance: random.Random) -> bytes:
    return data[: chance.choice([chance.randrange(header), chance.randrange(len(data) - 32), 0, 4, 8, 16, 24, header])]


def _flipped(data: bytes, header: int, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        changed[chance.randrange(header)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _absurd(data: bytes, header: int, chance: random.Random) -> bytes:
    """Overwrites eight bytes somewhere in the header with an extreme number."""
    place = chance.choice([8, 16, chance.randrange(24, header - 8)])
    number = chance.choice([0, 2**31, 2**32 + 1, 2**62, 2**63, 2**64 - 1])
    return data[:place] + number.to_bytes(8, "little") + data[place + 8 :]


def _foreign(data: bytes, header: int, chance: random.Random) -> bytes:
    noise = bytes(chance.randrange(256) for _ in range(200))
    return chance.choice([noise, b"GGUF" + noise, b"PK\x03\x04" + data[4:], data[::-1]])
