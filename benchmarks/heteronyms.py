"""What hidden states say and text does not: which reading of a heteronym is spoken.

    python recipes/nano/heteronym_speech.py work prompts.tsv
    python benchmarks/heteronyms.py llm.name=LLM.gguf --renderings work/heteronyms/renderings \\
        --systems plain runs/layer8/linear runs/layers1+8/linear runs/layer8/residual --whisper-model whisper-base

Sentences with words of two readings (`She likes to read.`, `Yesterday he read it.`) are spoken by plain text and by
projectors; then answers whose text is the same in both readings, so that only the question before them decides.  The
teacher's two renderings of each sentence are the judges: the frames of the word are cut out of the system's speech by
dynamic time warping with each of them, and the nearer word (distance of standardised mel-cepstra along a path of its
own) is the reading that was spoken.  Chance is 50 %; the ceiling is what is judged right of the teacher's renderings as
they are labelled, after they went through the codec.  Shares and their differences to plain text have 95 % intervals by
paired bootstrap.  The output folder gets heteronyms.md, results.json, and the sound.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from printed import print_report

from audio_projection.config import Config, load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.bootstrap import PairedBootstrap
from audio_projection.evaluation.listening import Listeners
from audio_projection.evaluation.recognisers import Whisper
from audio_projection.evaluation.spectral_distance import FRAMES_PER_SECOND, Frames, dtw_path
from audio_projection.evaluation.systems import (
    PLAIN,
    SpeechSources,
    SpokenSentence,
    System,
    name_systems,
    save_sentence,
    speak_line,
)
from audio_projection.evaluation.word_errors import WordErrors, word_errors
from audio_projection.files import audio
from audio_projection.files.atomic import make_folder, write_bytes, write_json
from audio_projection.files.json_reader import read_json
from audio_projection.files.locations import locate_projector
from audio_projection.files.progress import shown
from audio_projection.inference import Voice
from audio_projection.inference.conversation import check_chat, with_system
from audio_projection.models import load_tts

ROOT = Path(__file__).resolve().parents[1]
RATE = 24_000
CEILING = "teacher through the codec"


@dataclass(frozen=True)
class Rendering:
    """A sentence by the teacher, in one reading of its word."""

    phones: str
    samples: np.ndarray
    """Mono float (S,) at 24 kHz."""
    begin: float
    end: float
    """Of the word, in seconds."""

    @cached_property
    def frames(self) -> Frames:
        return Frames(self.samples, RATE)

    @property
    def word(self) -> slice:
        """The word's frames, one at least."""
        first = min(round(self.begin * FRAMES_PER_SECOND), len(self.frames) - 1)
        return slice(first, max(first + 1, round(self.end * FRAMES_PER_SECOND)))


@dataclass(frozen=True)
class Item:
    """A sentence whose word has the reading of `labelled`, told by the sentence itself or by a question before it."""

    word: str
    sentence: str
    question: str | None
    labelled: Rendering
    other: Rendering


def read_items(folder: Path) -> list[Item]:
    """The sentences of a folder of renderings; AudioProjectionError where it is none."""
    entries = read_json(folder / "renderings.json")
    try:
        return [_item(folder, entry) for entry in entries]
    except (KeyError, TypeError, ValueError):
        raise AudioProjectionError(
            f"{folder / 'renderings.json'} is damaged: make it again by recipes/nano/heteronym_speech.py"
        ) from None


def _item(folder: Path, entry: dict[str, Any]) -> Item:
    def rendering(name: str) -> Rendering:
        made = entry[name]
        return Rendering(made["phones"], audio.read(folder / made["sound"], RATE), *map(float, made["word"]))

    return Item(entry["word"], entry["sentence"], entry["question"], rendering("labelled"), rendering("other"))


def nearer(sound: Frames, labelled: Rendering, other: Rendering) -> bool:
    """Whether the word in a sound is nearer to that of the labelled rendering than to that of the other."""
    ours = standardised(sound)
    places = [beside_word(ours, each) for each in (labelled, other)]
    word = ours[min(place.start for place in places) : max(place.stop for place in places)]
    return word_distance(word, labelled) < word_distance(word, other)


def standardised(frames: Frames) -> np.ndarray:
    """Mel-cepstra (T, 13), each with mean 0 and deviation 1 over the speech of its sound: a voice that is noisier or
    duller than the teacher's is judged as surely."""
    speech = frames.cepstra[frames.speech if frames.speech.any() else slice(None)]
    return (frames.cepstra - speech.mean(0)) / np.maximum(speech.std(0), 1e-6)


def beside_word(ours: np.ndarray, rendering: Rendering) -> slice:
    """The frames of a sound (T, 13) that lie beside the rendering's word, along the path through both sentences."""
    left, right = dtw_path(ours, standardised(rendering.frames))
    beside = left[(right >= rendering.word.start) & (right < rendering.word.stop)]
    return slice(int(beside.min()), int(beside.max()) + 1)


def word_distance(word: np.ndarray, rendering: Rendering) -> float:
    """Mean distance of frames (T, 13) to those of the rendering's word, along a path of their own."""
    theirs = standardised(rendering.frames)[rendering.word]
    left, right = dtw_path(word, theirs)
    return float(np.sqrt(np.square(word[left] - theirs[right]).sum(1)).mean())


def in_conversation(voice: Voice, system: System, items: Sequence[Item], seed: int) -> Iterator[SpokenSentence]:
    """The answers by a system, each read by the LLM as its own answer to the question."""
    check_chat(voice.llm)
    for number, item in enumerate(items):
        messages = with_system(voice.llm, [{"role": "user", "content": item.question or ""}], voice.defaults.system)
        llm = voice.llm.with_head(voice.llm.chat_ids(messages))
        asked = Voice(llm, voice.tts, voice.projector, voice.defaults)
        yield speak_line(asked, item.sentence, seed + number, system.control)


@dataclass(frozen=True)
class Spoken:
    """A system's speech: of the sentences, and of the answers; whether the right reading was spoken in each."""

    name: str
    aloud: list[bool]
    answered: list[bool]
    transcripts: list[str] | None = None
    """Of the sentences; None without a recogniser."""


class Benchmark:
    """Speaks all sentences by each system, and judges them."""

    def __init__(self, config: Config, items: Sequence[Item], output: Path, listeners: Listeners | None) -> None:
        self.aloud = [item for item in items if item.question is None]
        self.answered = [item for item in items if item.question is not None]
        self._config, self._output, self._listeners = config, output, listeners
        self._sources = SpeechSources(config, [item.sentence for item in self.aloud])

    def measure(self, system: System) -> Spoken:
        """One system's speech, kept as sound files, and what was judged of it."""
        aloud = list(self._kept(self._sources.spoken(system), system.name))
        voice = self._sources.voice(system.projector, system.llm)
        said = in_conversation(voice, system, self.answered, self._config.seed)
        answered = list(self._kept(said, f"{system.name} in conversation"))
        flags = [_right(sounds, items) for sounds, items in ((aloud, self.aloud), (answered, self.answered))]
        return Spoken(system.name, *flags, self._heard(aloud))

    def ceiling(self) -> Spoken:
        """What the judge makes of the teacher's own renderings after they went through the codec."""
        codec = load_tts(self._config).codec

        def right(item: Item) -> bool:
            samples = codec.decode(codec.encode(item.labelled.samples, RATE))
            return nearer(Frames(samples.cpu().numpy(), codec.sample_rate), item.labelled, item.other)

        every = [*self.aloud, *self.answered]
        flags = [right(item) for item in shown(every, CEILING, len(every))]
        return Spoken(CEILING, flags[: len(self.aloud)], flags[len(self.aloud) :])

    def _kept(self, spoken: Iterator[SpokenSentence], name: str) -> Iterator[SpokenSentence]:
        for number, sentence in enumerate(spoken):
            save_sentence(sentence, self._output, name, number)
            yield sentence

    def _heard(self, spoken: Sequence[SpokenSentence]) -> list[str] | None:
        if self._listeners is None:
            return None
        (judge,) = self._listeners.judges
        asked = [self._listeners.submit(judge, each.samples, each.rate) for each in spoken]
        return [each.result() for each in asked]


def _right(spoken: Sequence[SpokenSentence], items: Sequence[Item]) -> list[bool]:
    pairs = zip(spoken, items, strict=True)
    return [nearer(Frames(each.samples, each.rate), item.labelled, item.other) for each, item in pairs]


def markdown(
    benchmark: Benchmark, systems: Sequence[Spoken], errors: Sequence[list[WordErrors] | None]
) -> Iterator[str]:
    """A line for each system, then the sentences of each word."""
    yield "| spoken from | right reading: read aloud | minus plain | in conversation | minus plain | words wrong |"
    yield "|---|---|---|---|---|---|"
    plain = next((system for system in systems if system.name == PLAIN), None)
    for system, wrong in zip(systems, errors, strict=True):
        cells = [system.name]
        for name in ("aloud", "answered"):
            baseline = None if plain is None or system in (plain, systems[0]) else getattr(plain, name)
            cells += _share(getattr(system, name), baseline)
        cells.append("" if wrong is None else _rate(wrong))
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield f"| word, of {len(benchmark.aloud)} sentences | {' | '.join(system.name for system in systems)} |"
    yield "|---" * (len(systems) + 1) + "|"
    for word in dict.fromkeys(item.word for item in benchmark.aloud):
        places = [place for place, item in enumerate(benchmark.aloud) if item.word == word]
        counts = [f"{sum(system.aloud[place] for place in places)} of {len(places)}" for system in systems]
        yield f"| {word} | {' | '.join(counts)} |"


def _share(right: Sequence[bool], plain: Sequence[bool] | None) -> list[str]:
    """The share that is right, and its difference to plain text's, each with its interval."""
    if not right:
        return ["", ""]
    bootstrap = PairedBootstrap([1] * len(right))
    share = f"{100 * np.mean(right):.1f} % {_points(bootstrap.interval(right))}"
    if plain is None:
        return [share, ""]
    difference = 100 * (np.mean(right) - np.mean(plain))
    return [share, f"{difference:+.1f} % {_points(bootstrap.difference(right, plain))}"]


def _rate(errors: Sequence[WordErrors]) -> str:
    bootstrap = PairedBootstrap([each.words for each in errors])
    rate = sum(errors[1:], errors[0]).rate
    return f"{100 * rate:.1f} % {_points(bootstrap.interval([each.errors for each in errors]))}"


def _points(interval: Sequence[float]) -> str:
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def run(given: argparse.Namespace) -> str:
    config, systems = load_config(given.config, given.overrides), name_systems(given.systems)
    items = read_items(given.renderings)
    folder, whisper = make_folder(given.output), Whisper(given.whisper_model) if given.whisper_model else None
    with ExitStack() as stack:
        listeners = None
        if whisper is not None:
            whisper.check()
            judges = {whisper.model_name: whisper.transcribe}
            listeners = stack.enter_context(Listeners(judges, given.jobs, folder / "judgements.jsonl"))
        benchmark = Benchmark(_with_projector(config, systems), items, folder, listeners)
        found = [benchmark.ceiling(), *(benchmark.measure(system) for system in systems)]
    errors = [_errors(benchmark.aloud, each.transcripts, whisper) for each in found]
    table = "\n".join(markdown(benchmark, found, errors)) + "\n"
    write_bytes(folder / "heteronyms.md", table.encode())
    described = [
        {"word": item.word, "phones": item.labelled.phones, "sentence": item.sentence, "question": item.question}
        for item in (*benchmark.aloud, *benchmark.answered)
    ]
    write_json(folder / "results.json", {"items": described, "systems": [asdict(each) for each in found]})
    return table


def _with_projector(config: Config, systems: Sequence[System]) -> Config:
    """The configuration with the first projector that is given: plain text needs any."""
    first = next((system.projector for system in systems if system.projector is not None), None)
    if first is None:
        return config
    path = locate_projector(config, first)[0]
    return config.model_copy(update={"projector": config.projector.model_copy(update={"path": path})})


def _errors(
    items: Sequence[Item], transcripts: Sequence[str] | None, whisper: Whisper | None
) -> list[WordErrors] | None:
    if transcripts is None or whisper is None:
        return None
    pairs = zip(items, transcripts, strict=True)
    return [word_errors(item.sentence, heard, whisper.normalise) for item, heard in pairs]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings laid over the configuration")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nano.yaml")
    parser.add_argument("--renderings", type=Path, required=True, help="made by recipes/nano/heteronym_speech.py")
    parser.add_argument("--systems", nargs="+", default=[PLAIN, "linear", "residual"], help="as `evaluate --row`")
    parser.add_argument("--output", type=Path, default=Path("runs/heteronyms"))
    parser.add_argument("--whisper-model", help="name or folder of a faster-whisper model, to count words wrong")
    parser.add_argument("--jobs", type=int, default=2, help="processes that listen")
    print_report(run, parser.parse_args(arguments), "heteronyms")


if __name__ == "__main__":
    main()
