"""Makes training pairs: the text-fed TTS speaks texts, or the codec encodes recordings; cached and resumable."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audio_projection.alignment.token_states import chunks
from audio_projection.data.corpora.checks import check_pace, clean_text, read_audio, unusable
from audio_projection.data.corpora.cuts import is_whole
from audio_projection.data.corpora.encoder import RecordingEncoder
from audio_projection.data.corpora.items import Reason, Recording, Unusable
from audio_projection.data.corpora.layouts import speakable
from audio_projection.data.pairs import Pair, PairFolder, seeded_digest
from audio_projection.data.speakers import named_speaker
from audio_projection.errors import AudioProjectionError
from audio_projection.files.fingerprint import fingerprint
from audio_projection.files.progress import shown
from audio_projection.processes import ALONE, Processes
from audio_projection.text.input_text import Reading
from audio_projection.tts.generate import generate

if TYPE_CHECKING:
    from audio_projection.config import Config, DataConfig, TTSConfig
    from audio_projection.tts.model import Qwen3TTS

log = logging.getLogger(__name__)

_SPOKEN_AT_ONCE = 16  # texts in one batch of the TTS
_RECORDINGS_A_PART = 64


def spoken_pairs(
    config: Config, tts: Qwen3TTS, texts: Sequence[str], cache: Path, processes: Processes = ALONE
) -> list[Pair]:
    """Pairs whose codes the text-fed TTS generates itself (self-distillation), a cached part for each batch of texts.

    Every part has its own seed, so that an interrupted run resumes with the same codes, whichever process makes them.
    """
    voice = named_speaker(config.tts, tts)
    conditions = {
        "source": "self",
        "texts": seeded_digest(0, "\n".join(texts)),
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
    processes.wait("the list of the training texts that are still to be spoken")
    missing = processes.share(missing)
    with torch.no_grad():
        prefix = tts.prefix(voice, config.tts.language)
        for index in shown(missing, "speaking the training texts", len(missing)):
            spoken = zip(groups[index], _speak(tts, prefix, groups[index], config, config.seed + index), strict=True)
            folder.add([Pair(seeded_digest(0, text)[:16], text, codes.cpu(), voice) for text, codes in spoken], index)
    processes.wait("the end of speaking the training texts")
    pairs = folder.read()
    _check_same_folder(processes, folder, len(pairs))
    return pairs


def _speak(tts: Qwen3TTS, prefix: Tensor, texts: Sequence[str], config: Config, seed: int) -> list[Tensor]:
    prompts = [(prefix, tts.text_embeddings(torch.tensor(tts.tokenize(text)[0], device=tts.device))) for text in texts]
    # one frame too many: speech without an end is dropped as too long
    longest = math.ceil(config.data.max_seconds * tts.frame_rate) + 1
    return generate(tts, prompts, config.tts.layout, tts.sampling, seed, longest)


def recorded_pairs(
    limits: DataConfig,
    settings: TTSConfig,
    tts: Qwen3TTS,
    recordings: Sequence[Recording],
    cache: Path,
    processes: Processes = ALONE,
) -> list[Pair]:
    """Pairs of recordings: codes by the codec's encoder, and for base models each recording's x-vector as its voice.

    Codes are cached by file and size, so that a changed recording is encoded again and a changed text is not. What
    fails the checks of `corpora.checks` is skipped with a warning that names it. Each of several processes encodes its
    share.
    """
    voice = None if tts.speaker_encoder is not None else named_speaker(settings, tts)
    encoder = RecordingEncoder.of(tts)
    conditions = {"source": "recordings", **encoder.conditions}
    folder = PairFolder(_cache_folder(cache, "recordings", conditions), conditions)
    known = {pair.id: pair for pair in folder.read()}
    keys = {recording.id: _file_key(recording) for recording in recordings}
    missing = [recording for recording in recordings if keys[recording.id] not in known]
    size = max(1, min(_RECORDINGS_A_PART, -(-len(missing) // processes.count)))
    groups = list(enumerate(chunks(missing, size), folder.next_part()))
    processes.wait("the list of the recordings that are still to be encoded")
    groups = processes.share(groups)
    if processes.count > 1 and missing:
        counted = sum(len(group) for _, group in groups)
        log.info("data: process %d encodes %d of %d recordings", processes.index, counted, len(missing))
    for part, group in shown(groups, "encoding the recordings", len(groups)):
        made = [pair for recording in group if (pair := _encode(encoder, limits, recording, keys)) is not None]
        if made:
            folder.add(made, part)
            known |= {pair.id: pair for pair in made}
    processes.wait("the end of encoding the recordings")
    if processes.count > 1:
        known = {pair.id: pair for pair in folder.read()}
        _check_same_folder(processes, folder, len(known))
    found = [(recording, known[keys[recording.id]]) for recording in recordings if keys[recording.id] in known]
    reading = Reading.of(settings, tts.characters)
    texts = [_spoken_text(recording, len(pair.codes) / tts.frame_rate, limits, reading) for recording, pair in found]
    return [
        Pair(recording.id, text, pair.codes, pair.voice if voice is None else voice, recording.speaker)
        for (recording, pair), text in zip(found, texts, strict=True)
        if text is not None
    ]


def _encode(encoder: RecordingEncoder, limits: DataConfig, recording: Recording, keys: dict[str, str]) -> Pair | None:
    """The pair of one recording, with the key of its file as its id; None, with a warning, when it cannot be used."""
    try:
        text = clean_text(recording)
        with unusable(Reason.unreadable):
            codes, voice = encoder.encode(read_audio(recording, limits))
    except Unusable as reason:
        log.warning("data: %s", reason.dropping(recording))
        return None
    return Pair(keys[recording.id], text, codes, voice, recording.speaker)


def _spoken_text(recording: Recording, seconds: float, limits: DataConfig, reading: Reading) -> str | None:
    """The text as it is spoken, or None, with a warning, when it cannot be spoken at all or in so many seconds."""
    try:
        check_pace(clean_text(recording), seconds, limits)
    except Unusable as reason:
        log.warning("data: %s", reason.dropping(recording))
        return None
    return speakable(recording.text, recording.id, reading)


def _check_same_folder(processes: Processes, folder: PairFolder, count: int) -> None:
    """Raises AudioProjectionError when this process sees other pairs than the first one does."""
    first = processes.first("the number of pairs", lambda: count)
    if count != first:
        raise AudioProjectionError(
            f"process {processes.index} sees {count} pairs in {folder.folder}, the first one {first}: all processes "
            "must see the same folder; set data.cache to one that the machines share"
        )


def _cache_folder(cache: Path, source: str, conditions: dict[str, Any]) -> Path:
    """The cache folder for these conditions; anything that would change the codes gives another one."""
    return cache / f"{source}-{seeded_digest(0, json.dumps(conditions, sort_keys=True))[:12]}"


def _file_key(recording: Recording) -> str:
    """Names what the codes depend on: the file, its size, and the segment of it."""
    path = recording.audio
    size = os.stat(path).st_size if path.is_file() else -1
    segment = "" if is_whole(recording) else f" {recording.offset} {recording.duration}"
    return seeded_digest(size, f"{path.resolve()}{segment}")[:16]
