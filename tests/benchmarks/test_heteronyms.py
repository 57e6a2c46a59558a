"""The heteronyms of the benchmark: every word in two readings, each as the recipe's teacher reads the sentence."""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter

import pytest

from helpers.paths import REPOSITORY

SENTENCES = REPOSITORY / "benchmarks" / "heteronyms.tsv"


def rows() -> list[dict[str, str]]:
    with SENTENCES.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_every_word_has_two_readings_of_four_sentences() -> None:
    counts = Counter((row["word"], row["phones"]) for row in rows())
    assert len(rows()) >= 100 and set(counts.values()) == {4}
    assert set(Counter(word for word, _ in counts).values()) == {2}
    assert len({row["sentence"] for row in rows()}) == len(rows())


def test_the_teacher_reads_each_sentence_as_it_is_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hibari", reason="needs the extra `recipe`")
    monkeypatch.syspath_prepend(str(REPOSITORY / "recipes" / "nano"))
    teacher = pytest.importorskip("teacher").teacher()
    for row in rows():
        words = [word.strip(".,?").lower() for word in row["sentence"].split()]
        spoken = [word for word in re.split(r"[\s,.?!;:]+", " ".join(teacher.readings(row["sentence"]))) if word]
        assert len(spoken) == len(words), row["sentence"]
        assert spoken[words.index(row["word"])] == row["phones"], row["sentence"]
    sys.modules.pop("teacher", None)
