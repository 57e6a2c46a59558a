"""Making pairs of text and codes: the TTS speaks texts itself, or the codec encodes recordings. Cached, resumable."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable, Sequence
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
from audio_projection.pairs import Pair, PairFolder, seeded_digest
from audio_projection.recordings import Recording, speakable
from audio_projection.tts.generate import generate
from audio_projection.voices import named_speaker

if TYPE_CHECKING:
    from audio_projection.config import Config, DataConfig
    from audio_projection.tts.model import Qwen3TTS

log = logging.getLogger(__name__)

_SPOKEN_AT_ONCE = 16  # texts in one batch of the TTS
_RECORDINGS_A_PART = 64


def spoken_pairs(config: Config, tts: Qwen3TTS, texts: Sequence[str], cache: Path) -> list[Pair]:
    """Pairs whose codes the text-fed TTS itself makes, one cached part for each batch of texts.

    Every part draws from its own seed, so that a run that was stopped goes on to the same codes.
    """
    voice = named_speaker(config, tts)
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
    with torch.no_grad():
        prefix = tts.prefix(voice, config.tts.language)
        for index in _progress(missing, "speaking the training texts"):
            codes = _speak(tts, prefix, groups[index], config, config.seed + index)
            made = zip(groups[index], codes, strict=True)
            folder.add([Pair(seeded_digest(0, text)[:16], text, row.cpu(), voice) for text, row in made], index)
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
    texts = [speakable(recording.text, recording.id, config.tts.normalise) for recording, _ in found]
    return [
        Pair(recording.id, text, pair.codes, pair.voice if voice is None else voice, recording.speaker)
        for (recording, pair), text in zip(found, texts, strict=True)
        if text is not None
    ]


@torch.no_grad()
def _encode(tts: Qwen3TTS, data: DataConfig, recording: Recording, key: str) -> Pair | None:
    """The pair of one recording, or None, with a warning, when its text or its sound cannot be used."""
    if speakable(recording.text, recording.id) is None:
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


def fingerprint(module: torch.nn.Module) -> str:
    """A short name for a module's weights: their names, shapes and first values."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _voices_of(tts: Qwen3TTS) -> str | None:
    return None if tts.speaker_encoder is None else fingerprint(tts.speaker_encoder)


def _cache_folder(cache: Path, source: str, conditions: dict[str, Any]) -> Path:
    """A folder of its own for everything that would change the codes."""
    return cache / f"{source}-{seeded_digest(0, json.dumps(conditions, sort_keys=True))[:12]}"


def _file_key(path: Path) -> str:
    size = os.stat(path).st_size if path.is_file() else -1
    return seeded_digest(size, str(path.resolve()))[:16]


def _progress(items: Sequence[Any], what: str) -> Iterable[Any]:
    return track(items, what, console=Console(stderr=True)) if items else []
