"""Feature extraction: from prepared cuts to a folder of training pairs with codes, x-vectors and LLM states.

The output is a `PairFolder`; its part i is made from shard i of the prepared corpus, with the same result in any
process. Recordings that cannot be encoded are listed in `dropped/00000.json` by part, and at the end in `dropped.tsv`.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from audio_projection.alignment.token_states import chunks
from audio_projection.data import cached_states
from audio_projection.data.cached_states import CachedStates
from audio_projection.data.corpora.checks import read_audio, unusable
from audio_projection.data.corpora.cuts import read_cuts
from audio_projection.data.corpora.encoder import RecordingEncoder
from audio_projection.data.corpora.items import Dropped, Reason, Recording, Unusable, printable
from audio_projection.data.corpora.prepare import PreparedCorpus
from audio_projection.data.corpora.report import write_dropped
from audio_projection.data.corpora.workers import run_shards
from audio_projection.data.pairs import Pair, PairFolder
from audio_projection.devices import choose_device
from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import remove_unfinished, write_json
from audio_projection.files.json_reader import read_json
from audio_projection.files.locations import find_tts
from audio_projection.files.progress import shown, size_in_words
from audio_projection.models import load_reading_llm, use_threads
from audio_projection.text.input_text import Reading, as_spoken

if TYPE_CHECKING:
    from audio_projection.config import Config, DataConfig
    from audio_projection.llm.language_model import LanguageModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MachineShare:
    """The parts that one of several machines makes: every `count`-th one, starting at `index`."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> MachineShare:
        """Parses "2/8"; None: torchrun's environment (RANK, WORLD_SIZE) if there is one, else all parts."""
        if text is None:
            return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise AudioProjectionError(
                f"cannot understand the part {text!r}: give for example 2/8, the second of eight"
            )
        return cls(int(index) - 1, int(count))

    def has(self, part: int) -> bool:
        """Whether this machine makes that part."""
        return part % self.count == self.index


class Extractor:
    """Makes pairs of recordings with frozen encoders, and with the LLM states of their texts unless `llm` is None."""

    def __init__(
        self, encoder: RecordingEncoder, llm: LanguageModel | None, reading: Reading | str, batch: int
    ) -> None:
        """`batch`: texts that the LLM reads at once."""
        self.encoder, self.llm, self.reading, self._batch = encoder, llm, reading, batch

    @classmethod
    def from_config(cls, config: Config, states: bool, number: int = 0) -> Extractor:
        """Loads the models for the process of that number, on a GPU of its own where there are several."""
        config = config.model_copy(update={"device": _device(config.device, number)})
        use_threads(config.threads or 1)
        encoder = RecordingEncoder.from_pretrained(find_tts(config), choose_device(config.device))
        return cls(encoder, load_reading_llm(config) if states else None, Reading.from_config(config), config.fit.batch)

    @property
    def conditions(self) -> dict[str, Any]:
        """Everything that the pairs depend on besides the corpus."""
        made = {"source": "features", **self.encoder.conditions}
        if self.llm is not None:
            made["states"] = cached_states.conditions(self.llm, self.reading)
        return made

    def make_part(self, corpus: PreparedCorpus, out: Path, part: int) -> None:
        """Encodes one shard and writes its pairs and its dropped recordings."""
        dropped: list[Dropped] = []
        pairs: list[Pair] = []
        for recording in read_cuts(corpus.folder, part):
            try:
                pairs.append(self._pair(recording, corpus.limits))
            except Unusable as reason:
                dropped.append(reason.dropping(recording))
        file = _dropped_file(out, part)
        remove_unfinished(file.parent, file.name)
        write_json(file, [[*map(printable, item.cells)] for item in dropped])
        PairFolder(out).add([*self._with_states(pairs)], part)

    def _pair(self, recording: Recording, limits: DataConfig) -> Pair:
        with unusable(Reason.unreadable):
            codes, voice = self.encoder.encode(read_audio(recording, limits))
        return Pair(recording.id, recording.text, codes, voice, recording.speaker)

    def _with_states(self, pairs: list[Pair]) -> Iterator[Pair]:
        if self.llm is None:
            yield from pairs
            return
        for group in chunks(pairs, self._batch):
            texts = [as_spoken(pair.text, self.reading) for pair in group]
            for pair, values in zip(group, cached_states.compute(self.llm, texts), strict=True):
                yield replace(pair, states=CachedStates(values, {}))


def extract(prepared: Path, out: Path, config: Config, share: MachineShare, processes: int, states: bool) -> str:
    """Makes the unfinished parts of `out` in this machine's share; returns a line that says what is finished.

    Raises AudioProjectionError for an unfinished corpus, a folder that was made otherwise, or a disk that is too small.
    """
    if states and config.llm.layers == "probe":
        raise AudioProjectionError(
            "llm.layers is probe, which chooses the layer in training: set llm.layers to a number (or last) to keep "
            "its states"
        )
    corpus = PreparedCorpus(prepared)
    _check_place(corpus)
    extractor = Extractor.from_config(config, states)
    conditions = {"parts": corpus.shards, "corpus": corpus.digest, **extractor.conditions}
    folder = PairFolder(out, conditions)
    missing = [part for part in folder.missing() if share.has(part)]
    _announce(corpus, extractor, missing, out)
    make: Callable[[int], Callable[[int], None]]
    if min(processes, len(missing)) > 1:
        del extractor
        make = partial(_load_and_make, corpus, out, config, states)
    else:
        make = partial(_already_loaded, partial(extractor.make_part, corpus, out))
    for _ in shown(run_shards(make, missing, processes), "encoding the recordings", len(missing)):
        pass
    return _finish(folder)


def _check_place(corpus: PreparedCorpus) -> None:
    """Raises AudioProjectionError when none of the first recordings is where it was: the corpus was moved."""
    first = next((found for shard in range(corpus.shards) if (found := read_cuts(corpus.folder, shard))), [])
    if first and not any(recording.audio.is_file() for recording in first):
        raise AudioProjectionError(
            f"the recordings of {corpus.folder} are not where they were, for instance {first[0].audio}: move the "
            "corpus back, or prepare it again from its new place"
        )


def _load_and_make(
    corpus: PreparedCorpus, out: Path, config: Config, states: bool, number: int
) -> Callable[[int], None]:
    """For worker process `number`: models of its own."""
    return partial(Extractor.from_config(config, states, number).make_part, corpus, out)


def _already_loaded(work: Callable[[int], None], number: int) -> Callable[[int], None]:
    """For this process: the models that it has."""
    return work


def _device(device: str, number: int) -> str:
    if device not in {"auto", "cuda"} or not torch.cuda.is_available():
        return device
    return f"cuda:{(int(os.environ.get('LOCAL_RANK', '0')) + number) % torch.cuda.device_count()}"


def _announce(corpus: PreparedCorpus, extractor: Extractor, parts: list[int], out: Path) -> None:
    """Logs how much will be written; raises AudioProjectionError when the disk has no room for it."""
    if not parts:
        return
    codec = extractor.encoder.codec
    seconds = corpus.seconds * len(parts) / corpus.shards
    size = int(seconds * codec.sample_rate / codec.samples_per_frame * codec.code_groups * torch.int16.itemsize)
    words = f"codes of about {seconds / 3600:.1f} h: {size_in_words(size)}"
    llm = extractor.llm
    if llm is not None:
        tokens = 0
        for part in shown(parts, "counting tokens", len(parts)):
            texts = [as_spoken(item.text, extractor.reading) for item in read_cuts(corpus.folder, part)]
            tokens += sum(len(llm.tokenize(text)) for text in texts)
        needed = tokens * len(llm.layers) * llm.hidden_size * cached_states.BYTES
        size += needed
        words += f"; states of {tokens:,} tokens: {size_in_words(needed)}"
    log.info("features: %s, into %s", words, out)
    free = shutil.disk_usage(out).free
    if size > free:
        raise AudioProjectionError(
            f"not enough room at {out}: {size_in_words(size)} needed, {size_in_words(free)} free; make room, choose "
            "another folder, or leave --states out: training then computes them"
        )


def _finish(folder: PairFolder) -> str:
    missing, parts = len(folder.missing()), folder.conditions["parts"]
    if missing:
        return f"{parts - missing} of {parts} parts are in {folder.folder}; the other machines make the rest"
    dropped = [
        Dropped(name, Path(path), Reason(reason), detail)
        for part in range(parts)
        for name, path, reason, detail in read_json(_dropped_file(folder.folder, part))
    ]
    write_dropped(folder.folder / "dropped.tsv", dropped)
    pairs = folder.read()
    left_out = f", {len(dropped)} left out (dropped.tsv)" if dropped else ""
    return f"{len(pairs):,} pairs are in {folder.folder}{left_out}: train with data.source=pairs data.path=..."


def _dropped_file(out: Path, part: int) -> Path:
    return out / "dropped" / f"{part:05d}.json"
