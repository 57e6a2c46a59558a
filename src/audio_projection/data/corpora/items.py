"""Items of a corpus: recordings, and dropped items with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from audio_projection.errors import AudioProjectionError


class Reason(str, Enum):
    """Why an item is dropped."""

    malformed = "malformed line"
    duplicate = "duplicate id"
    no_transcript = "audio without transcript"
    no_audio = "transcript without audio"
    bad_text = "text that cannot be spoken"
    unreadable = "unreadable audio"
    no_samples = "no samples"
    not_finite = "NaN or infinite samples"
    too_short = "too short"
    too_long = "too long"
    silent = "silent"
    clipped = "clipped"
    implausible = "text and duration do not fit"


@dataclass(frozen=True)
class Recording:
    """An audio file, or a segment of one, with its transcript; `speaker` is the corpus's own name of the speaker."""

    id: str
    audio: Path
    text: str
    speaker: str | None = None
    offset: float = 0.0  # s, where the segment begins
    duration: float | None = None  # s; None: to the end of the file
    recased: bool = False  # the transcript was in capitals and became a sentence


@dataclass(frozen=True)
class Dropped:
    """An item that is left out of the training data."""

    id: str
    path: Path
    reason: Reason
    detail: str = ""

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The cells of its line in dropped.tsv."""
        return self.id, str(self.path), self.reason.value, self.detail

    def __str__(self) -> str:
        return f"{self.id} left out: {self.reason.value}" + (f" ({self.detail})" if self.detail else "")


Item = Recording | Dropped


class Unusable(AudioProjectionError):
    """Raised when a recording fails a check; `reason` and `detail` go into the dropped item."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason, self.detail = reason, detail

    def dropping(self, recording: Recording) -> Dropped:
        """The dropped item of this recording."""
        return Dropped(recording.id, recording.audio, self.reason, self.detail)


def printable(text: str) -> str:
    """The text on one line, with bytes that are not UTF-8 (in file names) as escapes."""
    return " ".join(text.encode(errors="backslashreplace").decode().split())
