"""Lhotse cuts of the checked recordings, one file for each shard: `cuts.00000.jsonl.gz`.

`lhotse.CutSet.from_files(sorted(folder.glob("cuts.*.jsonl.gz")))` reads them all, with the shards shuffled. Each cut is
a whole recording, or a segment of one, with one supervision; audio files are not copied.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from audio_projection.data.corpora.checks import DecodedAudio
from audio_projection.data.corpora.items import Recording
from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import write_bytes
from audio_projection.files.audio import duration


def shard_path(folder: Path, shard: int) -> Path:
    """The file of a shard's cuts."""
    return folder / f"cuts.{shard:05d}.jsonl.gz"


def to_cut(recording: Recording, text: str, audio: DecodedAudio) -> dict[str, Any]:
    """One line of a shard: a MonoCut, or a MultiCut when the recording has several channels."""
    import lhotse

    channels = list(range(audio.channels))
    source = lhotse.AudioSource("file", channels, str(recording.audio.absolute()))
    length = len(audio.samples) if is_whole(recording) else round(duration(recording.audio) * audio.rate)
    whole = lhotse.Recording(recording.id, [source], audio.rate, length, length / audio.rate, channel_ids=channels)
    cut = whole.to_cut()
    cut.start, cut.duration = recording.offset, audio.seconds
    channel = channels if audio.channels > 1 else 0
    cut.supervisions = [
        lhotse.SupervisionSegment(
            recording.id, recording.id, 0.0, audio.seconds, channel, text, speaker=recording.speaker
        )
    ]
    cut.id = recording.id
    return cut.to_dict()


def is_whole(recording: Recording) -> bool:
    """Whether a recording is all of its file, not a segment of it."""
    return not recording.offset and recording.duration is None


def write_cuts(folder: Path, shard: int, cuts: Iterable[dict[str, Any]]) -> None:
    """Writes a shard atomically; the same cuts give the same bytes."""
    lines = "".join(json.dumps(cut) + "\n" for cut in cuts)
    write_bytes(shard_path(folder, shard), gzip.compress(lines.encode(), mtime=0))


def read_cuts(folder: Path, shard: int) -> list[Recording]:
    """The recordings of a shard; raises AudioProjectionError for a missing or damaged one."""
    import lhotse

    path = shard_path(folder, shard)
    try:
        cuts = [*lhotse.CutSet.from_jsonl_lazy(path)]
        return [_to_recording(cut) for cut in cuts]
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError, gzip.BadGzipFile) as error:
        raise AudioProjectionError(
            f"{path} is missing or damaged ({type(error).__name__}: {error}); prepare the corpus again"
        ) from None


def _to_recording(cut: Any) -> Recording:
    (spoken,) = cut.supervisions
    segment = cut.start > 0 or cut.duration < cut.recording.duration
    duration = cut.duration if segment else None
    path = Path(cut.recording.sources[0].source)
    return Recording(cut.id, path, spoken.text, spoken.speaker, cut.start, duration)
