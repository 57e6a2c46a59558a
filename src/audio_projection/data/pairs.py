"""Training pairs of a text and its speech codes, and the folder that stores them.

A folder of pairs consists of parts: `part-00000.safetensors` (codes int16, one utterance after another, and the
x-vectors, if any), `part-00000.states.safetensors` (the LLM states of the texts, if they are cached) and
`part-00000.json` (texts and lengths). The last of them is written last: a part without it is not finished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audio_projection.data.cached_states import CachedStates
from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import remove_unfinished, write_json
from audio_projection.files.json_reader import read_json
from audio_projection.files.tensors import map_tensors, read_tensors, write_tensors

FORMAT = "audio-projection-pairs"
VERSION = 1


IN_WORDS = {
    "texts": "other texts:",
    "tts": "weights of another speech model:",
    "codec": "weights of another codec:",
    "voices": "weights of another speaker encoder:",
    "corpus": "another prepared corpus:",
    "llm": "weights of another language model:",
    "tokenizer": "another tokenizer:",
}
"""What differs when the hash of a condition does."""


@dataclass(frozen=True)
class Pair:
    """One training pair: a text, the codes that speak it, and the voice."""

    id: str
    text: str
    codes: Tensor  # (T, G) int16, converted to int64 batch by batch
    voice: str | Tensor | None  # a named speaker, an x-vector (E,) float32, or none
    speaker: str | None = None  # the corpus's name of the speaker
    states: CachedStates | None = None  # of the text, when they are cached


class PairFolder:
    """A folder of pairs, all made under the same `conditions` (models, voice, seed ...)."""

    def __init__(self, folder: str | Path, conditions: dict[str, Any] | None = None) -> None:
        """Opens the folder, or makes it. `conditions` None: it must exist, whatever its conditions are.

        Two conditions are read here: "parts", how many there are when all are made, and "states", the conditions of the
        cached LLM states. Raises AudioProjectionError for a foreign folder, or one made under other conditions.
        """
        self.folder = Path(folder)
        index = self.folder / "pairs.json"
        if conditions is None and (self.folder / "prepare.json").is_file() and not index.is_file():
            raise AudioProjectionError(
                f"{self.folder} is a prepared corpus, not encoded yet: run `audio-projection data features "
                f"{self.folder} OUT`, then train with data.path=OUT"
            )
        if conditions is None and not index.is_file():
            raise AudioProjectionError(f"no training pairs in {self.folder}: pairs.json is missing; set data.path")
        if not index.is_file():
            write_json(index, {"format": FORMAT, "version": VERSION, "conditions": conditions})
        self.conditions = _read_conditions(index)
        if conditions is not None and self.conditions != conditions:
            raise AudioProjectionError(
                f"the pairs in {self.folder} were made otherwise ({_difference(self.conditions, conditions)}); choose "
                "another folder, or delete that one to make them again"
            )

    def parts(self) -> list[str]:
        """Names of the finished parts, in order."""
        return sorted(path.stem for path in self.folder.glob("part-*.json"))

    def has(self, part: int) -> bool:
        """Whether the part of that number is finished."""
        return (self.folder / f"part-{part:05d}.json").is_file()

    def next_part(self) -> int:
        """The number after that of the last part."""
        return int(self.parts()[-1].split("-")[1]) + 1 if self.parts() else 0

    def missing(self) -> list[int]:
        """Numbers of the unfinished parts, in a folder whose conditions say how many there are."""
        return [part for part in range(self.conditions.get("parts", 0)) if not self.has(part)]

    def add(self, pairs: Sequence[Pair], part: int | None = None) -> None:
        """Writes one part, the next or the one of that number; either all pairs have an x-vector or none."""
        part = self.next_part() if part is None else part
        vectors = [pair.voice for pair in pairs if isinstance(pair.voice, Tensor)]
        states = [pair.states.values for pair in pairs if pair.states is not None]
        assert len(vectors) in (0, len(pairs)), "x-vectors for all pairs of a part, or for none"
        assert len(states) in (0, len(pairs)), "states for all pairs of a part, or for none"
        name = f"part-{part:05d}"
        remove_unfinished(self.folder, name)
        tensors = {}
        if pairs:
            tensors["codes"] = torch.cat([pair.codes for pair in pairs]).to(torch.int16)
        if vectors:
            tensors["voices"] = torch.stack(vectors).float()
        write_tensors(self.folder / f"{name}.safetensors", tensors)
        if states:
            write_tensors(self.folder / f"{name}.states.safetensors", {"states": torch.cat(states)})
        write_json(self.folder / f"{name}.json", [_entry(pair) for pair in pairs])

    def read(self) -> list[Pair]:
        """All pairs, part after part; AudioProjectionError for a damaged or an unfinished part."""
        if self.missing():
            raise AudioProjectionError(
                f"{len(self.missing())} of the {self.conditions['parts']} parts in {self.folder} are not made yet; run "
                "`audio-projection data features` again: it goes on where it stopped"
            )
        return [pair for part in self.parts() for pair in self._read_part(part)]

    def _read_part(self, part: str) -> list[Pair]:
        entries, tensors = read_json(self.folder / f"{part}.json"), read_tensors(self.folder / f"{part}.safetensors")
        try:
            codes = tensors["codes"].to(torch.int16).split([entry["frames"] for entry in entries]) if entries else ()
            voices, states = tensors.get("voices"), self._map_states(part, entries)
            return [
                Pair(e["id"], e["text"], codes[i], e["voice"] if voices is None else voices[i], e["speaker"], states[i])
                for i, e in enumerate(entries)
            ]
        except (KeyError, TypeError, RuntimeError, IndexError) as error:
            raise AudioProjectionError(
                f"{self.folder / part}.json and .safetensors do not fit together; delete both to make them again"
            ) from error

    def _map_states(self, part: str, entries: list[dict[str, Any]]) -> list[CachedStates | None]:
        """The cached states of a part's pairs, memory-mapped: read from the disk only when they are used."""
        made_with = self.conditions.get("states")
        if made_with is None or not entries:
            return [None] * len(entries)
        states = map_tensors(self.folder / f"{part}.states.safetensors")["states"]
        return [CachedStates(values, made_with) for values in states.split([entry["tokens"] for entry in entries])]


def seeded_digest(seed: int, text: str) -> str:
    """SHA-256 of seed and text, hexadecimal: for file names, and as a sort key that shuffles reproducibly."""
    return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()


def _entry(pair: Pair) -> dict[str, Any]:
    voice = pair.voice if isinstance(pair.voice, str) else None
    entry = {"id": pair.id, "text": pair.text, "frames": len(pair.codes), "voice": voice, "speaker": pair.speaker}
    return entry if pair.states is None else entry | {"tokens": len(pair.states.values)}


def _read_conditions(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        raise AudioProjectionError(f"{path} does not belong to training pairs of this program; choose another folder")
    conditions = record.get("conditions") or {}
    if not isinstance(conditions, dict) or not _whole(conditions.get("parts", 0), conditions.get("states", {})):
        raise AudioProjectionError(f"{path} is damaged: its conditions are no object of known entries; make it again")
    return conditions


def _whole(parts: object, states: object) -> bool:
    return isinstance(parts, int) and 0 <= parts < 10**6 and isinstance(states, dict)


def _difference(made: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first condition that differs, in words."""
    name = next(name for name in [*wanted, *made] if made.get(name) != wanted.get(name))
    one, other = made.get(name), wanted.get(name)
    if isinstance(one, dict) and isinstance(other, dict):
        return f"{name}: {_difference(one, other)}"
    return f"{IN_WORDS.get(name, name)} {str(one)[:20]}, now {str(other)[:20]}"
