"""The teacher: hibari (Apache-2.0), a 24 kHz English voice in a 6 M network, and the times of all that it says.

Its durations stand inside the network's graph: one number of 25 ms steps for each phone symbol.  They become times of
phones and words: a stress mark belongs to the vowel after it, the space between two words half to each, and what
stands beside punctuation is a pause.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

SAMPLE_RATE = 24_000
STEP = 600
"""Samples of one step of the teacher's durations."""
PAUSE = 0
PHONES = (
    "pau", "ə", "ɹ", "t", "n", "ɪ", "s", "d", "l", "i", "z", "k", "ð", "m", "ɛ", "ʌ", "æ", "w", "h", "p", "I", "v", "b",
    "f", "A", "ɑ", "ɔ", "O", "u", "ŋ", "ᵊ", "ɡ", "ʃ", "ɜ", "j", "ɐ", "T", "ʊ", "W", "ʧ", "ʤ", "θ", "ᵻ", "Y", "ʒ",
    "other",
)  # fmt: skip
"""The teacher's alphabet for American English (capitals are diphthongs, T the flap), a pause, and all rare symbols."""
STRESS = "ˈˌ"
MARKS = ';:,.!?—…"()“”'
DURATIONS = "/Clip_output_0"
"""Output of the node that bounds the durations."""
SILENCE = 2_400
"""Samples of silence that are left before and after speech."""
BEFORE, AFTER = 900, 8_500
"""Samples that speech begins before the end of the opening pause, and that it ends before the end of all: measured."""
LEAD = 2
"""Steps by which phones sound before their durations say so: measured, a linear map from spectra to phones is right in
55 % of the columns with it and in 47 % without."""
FADE = 8.0
"""Steps at the end of speech in which nothing is heard any more."""
LETTER_A = re.compile(r"(?<=\b[A-Z] )A\b(?! [a-z])|\bA(?= [A-Z]\b)|(?<=letter )A\b|(?<=vitamin )A\b|\bA(?=[.,?!])")


@dataclass(frozen=True)
class Spoken:
    """An utterance: samples and, for each phone, its index in PHONES, its end in samples and its word's characters."""

    audio: np.ndarray
    """int16."""
    phones: list[int]
    ends: list[int]
    spans: list[tuple[int, int]]
    """First character and the one after the last; empty for a pause."""


@dataclass(frozen=True)
class Phone:
    """A phone or a pause, `steps` long; `word` counts the words that the teacher reads."""

    name: int
    steps: float
    word: int | None


class Teacher:
    """hibari with its durations. Same text, same samples."""

    def __init__(self) -> None:
        import onnx
        import onnxruntime
        from hibari import Hibari

        self.voice = Hibari()
        graph = onnx.load(self.voice.model_path)
        durations = onnx.helper.make_tensor_value_info(DURATIONS, onnx.TensorProto.FLOAT, None)
        graph.graph.output.append(durations)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def speak(self, text: str) -> Spoken | None:
        """Speech of a text; None when the teacher reads other words than stand in it, so that no times are known."""
        parts = [self.sentence(phones) for phones in self.readings(text)]
        if not parts:
            return None
        audio = np.concatenate([samples for samples, _ in parts])
        found: list[Phone] = []
        for _, phones in parts:
            words = 1 + max((phone.word for phone in found if phone.word is not None), default=-1)
            found += [Phone(p.name, p.steps, None if p.word is None else p.word + words) for p in phones]
        places = word_places(text)
        if 1 + max((phone.word for phone in found if phone.word is not None), default=-1) != len(places):
            return None
        ends = np.rint(np.cumsum([phone.steps for phone in found]) * STEP).astype(int).tolist()
        spans, last = [], 0
        for phone in found:
            spans.append((last, last) if phone.word is None else places[phone.word])
            last = spans[-1][1]
        return Spoken(audio, [phone.name for phone in found], ends, spans)

    def readings(self, text: str) -> list[str]:
        """The phone symbols of each sentence of a text, with the text's own mark at the end of each."""
        found = []
        for sentence in self.voice.split_sentences(text):
            marks = re.search(r"[.?!](?=[\"')]*$)", sentence)
            for symbols in self.voice.phonemize(LETTER_A.sub("[A](/ˈA/)", sentence)):
                ended = symbols.rstrip()[-1:] in MARKS or not marks
                found.append(symbols if ended else symbols + marks[0])
        return found

    def sentence(self, symbols: str) -> tuple[np.ndarray, list[Phone]]:
        """int16 samples of one sentence and its phones, without most of the silence around them."""
        from hibari import dsp

        kept = "".join(symbol for symbol in symbols if symbol in self.voice.vocab)
        inputs: dict[str, Any] = {
            "ids": np.array([self.voice.ids(kept)], np.int64),
            "speed": np.ones(1, np.float32),
        }
        *parts, durations = self.session.run(None, inputs)
        samples = dsp.synth(*(part[0] for part in parts), np.random.default_rng(0))
        steps = durations.reshape(-1)
        first = int(max(0, steps[0] * STEP - BEFORE - SILENCE)) // STEP
        last = max(0, AFTER - SILENCE) // STEP
        phones = timed(kept, steps, first + LEAD, last - LEAD)
        samples = samples[first * STEP : len(samples) - last * STEP]
        return (samples.clip(-1, 1) * 32_767).astype(np.int16), phones


def timed(symbols: str, steps: Iterable[float], first: int, last: int) -> list[Phone]:
    """Phones in time from phone symbols and their durations, `first` and `last` steps of all cut off.

    `steps` begins and ends with those of the pauses around the sentence.
    """
    opening, *inner, closing = map(float, steps)
    words = word_numbers(symbols)
    found = [Phone(PAUSE, opening, None)]
    for number, (symbol, duration) in enumerate(zip(symbols, inner, strict=True)):
        word = words[number]
        name = PAUSE if word is None else phone_index(symbol)
        found.append(Phone(-1 if symbol in STRESS else name, duration, word))
    found.append(Phone(PAUSE, closing, None))
    return hushed(cut(merged(shared(symbols, found)), first, last))


def phone_index(symbol: str) -> int:
    return PHONE_INDEX.get(symbol, PHONE_INDEX["other"])


PHONE_INDEX = {name: number for number, name in enumerate(PHONES)}


def word_numbers(symbols: str) -> list[int | None]:
    """The word of each phone symbol; None for marks, spaces and what belongs to no word."""
    found: list[int | None] = []
    word, inside = -1, False
    for symbol in symbols:
        spoken = symbol not in MARKS and symbol != " "
        word += spoken and not inside
        inside = inside and symbol != " " or spoken
        found.append(word if spoken else None)
    return found


def shared(symbols: str, phones: list[Phone]) -> list[Phone]:
    """A space between two words is divided between the phones beside it."""
    found = list(phones)
    for number, symbol in enumerate(symbols, 1):
        before, space, after = found[number - 1 : number + 2]
        if symbol == " " and before.word is not None and after.word is not None:
            found[number - 1] = Phone(before.name, before.steps + space.steps / 2, before.word)
            found[number] = Phone(space.name, 0.0, None)
            found[number + 1] = Phone(after.name, after.steps + space.steps / 2, after.word)
    return found


def merged(phones: list[Phone]) -> list[Phone]:
    """Stress marks joined to the phone after them, pauses to each other; what takes no time is gone."""
    found: list[Phone] = []
    waiting = 0.0
    for phone in phones:
        if phone.name < 0:
            waiting += phone.steps
        elif found and phone.word is None and found[-1].word is None:
            found[-1] = Phone(PAUSE, found[-1].steps + phone.steps + waiting, None)
            waiting = 0.0
        elif phone.steps + waiting > 0:
            found.append(Phone(phone.name, phone.steps + waiting, phone.word))
            waiting = 0.0
    return found


def cut(phones: list[Phone], first: int, last: int) -> list[Phone]:
    """Without the first and last steps."""
    found = list(phones)
    for steps, place in ((first, 0), (last, -1)):
        left = float(steps)
        while left >= found[place].steps and len(found) > 1:
            left -= found[place].steps
            found.pop(place)
        if left:
            phone = found[place]
            found[place] = Phone(phone.name, phone.steps - left, phone.word)
    return found


def hushed(phones: list[Phone]) -> list[Phone]:
    """The teacher gives the last phone the silence after it: that becomes a pause."""
    final = phones[-1]
    if final.word is None or final.steps <= FADE:
        return phones
    return [*phones[:-1], Phone(final.name, final.steps - FADE, final.word), Phone(PAUSE, FADE, None)]


def word_places(text: str) -> list[tuple[int, int]]:
    """First character and the one after the last of each word of a text; marks that stand alone are none."""
    return [found.span() for found in re.finditer(r"\S*[A-Za-z]\S*", text)]


@cache
def teacher() -> Teacher:
    """One for each process."""
    return Teacher()
