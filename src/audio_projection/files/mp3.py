"""MP3 files frame by frame: how long they are, and what libsndfile needs to read them to their end.

An MP3 says its length only in an optional first frame ("Xing", "Info" or "VBRI"). Without it libsndfile takes the first
frame's bit rate for all: of a file of variable bit rate it then reads too little, without an error.
Format: ISO/IEC 11172-3 and 13818-3 (layer III), and Xing's header.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_BIT_RATES = {  # kbit/s by the header's 4 bits; MPEG 1, MPEG 2 and 2.5
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz, by version
_HEADER = 4  # bytes


@dataclass(frozen=True)
class Frame:
    """One frame: where it begins and how long it is, in bytes, and what it holds."""

    start: int
    size: int
    samples: int  # 1152 (MPEG 1) or 576
    rate: int  # Hz
    side_information: int  # bytes after the header


@dataclass(frozen=True)
class MP3Frames:
    """The frames of a file that hold sound, and whether one before them says how many they are."""

    sound: list[Frame]
    announced: bool

    @property
    def samples(self) -> int:
        """Samples of each channel, with the encoder's padding."""
        return sum(frame.samples for frame in self.sound)


def find_frames(data: bytes) -> MP3Frames:
    """All frames of an MP3; tags and junk between them are passed over."""
    sound: list[Frame] = []
    announced = False
    for frame in _walk(data):
        if _is_announcement(data, frame):
            announced = True
        else:
            sound.append(frame)
    return MP3Frames(sound, announced)


def with_length(data: bytes, frames: MP3Frames) -> bytes:
    """The same sound as a file that begins with a Xing frame, which says how many frames follow."""
    first = frames.sound[0]
    header = bytearray(data[first.start : first.start + _HEADER])
    header[1] |= 1  # no checksum
    header[2] = (header[2] & 0x0D) | _roomy(header, first) << 4
    start = _parse(bytes(header), 0)
    assert start is not None, "a header with another bit rate is a header"
    body = bytes(start.side_information) + b"Xing" + (1).to_bytes(4, "big") + len(frames.sound).to_bytes(4, "big")
    opening = (bytes(header) + body).ljust(start.size, b"\0")
    return opening + b"".join(data[frame.start : frame.start + frame.size] for frame in frames.sound)


def _roomy(header: bytes | bytearray, frame: Frame) -> int:
    """Number of the lowest bit rate whose frames have room for a Xing header."""
    needed = _HEADER + frame.side_information + 16
    for number in range(1, 15):
        other = bytes((header[0], header[1], (header[2] & 0x0D) | number << 4, header[3]))
        parsed = _parse(other, 0)
        if parsed is not None and parsed.size >= needed:
            return number
    raise AssertionError("the highest bit rate has room for it")


def _walk(data: bytes) -> Iterator[Frame]:
    place, known = _after_tag(data, 0), None
    while place + _HEADER <= len(data):
        frame = _parse(data, place)
        if frame is None or (known is not None and frame.rate != known) or place + frame.size > len(data):
            place = _resync(data, place)
            continue
        if known is None and place + frame.size + _HEADER <= len(data) and _parse(data, place + frame.size) is None:
            place = _resync(data, place)  # what looks like the first frame has none after it
            continue
        known = frame.rate
        yield frame
        place += frame.size


def _resync(data: bytes, place: int) -> int:
    """The next place where two frames follow each other, or a frame ends the file; the end where there is none."""
    if data[place : place + 3] == b"ID3":
        return _after_tag(data, place)
    while (place := data.find(b"\xff", place + 1)) >= 0:
        frame = _parse(data, place)
        if frame is None:
            continue
        after = place + frame.size
        if after == len(data) or data[after : after + 3] in (b"TAG", b"ID3") or _parse(data, after) is not None:
            return place
    return len(data)


def _after_tag(data: bytes, place: int) -> int:
    """The place after an ID3v2 tag; the same where there is none."""
    while data[place : place + 3] == b"ID3" and place + 10 <= len(data):
        a, b, c, d = (byte & 0x7F for byte in data[place + 6 : place + 10])
        place += 10 + (a << 21 | b << 14 | c << 7 | d)
    return min(place, len(data))


def _parse(data: bytes, place: int) -> Frame | None:
    """The frame whose header stands at `place`; None where no layer III header stands."""
    header = data[place : place + _HEADER]
    if len(header) < _HEADER or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bit_rate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer != 1 or bit_rate in (0, 15) or rate == 3:
        return None
    first, mono = version == 3, header[3] >> 6 == 3
    samples, hertz = 1152 if first else 576, _RATES[version][rate]
    size = samples // 8 * _BIT_RATES[1 if first else 2][bit_rate] * 1000 // hertz + padding
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return Frame(place, size, samples, hertz, side)


def _is_announcement(data: bytes, frame: Frame) -> bool:
    body = data[frame.start + _HEADER : frame.start + frame.size]
    return body[frame.side_information :][:4] in (b"Xing", b"Info") or body[32:36] == b"VBRI"
