"""Training data: loads pairs of text and codes, splits off the held-out ones, and orders the batches."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from audio_projection.alignment.token_states import chunks
from audio_projection.data.corpora.items import Recording
from audio_projection.data.corpora.layouts import read_recordings, speakable
from audio_projection.data.make_pairs import recorded_pairs, spoken_pairs
from audio_projection.data.pairs import Pair, PairFolder, seeded_digest
from audio_projection.data.speakers import named_speaker
from audio_projection.errors import AudioProjectionError
from audio_projection.files.corpus_folders import LIBRI
from audio_projection.files.fingerprint import fingerprint
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.processes import ALONE, Processes
from audio_projection.text.input_text import Reading
from audio_projection.text.lines import read_lines

if TYPE_CHECKING:
    from audio_projection.config import Config, DataConfig, TTSConfig
    from audio_projection.tts.model import Qwen3TTS

log = logging.getLogger(__name__)

NANO_TEXTS = NANO_FOLDER / "texts.txt"


def load_pairs(config: Config, tts: Qwen3TTS, processes: Processes = ALONE) -> list[Pair]:
    """The training pairs that `config.data` names; those that do not exist yet are made and cached.

    Each of several processes makes its share of them.

    Unusable items are skipped with a warning that names them. Raises AudioProjectionError when none is left.
    """
    data = config.data
    if data.source == "pairs":
        pairs = _ready_pairs(data, config.tts, tts)
    elif data.source == "self":
        texts = _limited(read_texts(data, Reading.from_config(config)), data.limit, config.seed)
        pairs = spoken_pairs(config, tts, texts, _cache(config), processes)
    else:
        recordings = _chosen_recordings(data, config.seed)
        pairs = recorded_pairs(data, config.tts, tts, recordings, _cache(config), processes)
    kept = [pair for pair in pairs if _fits(pair, data, tts.frame_rate)]
    if len(kept) < len(pairs):
        log.info("data: %d of %d utterances are too short or too long", len(pairs) - len(kept), len(pairs))
    if not kept:
        raise AudioProjectionError(
            "no usable training pair: every utterance was unreadable, without text, or not between "
            f"{data.min_seconds:g} and {data.max_seconds:g} s; check data.path and data.texts"
        )
    return kept


def check_data(data: DataConfig) -> None:
    """Raises AudioProjectionError for a folder of ready pairs that is none, before any model is loaded."""
    if data.source == "pairs":
        PairFolder(_path(data))


def read_texts(data: DataConfig, reading: Reading | str) -> list[str]:
    """The lines of `data.texts` as they are spoken, in order, without duplicates.

    Lines that cannot be spoken are skipped with a warning. Raises AudioProjectionError when the file cannot be read.
    """
    if data.texts is None:
        raise AudioProjectionError("data.texts is not set: give a file with a text a line")
    path = NANO_TEXTS if data.texts == "nano" else Path(data.texts)
    numbered = read_lines(path, "texts of data.texts,")
    texts = (speakable(line, f"{path} line {number}", reading) for number, line in numbered)
    return list(dict.fromkeys(text for text in texts if text is not None))


def texts_to_fit(config: Config, pairs: Sequence[Pair], without: Iterable[Pair]) -> list[str]:
    """Texts for the closed-form fit in a seeded order: the transcripts and `data.texts`; never a held-out one."""
    return _texts_to_fit(config, (pair.text for pair in pairs), {pair.text for pair in without})


def transcripts_to_fit(config: Config) -> list[str]:
    """Texts for a fit without training pairs: the corpus's transcripts and `data.texts`; no audio is read."""
    data, reading = config.data, Reading.from_config(config)
    if data.source == "self":
        return _texts_to_fit(config, read_texts(data, reading))
    if data.source == "pairs":
        return _texts_to_fit(config, (pair.text for pair in _as_spoken(PairFolder(_path(data)).read(), reading)))
    spoken = (speakable(item.text, item.id, reading) for item in corpus_recordings(data))
    return _texts_to_fit(config, (text for text in spoken if text is not None))


def _texts_to_fit(config: Config, transcripts: Iterable[str], without: Set[str] = frozenset()) -> list[str]:
    """Transcripts and `data.texts` together, each text once: mixed by the seeded order that the limits cut."""
    given = [] if config.data.texts is None else read_texts(config.data, Reading.from_config(config))
    texts = [text for text in dict.fromkeys((*transcripts, *given)) if text not in without]
    return _limited(texts, config.data.text_limit, config.seed)


def corpus_recordings(data: DataConfig) -> list[Recording]:
    """The recordings of the corpus in `data.path`, unchecked; `data.subset` names a subset of LibriSpeech."""
    return read_recordings(data.source, _path(data), data.subset if data.source in LIBRI else None)


def held_out_count(texts: int, wanted: int) -> int:
    """How many of so many texts are held out: at most a fifth."""
    return min(wanted, texts // 5)


def split_held_out(pairs: Sequence[Pair], count: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training, held out), split by text, so that no held-out text is trained on; at most a fifth of the texts.

    The split depends on the texts and the seed only, not on the order of the pairs.
    """
    texts = sorted({pair.text for pair in pairs}, key=lambda text: seeded_digest(seed, text))
    chosen = set(texts[: held_out_count(len(texts), count)])
    if not chosen:
        log.warning(
            "data: nothing is held out of %d texts, so no held-out loss can be measured: give at least 5", len(texts)
        )
    elif len(chosen) < count:
        log.info(
            "data: %d texts are held out, not %d: a fifth of the %d that there are", len(chosen), count, len(texts)
        )
    return [pair for pair in pairs if pair.text not in chosen], [pair for pair in pairs if pair.text in chosen]


@dataclass(frozen=True)
class BatchOrder:
    """Seeded shuffling with length bucketing: the examples of the micro-batch at any position in the data.

    Each epoch is shuffled by (seed, epoch), so that a resumed run gets the same batches. Within pools of `pool`
    batches examples are sorted by length, so that a batch holds examples of similar length and needs little padding.
    """

    lengths: Sequence[int]
    batch: int
    seed: int
    pool: int = 16

    @property
    def per_epoch(self) -> int:
        """Number of micro-batches in an epoch."""
        return -(-len(self.lengths) // self.batch)

    def at(self, position: int) -> list[int]:
        """Indices of the examples of one micro-batch; the last batch of an epoch may be smaller."""
        epoch, place = divmod(position, self.per_epoch)
        return self.epoch(epoch)[place]

    def epoch(self, epoch: int) -> list[list[int]]:
        """All micro-batches of one epoch; each example is in exactly one of them."""
        generator = random.Random(seeded_digest(self.seed, f"epoch {epoch}"))
        indices = list(range(len(self.lengths)))
        generator.shuffle(indices)
        batches: list[list[int]] = []
        for pool in chunks(indices, self.batch * self.pool):
            batches += chunks(sorted(pool, key=lambda index: (self.lengths[index], index)), self.batch)
        generator.shuffle(batches)
        return batches


class BatchWalk:
    """Iterates over the micro-batches of a `BatchOrder` from a position on, without end; keeps the current epoch."""

    def __init__(self, order: BatchOrder, position: int = 0) -> None:
        self.order, self.position = order, position
        self._epoch, self._batches = -1, [[0]]

    def __next__(self) -> list[int]:
        epoch, place = divmod(self.position, self.order.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self.order.epoch(epoch)
        self.position += 1
        return self._batches[place]

    def __iter__(self) -> Iterator[list[int]]:
        return self


def _as_spoken(pairs: Sequence[Pair], reading: Reading) -> list[Pair]:
    """The pairs with their texts as they are spoken, without those whose text cannot be."""
    texts = [speakable(pair.text, pair.id, reading) for pair in pairs]
    return [replace(pair, text=text) for pair, text in zip(pairs, texts, strict=True) if text is not None]


def _ready_pairs(data: DataConfig, settings: TTSConfig, tts: Qwen3TTS) -> list[Pair]:
    """The pairs in the folder `data.path`; for a TTS without x-vectors, pairs without a speaker get the trained one."""
    groups = tts.config.code_groups
    folder = PairFolder(_path(data))
    _check_encoders(folder, tts)
    pairs = _as_spoken(folder.read(), Reading.of(settings, tts.characters))[: data.limit]
    for pair in pairs:
        if pair.codes.shape[1] != groups:
            raise AudioProjectionError(
                f"the pairs in {data.path} have {pair.codes.shape[1]} code groups, the speech model has {groups}"
            )
    if tts.speaker_encoder is not None or all(isinstance(pair.voice, str) for pair in pairs):
        return pairs
    voice = named_speaker(settings, tts)
    return [pair if isinstance(pair.voice, str) else replace(pair, voice=voice) for pair in pairs]


def _check_encoders(folder: PairFolder, tts: Qwen3TTS) -> None:
    """Raises AudioProjectionError for codes of another codec, or x-vectors of another speaker encoder."""
    encoders = {"codec": ("codec", tts.codec), "voices": ("speaker encoder", tts.speaker_encoder)}
    for name, (what, module) in encoders.items():
        if module is None or name not in folder.conditions:
            continue
        made, now = folder.conditions[name], fingerprint(module)
        if made != now:
            raise AudioProjectionError(
                f"the pairs in {folder.folder} were made with another {what} than that of {tts.name} ({made}, now "
                f"{now}): run `audio-projection data features` with this configuration into another folder, or set "
                "tts.name as it was"
            )


def _chosen_recordings(data: DataConfig, seed: int) -> list[Recording]:
    """All recordings, or a seeded choice of `data.limit` of them, at least one of `data.voice_speaker` among them."""
    recordings = corpus_recordings(data)
    if data.limit is None or len(recordings) <= data.limit:
        return recordings
    order = sorted(recordings, key=lambda item: seeded_digest(seed, item.id))
    order.sort(key=lambda item: item.speaker != data.voice_speaker)
    first = order[:1] if order[0].speaker == data.voice_speaker else []
    rest = sorted(order[len(first) :], key=lambda item: seeded_digest(seed, item.id))
    return sorted([*first, *rest][: data.limit], key=lambda item: item.id)


def _limited(texts: list[str], limit: int | None, seed: int) -> list[str]:
    """The first `limit` texts in a seeded order."""
    return sorted(texts, key=lambda text: seeded_digest(seed, text))[:limit]


def _fits(pair: Pair, data: DataConfig, frame_rate: float) -> bool:
    return len(pair.codes) > 0 and data.min_seconds <= len(pair.codes) / frame_rate <= data.max_seconds


def _path(data: DataConfig) -> Path:
    if data.path is None:
        raise AudioProjectionError(f"data.path is not set: the data source {data.source!r} needs it")
    return Path(data.path)


def _cache(config: Config) -> Path:
    return config.data.cache or config.output_dir / "codes"
