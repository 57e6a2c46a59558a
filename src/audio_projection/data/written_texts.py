"""Texts that the language model itself writes, for the fit and for training: prompts in, a file of text lines out.

A batch of prompts is answered at a time and kept in a folder beside the file, so that what is stopped goes on; the
file itself is written when it is complete. One seed gives the same texts.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_projection.data.pairs import seeded_digest
from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import write_bytes, write_json
from audio_projection.files.interruption import Interrupted, StopRequest, stop_requested
from audio_projection.files.json_reader import read_json
from audio_projection.files.lock import folder_lock
from audio_projection.files.progress import shown
from audio_projection.llm.language_model import LanguageModel
from audio_projection.sampling import Choice, derived_seed
from audio_projection.text.input_text import Reading, as_spoken, sentence_ends, split_sentences
from audio_projection.text.markup import ANSWER, read_plain

log = logging.getLogger(__name__)

SAMPLING = Choice(temperature=0.9, top_k=0, top_p=0.95)
_BARREN = 20  # batches in a row without a new text, after which the model is taken to have no more


@dataclass(frozen=True)
class Assignment:
    """What the language model is asked for."""

    prompts: Sequence[str]
    """User turns in the context "chat"; in "raw" the beginnings of texts."""
    count: int
    """Texts wanted, each once."""
    batch: int = 16
    """Prompts that are answered at a time."""
    longest: int = 256
    """Most LLM tokens of an answer."""
    seed: int = 0

    def batch_of(self, number: int) -> list[str]:
        """The prompts of one batch: all of them in a shuffled order, then again in another one, without end."""
        places = range(number * self.batch, (number + 1) * self.batch)
        rounds = (divmod(place, len(self.prompts)) for place in places)
        return [self.prompts[_shuffled(self.seed, turn, len(self.prompts))[place]] for turn, place in rounds]


def write_texts(llm: LanguageModel, out: Path, assignment: Assignment, texts_of: Callable[[str], Iterable[str]]) -> int:
    """Writes `assignment.count` texts into `out`, a line each, and returns how many answers that took.

    `texts_of` makes texts of an answer, none where it is unusable; `AnswerSentences` is one. The same call goes on
    after a stop. Raises AudioProjectionError where `out` exists, where what was begun is another assignment, and when
    the model writes nothing new any more; Interrupted after a Ctrl-C.
    """
    check_unwritten(out)
    folder = out.with_name(f"{out.name}.begun")
    with folder_lock(folder), stop_requested("this batch") as stop:
        answers = _Answers(llm, folder, assignment, stop)
        texts = itertools.islice(_new_texts(answers.batches(), texts_of, folder), assignment.count)
        lines = list(shown(texts, "writing texts", assignment.count))
        write_bytes(out, "".join(f"{line}\n" for line in lines).encode())
    shutil.rmtree(folder, ignore_errors=True)
    return answers.read


def check_unwritten(out: Path) -> None:
    """Raises AudioProjectionError where the file of texts is there already."""
    if out.exists():
        raise AudioProjectionError(f"{out} is there already: give another name, or delete it")


@dataclass(frozen=True)
class AnswerSentences:
    """The sentences of an answer that can be spoken as one utterance, without markdown and list numbers."""

    reading: Reading
    longest: int
    """Most characters; a longer sentence is cut (`tts.longest`)."""
    without: frozenset[str] = frozenset()
    """Texts that are left out, as they are spoken."""

    def __call__(self, answer: str) -> Iterator[str]:
        lines = read_plain(answer, ANSWER).splitlines()
        announcing = (line.rstrip().endswith(":") for line in lines)  # "Here are ten sentences:"
        for line in itertools.compress(lines, (not words for words in announcing)):
            yield from filter(self._is_usable, split_sentences(line, self.longest))

    def _is_usable(self, text: str) -> bool:
        try:
            return "\ufffd" not in text and " " in text and as_spoken(text, self.reading) not in self.without
        except AudioProjectionError:
            return False


class _Answers:
    """The answers of an assignment, batch by batch: those in the folder, then new ones, which are kept there."""

    def __init__(self, llm: LanguageModel, folder: Path, assignment: Assignment, stop: StopRequest) -> None:
        self._llm, self._folder, self._assignment, self._stop = llm, folder, assignment, stop
        self.read = 0
        _check_same(folder / "made_of.json", _conditions(llm, assignment))

    def batches(self) -> Iterator[list[str]]:
        for number in itertools.count():
            path = self._folder / f"{number:06d}.json"
            if not path.is_file():
                self._check_wanted()
                write_json(path, self._answered(number))
            answers = read_json(path)
            if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
                raise AudioProjectionError(f"{path} is damaged: delete it, and its answers are made again")
            self.read += len(answers)
            yield answers

    def _check_wanted(self) -> None:
        if self._stop.is_set():
            raise Interrupted(f"interrupted: {self.read} answers are kept in {self._folder}; the same command goes on")

    def _answered(self, number: int) -> list[str]:
        prompts = self._assignment.batch_of(number)
        seed = abs(derived_seed(self._assignment.seed, number))
        longest, ids = self._assignment.longest, [_prompt_ids(self._llm, prompt) for prompt in prompts]
        written = self._llm.continuations(ids, longest, SAMPLING, seed)
        begun = prompts if self._llm.context == "raw" else [""] * len(prompts)
        texts = (str(self._llm.tokenizer.decode(row, skip_special_tokens=True)) for row in written)
        whole = (len(row) < longest for row in written)
        return [_ended(start + text, end) for start, text, end in zip(begun, texts, whole, strict=True)]


def _new_texts(batches: Iterable[list[str]], texts_of: Callable[[str], Iterable[str]], folder: Path) -> Iterator[str]:
    """Each text once."""
    seen: set[str] = set()
    barren = 0
    for answers in batches:
        found = dict.fromkeys(text for answer in answers for text in texts_of(answer) if text not in seen)
        barren = 0 if found else barren + 1
        if barren == _BARREN:
            raise AudioProjectionError(
                f"the language model wrote {len(seen)} usable texts and nothing new in the last {_BARREN} batches: "
                f"give other prompts (--prompts) or a smaller --count; what was written is kept in {folder}"
            )
        seen.update(found)
        yield from found


def _prompt_ids(llm: LanguageModel, prompt: str) -> list[int]:
    if llm.context == "chat":
        return llm.chat_ids([{"role": "user", "content": prompt}])
    ids, between = llm.head + llm.tokenize(prompt), llm.tokenizer.eos_token_id
    return ids or ([between] if isinstance(between, int) else [0])  # some models begin a text at the end of another


def _ended(text: str, whole: bool) -> str:
    """A text; what was cut off without the sentence that was begun."""
    return text if whole else text[: max(sentence_ends(text), default=0)]


def _shuffled(seed: int, turn: int, count: int) -> list[int]:
    return random.Random(seeded_digest(seed, f"prompts {turn}")).sample(range(count), count)


def _conditions(llm: LanguageModel, assignment: Assignment) -> dict[str, Any]:
    """What an answer depends on."""
    return {
        "language model": llm.fingerprint,
        "llm.context": llm.context,
        "prompts": hashlib.sha256("\n".join(assignment.prompts).encode()).hexdigest(),
        "fit.batch": assignment.batch,
        "llm.max_new_tokens": assignment.longest,
        "seed": assignment.seed,
    }


def _check_same(path: Path, conditions: dict[str, Any]) -> None:
    begun = read_json(path) if path.is_file() else None
    if begun is None:
        write_json(path, conditions)
    elif begun != conditions:
        other = [name for name in conditions if not isinstance(begun, dict) or begun.get(name) != conditions[name]]
        raise AudioProjectionError(
            f"the texts in {path.parent} were begun with another {' and '.join(other)}: set that as it was, or delete "
            "the folder"
        )
