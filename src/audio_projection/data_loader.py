"""Training data: where pairs of text and codes come from, which are held out, and in what order they are taken."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from audio_projection import audio
from audio_projection.errors import AudioProjectionError
from audio_projection.features import chunks
from audio_projection.locations import NANO_FOLDER
from audio_projection.pairs import Pair, PairFolder
from audio_projection.recordings import Recording, read_recordings
from audio_projection.text import check_text
from audio_projection.tts.generate import generate

if TYPE_CHECKING:
    from audio_projection.config import Config, DataConfig
    from audio_projection.tts.model import Qwen3TTS

log = logging.getLogger(__name__)

NANO_TEXTS = NANO_FOLDER / "texts.txt"
_SPOKEN_AT_ONCE = 16  # texts in one batch of the TTS
_RECORDINGS_A_PART = 64


def load_pairs(config: Config, tts: Qwen3TTS) -> list[Pair]:
    """The training pairs that `config.data` names; made and cached on the way where they are not there yet.

    Items that cannot be used are named in a warning and left out. Raises AudioProjectionError when none is left.
    """
    data = config.data
    if data.source == "pairs":
        pairs = _shipped_pairs(data, tts)
    elif data.source == "self":
        pairs = spoken_pairs(config, tts, _limited(read_texts(data), data.limit, config.seed), _cache(config))
    else:
        pairs = recorded_pairs(config, tts, _chosen_recordings(config), _cache(config))
    kept = [pair for pair in pairs if _fits(pair, data, tts.frame_rate)]
    if len(kept) < len(pairs):
        log.info("data: %d of %d utterances are too short or too long", len(pairs) - len(kept), len(pairs))
    if not kept:
        raise AudioProjectionError(
            "no usable training pair: every utterance was unreadable, without text, or not between "
            f"{data.min_seconds:g} and {data.max_seconds:g} s; check data.path and data.texts"
        )
    return kept


def read_texts(data: DataConfig) -> list[str]:
    """The lines of `data.texts`, each once, in order; lines that cannot be spoken are named and left out."""
    if data.texts is None:
        raise AudioProjectionError("data.texts is not set: give a file with a text a line")
    path = NANO_TEXTS if data.texts == "nano" else Path(data.texts)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AudioProjectionError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise AudioProjectionError(f"cannot read the texts {path}: {error.strerror or error}; set data.texts") from None
    texts = (
        _speakable(line, f"{path} line {number}") for number, line in enumerate(lines, 1) if line and not line.isspace()
    )
    return list(dict.fromkeys(text for text in texts if text is not None))


def texts_to_fit(config: Config, pairs: Sequence[Pair], without: Iterable[Pair]) -> list[str]:
    """Texts for the closed-form fit, seeded order: those of `data.texts`, or the transcripts; never a held-out one."""
    data = config.data
    texts = list(dict.fromkeys(pair.text for pair in pairs)) if data.texts is None else read_texts(data)
    excluded = {pair.text for pair in without}
    return _limited([text for text in texts if text not in excluded], data.text_limit, config.seed)


def transcripts_to_fit(config: Config) -> list[str]:
    """Texts for a fit without any pairs: `data.texts`, or the corpus's transcripts, read without the sound."""
    data = config.data
    if data.texts is not None:
        return _limited(read_texts(data), data.text_limit, config.seed)
    if data.source == "pairs":
        texts = [pair.text for pair in PairFolder(_path(data)).read()]
    else:
        spoken = (_speakable(item.text, item.id) for item in read_recordings(data.source, _path(data), data.subset))
        texts = [text for text in spoken if text is not None]
    return _limited(list(dict.fromkeys(texts)), data.text_limit, config.seed)


def split_held_out(pairs: Sequence[Pair], count: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training, held out): by text, so that no held-out text is trained on; at most a fifth of the texts.

    Which are held out depends on the texts and the seed only, not on the order of the pairs.
    """
    texts = sorted({pair.text for pair in pairs}, key=lambda text: _digest(seed, text))
    chosen = set(texts[: min(count, len(texts) // 5)])
    if len(chosen) < count:
        log.info("data: %d texts are held out, not %d: there are only %d", len(chosen), count, len(texts))
    return [pair for pair in pairs if pair.text not in chosen], [pair for pair in pairs if pair.text in chosen]


@dataclass(frozen=True)
class BatchOrder:
    """Which examples make up the micro-batch at any position; the same for every way of getting there.

    Every epoch is shuffled anew by (seed, epoch); neighbours in that order are sorted by length within pools of
    `pool` batches, so that a batch holds examples of like length and needs little padding.
    """

    lengths: Sequence[int]
    batch: int
    seed: int
    pool: int = 16

    @property
    def per_epoch(self) -> int:
        return -(-len(self.lengths) // self.batch)

    def at(self, position: int) -> list[int]:
        """Indices of the examples of one micro-batch; the last of an epoch may be short."""
        epoch, place = divmod(position, self.per_epoch)
        return self.epoch(epoch)[place]

    def epoch(self, epoch: int) -> list[list[int]]:
        """All micro-batches of one epoch; each example is in exactly one of them."""
        generator = random.Random(_digest(self.seed, f"epoch {epoch}"))
        indices = list(range(len(self.lengths)))
        generator.shuffle(indices)
        batches: list[list[int]] = []
        for pool in chunks(indices, self.batch * self.pool):
            batches += chunks(sorted(pool, key=lambda index: (self.lengths[index], index)), self.batch)
        generator.shuffle(batches)
        return batches


class BatchWalk:
    """Micro-batches from a position on; keeps the epoch at hand that it is in."""

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


def spoken_pairs(config: Config, tts: Qwen3TTS, texts: Sequence[str], cache: Path) -> list[Pair]:
    """Pairs whose codes the text-fed TTS itself makes, one cached part for each batch of texts.

    Every part draws from its own seed, so that a run that was stopped goes on to the same codes.
    """
    voice = named_speaker(config, tts)
    conditions = {
        "source": "self",
        "texts": _digest(0, "\n".join(texts)),
        "speaker": voice,
        "language": config.tts.language,
        "layout": config.tts.layout,
        "seed": config.seed,
        "sampling": repr(tts.sampling),
        "tts": fingerprint(tts),
    }
    folder = PairFolder(_cache_folder(cache, "self", conditions), conditions)
    groups = list(chunks(texts, _SPOKEN_AT_ONCE))
    missing = [index for index in range(len(groups)) if not folder.has(index)]
    with torch.no_grad():
        prefix = tts.prefix(voice, config.tts.language)
        for index in _progress(missing, "speaking the training texts"):
            codes = _speak(tts, prefix, groups[index], config, config.seed + index)
            made = zip(groups[index], codes, strict=True)
            folder.add([Pair(_digest(0, text)[:16], text, row.cpu(), voice) for text, row in made], index)
    return folder.read()


def _speak(tts: Qwen3TTS, prefix: Tensor, texts: Sequence[str], config: Config, seed: int) -> list[Tensor]:
    prompts = [(prefix, tts.text_rows(torch.tensor(tts.tokenize(text)[0], device=tts.device))) for text in texts]
    generator = torch.Generator(tts.device).manual_seed(seed)
    longest = math.ceil(config.data.max_seconds * tts.frame_rate) + 1  # what runs on is then too long, and dropped
    return generate(tts, prompts, config.tts.layout, tts.sampling, generator, longest)


def recorded_pairs(config: Config, tts: Qwen3TTS, recordings: Sequence[Recording], cache: Path) -> list[Pair]:
    """Pairs of recordings: codes by the codec's encoder, and for base models each recording's x-vector as its voice.

    Codes are cached by file and size, so a changed recording is encoded again and a changed text is not.
    """
    voice = None if tts.speaker_encoder is not None else named_speaker(config, tts)
    conditions = {"source": "recordings", "codec": fingerprint(tts.codec), "voices": _voices_of(tts)}
    folder = PairFolder(_cache_folder(cache, "recordings", conditions), conditions)
    known = {pair.id: pair for pair in folder.read()}
    keys = {recording.id: _file_key(recording.audio) for recording in recordings}
    missing = [recording for recording in recordings if keys[recording.id] not in known]
    encode = partial(_encode, tts, config.data)
    for group in _progress(list(chunks(missing, _RECORDINGS_A_PART)), "encoding the recordings"):
        made = [pair for recording in group if (pair := encode(recording, keys[recording.id])) is not None]
        if made:
            folder.add(made)
            known |= {pair.id: pair for pair in made}
    found = [(recording, known[keys[recording.id]]) for recording in recordings if keys[recording.id] in known]
    texts = [_speakable(recording.text, recording.id) for recording, _ in found]
    return [
        Pair(recording.id, text, pair.codes, pair.voice if voice is None else voice, recording.speaker)
        for (recording, pair), text in zip(found, texts, strict=True)
        if text is not None
    ]


@torch.no_grad()
def _encode(tts: Qwen3TTS, data: DataConfig, recording: Recording, key: str) -> Pair | None:
    """The pair of one recording, or None, with a warning, when its text or its sound cannot be used."""
    if _speakable(recording.text, recording.id) is None:
        return None
    try:
        samples = audio.read(recording.audio, tts.sample_rate)
        seconds = len(samples) / tts.sample_rate
        if not data.min_seconds <= seconds <= data.max_seconds:
            log.info("data: %s left out: it lasts %.2f s", recording.id, seconds)
            return None
        codes = tts.codec.encode(samples, tts.sample_rate).cpu()
        encoder = tts.speaker_encoder
        voice = None if encoder is None else encoder.embed(samples, tts.sample_rate).float().cpu()
    except AudioProjectionError as error:
        log.warning("data: %s left out: %s", recording.id, error)
        return None
    return Pair(key, recording.text, codes.clone(), None if voice is None else voice.clone(), recording.speaker)


def named_speaker(config: Config, tts: Qwen3TTS) -> str | None:
    """The named voice to train with; None for a voice_design model, which has none.

    Raises AudioProjectionError when the choice is open, or a base model has only recordings for voices.
    """
    speakers = list(tts.config.talker.speakers)
    if config.tts.speaker is not None or tts.config.kind == "voice_design":
        return config.tts.speaker
    if tts.config.kind == "base":
        raise AudioProjectionError(
            f"{config.tts.name} has no named speakers: train it on recordings (data.source), whose voices it takes"
        )
    if len(speakers) != 1:
        raise AudioProjectionError(f"set tts.speaker: {config.tts.name} has the speakers {', '.join(speakers)}")
    return speakers[0]


def default_voice(config: Config, tts: Qwen3TTS, pairs: Sequence[Pair]) -> tuple[str | Tensor | None, str | None]:
    """The voice that is stored with the projector, and whose it is.

    A named speaker; or, for x-vectors, of all recordings of `data.voice_speaker` (none: the most frequent speaker) the
    vector nearest to their mean. Raises AudioProjectionError when that speaker is not in the data.
    """
    if tts.config.kind != "base":
        return named_speaker(config, tts), None
    vectors: dict[str, list[Tensor]] = {}
    for pair in pairs:
        if isinstance(pair.voice, Tensor):
            vectors.setdefault(pair.speaker or "", []).append(pair.voice)
    if not vectors:
        raise AudioProjectionError("the training pairs have no x-vectors, which a base model needs for its voice")
    name = config.data.voice_speaker or max(vectors, key=lambda speaker: len(vectors[speaker]))
    if name not in vectors:
        some = ", ".join(sorted(vectors)[:8])
        raise AudioProjectionError(f"data.voice_speaker {name!r} has no usable recording; there are {some}")
    voices = torch.stack(vectors[name])
    return voices[(voices - voices.mean(0)).norm(dim=1).argmin()], name


def fingerprint(module: torch.nn.Module) -> str:
    """A short name for a module's weights: their names, shapes and first values."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _shipped_pairs(data: DataConfig, tts: Qwen3TTS) -> list[Pair]:
    pairs = PairFolder(_path(data)).read()[: data.limit]
    groups = tts.config.code_groups
    for pair in pairs:
        if pair.codes.shape[1] != groups:
            raise AudioProjectionError(
                f"the pairs in {data.path} have {pair.codes.shape[1]} code groups, the speech model has {groups}"
            )
    return pairs


def _chosen_recordings(config: Config) -> list[Recording]:
    """All recordings, or a seeded choice of `data.limit` of them with one of the default voice's among them."""
    data = config.data
    recordings = read_recordings(data.source, _path(data), data.subset)
    if data.limit is None or len(recordings) <= data.limit:
        return recordings
    order = sorted(recordings, key=lambda item: _digest(config.seed, item.id))
    order.sort(key=lambda item: item.speaker != data.voice_speaker)
    first = order[:1] if order[0].speaker == data.voice_speaker else []
    rest = sorted(order[len(first) :], key=lambda item: _digest(config.seed, item.id))
    return sorted([*first, *rest][: data.limit], key=lambda item: item.id)


def _limited(texts: list[str], limit: int | None, seed: int) -> list[str]:
    """The texts in an order of their own for each seed, cut to `limit`."""
    return sorted(texts, key=lambda text: _digest(seed, text))[:limit]


def _fits(pair: Pair, data: DataConfig, frame_rate: float) -> bool:
    return len(pair.codes) > 0 and data.min_seconds <= len(pair.codes) / frame_rate <= data.max_seconds


def _speakable(text: str, where: str) -> str | None:
    try:
        return check_text(text)
    except AudioProjectionError as error:
        log.warning("data: %s left out: %s", where, error)
        return None


def _voices_of(tts: Qwen3TTS) -> str | None:
    return None if tts.speaker_encoder is None else fingerprint(tts.speaker_encoder)


def _path(data: DataConfig) -> Path:
    if data.path is None:
        raise AudioProjectionError(f"data.path is not set: the data source {data.source!r} needs it")
    return Path(data.path)


def _cache(config: Config) -> Path:
    return config.data.cache or config.output_dir / "codes"


def _cache_folder(cache: Path, source: str, conditions: dict[str, Any]) -> Path:
    """A folder of its own for everything that would change the codes."""
    return cache / f"{source}-{_digest(0, json.dumps(conditions, sort_keys=True))[:12]}"


def _file_key(path: Path) -> str:
    size = os.stat(path).st_size if path.is_file() else -1
    return _digest(size, str(path.resolve()))[:16]


def _digest(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()


def _progress(items: Sequence[Any], what: str) -> Iterable[Any]:
    return track(items, what, console=Console(stderr=True)) if items else []
