"""Names that corpora give to the columns of a table, or the keys of a manifest, with audio, text and speaker."""

from __future__ import annotations

from collections.abc import Container, Iterable

AUDIO = (
    "audio",
    "audio_filepath",  # NeMo
    "path",
    "file_name",  # Hugging Face's folders of sound
    "audio_path",
    "audio_file",
    "filename",
    "file",
    "wav",
)
TEXT = (
    "text",
    "sentence",  # Common Voice
    "transcription",  # FLEURS
    "transcript",  # MLS
    "text_normalized",  # LibriTTS
    "normalized_text",  # LJSpeech, VoxPopuli
    "text_original",
    "raw_text",
    "raw_transcription",
)
SPEAKER = ("speaker_id", "speaker", "client_id", "speaker_name")
SEGMENT = ("offset", "duration")
"""Seconds: where a recording begins in its file, and how long it is."""


def first(names: Iterable[str], present: Container[str]) -> str | None:
    """The first of the names that is present."""
    return next((name for name in names if name in present), None)
