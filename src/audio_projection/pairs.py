"""Pairs of a text and the codes that speak it, and the folder that keeps them between runs.

A folder of pairs grows by whole parts: `part-00000.safetensors` (codes int16, one utterance after another, and the
x-vectors, if any) and `part-00000.json` (texts and lengths), which is written last and makes the part count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audio_projection.checkpoint import read_json, read_tensors, write_json, write_tensors
from audio_projection.errors import AudioProjectionError

FORMAT = "audio-projection-pairs"
VERSION = 1


@dataclass(frozen=True)
class Pair:
    """One training example."""

    id: str
    text: str
    codes: Tensor  # (T, G) int64
    voice: str | Tensor | None  # a named speaker, an x-vector (E,) float32, or none
    speaker: str | None = None  # the corpus's name of who speaks


class PairFolder:
    """Pairs on the disk, all made under the same `conditions` (models, voice, seed ...)."""

    def __init__(self, folder: str | Path, conditions: dict[str, Any] | None = None) -> None:
        """`conditions` None: take the folder as it is (shipped pairs); it must exist then.

        Raises AudioProjectionError for a foreign folder, or one made under other conditions.
        """
        self.folder = Path(folder)
        index = self.folder / "pairs.json"
        if index.is_file():
            _check_index(index, conditions)
        elif conditions is None:
            raise AudioProjectionError(f"no training pairs in {self.folder}: pairs.json is missing; set data.path")
        else:
            write_json(index, {"format": FORMAT, "version": VERSION, "conditions": conditions})

    def parts(self) -> list[str]:
        """Names of the finished parts, in order."""
        return sorted(path.stem for path in self.folder.glob("part-*.json"))

    def has(self, part: int) -> bool:
        return (self.folder / f"part-{part:05d}.json").is_file()

    def add(self, pairs: Sequence[Pair], part: int | None = None) -> None:
        """Writes one part, the next or the one of that number; x-vectors must be there for all or for none."""
        if part is None:
            part = int(self.parts()[-1].split("-")[1]) + 1 if self.parts() else 0
        vectors = [pair.voice for pair in pairs if isinstance(pair.voice, Tensor)]
        assert len(vectors) in (0, len(pairs)), "x-vectors for all pairs of a part, or for none"
        name = self.folder / f"part-{part:05d}"
        tensors = {}
        if pairs:
            tensors["codes"] = torch.cat([pair.codes for pair in pairs]).to(torch.int16)
        if vectors:
            tensors["voices"] = torch.stack(vectors).float()
        write_tensors(name.with_suffix(".safetensors"), tensors)
        write_json(name.with_suffix(".json"), [_entry(pair) for pair in pairs])

    def read(self) -> list[Pair]:
        """All pairs, part after part; AudioProjectionError for a damaged part."""
        return [pair for part in self.parts() for pair in self._read_part(part)]

    def _read_part(self, part: str) -> list[Pair]:
        entries, tensors = read_json(self.folder / f"{part}.json"), read_tensors(self.folder / f"{part}.safetensors")
        try:
            lengths = [entry["frames"] for entry in entries]
            codes = tensors["codes"].long().split(lengths) if entries else ()
            voices = tensors.get("voices")
            return [
                Pair(e["id"], e["text"], codes[i], e["voice"] if voices is None else voices[i], e["speaker"])
                for i, e in enumerate(entries)
            ]
        except (KeyError, TypeError, RuntimeError, IndexError) as error:
            raise AudioProjectionError(
                f"{self.folder / part}.json and .safetensors do not fit together; delete both to make them again"
            ) from error


def seeded_digest(seed: int, text: str) -> str:
    """A hexadecimal name for a text, another one for each seed: for names, and for orders that are not sorted ones."""
    return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()


def _entry(pair: Pair) -> dict[str, Any]:
    voice = pair.voice if isinstance(pair.voice, str) else None
    return {"id": pair.id, "text": pair.text, "frames": len(pair.codes), "voice": voice, "speaker": pair.speaker}


def _check_index(path: Path, conditions: dict[str, Any] | None) -> None:
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        raise AudioProjectionError(f"{path} does not belong to training pairs of this program; choose another folder")
    if conditions is not None and record.get("conditions") != conditions:
        raise AudioProjectionError(
            f"the pairs in {path.parent} were made otherwise; delete that folder to make them anew"
        )
