"""Random Unicode through `tts.normalise: english`: only learned characters come out, nothing is refused, all is quick.

python benchmarks/random_texts.py                     # 100,000 texts, 2,000 of mixed scripts, times
python benchmarks/random_texts.py --texts 1000 --seed 7
"""

from __future__ import annotations

import argparse
import json
import random
import time
import unicodedata

from audio_projection.files.locations import PACKAGE
from audio_projection.text.characters import read_characters
from audio_projection.text.input_text import Reading

SCRIPTS = {
    "Latin": (0x41, 0x24F), "Greek": (0x370, 0x3FF), "Cyrillic": (0x400, 0x4FF), "Hebrew": (0x590, 0x5FF),
    "Arabic": (0x600, 0x6FF), "Devanagari": (0x900, 0x97F), "Thai": (0xE00, 0xE7F), "Hangul": (0xAC00, 0xD7A3),
    "Kana": (0x3040, 0x30FF), "Han": (0x4E00, 0x9FFF), "marks": (0x2000, 0x2BFF), "emoji": (0x1F300, 0x1FAFF),
}  # fmt: skip
WRITTEN = [
    "$5.50",
    "10:30",
    "5/3/2021",
    "Dr.",
    "St.",
    "<b>",
    "</b>",
    "&amp;",
    "**bold**",
    "#",
    "-",
    "1.",
    "`x`",
    "[a](b)",
    "http://a.com",
    "@me",
    "#tag",
    "5'10\"",
    "20%",
    "1-2",
    "IV",
    "ALL",
    "CAPS",
    "NASA",
    "it's",
    "…",
    "—",
    "“q”",
    "½",
    "x²",
    "10^6",
    "<break/>",
    "\n\n",
    "|",
    "a.b",
    "1,000",
    "'tis",
    "3rd",
    "1990s",
    "km",
    "5km",
    "°C",
    "U.S.",
    "a.m.",
    "<=",
    "->",
    "C++",
    "²",
    "™",
    "№",
]
LONGEST = 10_000


def random_text(draw: random.Random) -> str:
    """Any characters, or pieces of what people write, or both."""
    kind = draw.random()
    if kind < 0.4:
        return "".join(_character(draw) for _ in range(draw.randint(0, 60)))
    if kind < 0.7:
        return "".join(draw.choice(WRITTEN) + draw.choice(["", " ", "", "."]) for _ in range(draw.randint(0, 12)))
    return "".join(draw.choice([draw.choice(WRITTEN), _character(draw), " "]) for _ in range(draw.randint(0, 30)))


def mixed_scripts(draw: random.Random) -> str:
    """Words of several scripts."""
    words = []
    for _ in range(draw.randint(1, 20)):
        first, last = draw.choice(list(SCRIPTS.values()))
        words.append("".join(chr(draw.randint(first, last)) for _ in range(draw.randint(1, 8))))
    return " ".join(words)


def _character(draw: random.Random) -> str:
    limit = draw.choice([0x7F, 0x24F, 0x2BFF, 0xFFFF, 0x10FFFF])
    while True:
        character = chr(draw.randint(1, limit))
        if unicodedata.category(character) != "Cs":
            return character


def long_texts(draw: random.Random) -> list[str]:
    """Texts of 10,000 characters that a careless pattern would be slow on."""
    pieces = [
        *WRITTEN,
        "a",
        "A",
        "1",
        " ",
        "(",
        "-",
        ".",
        "'",
        '"',
        "<",
        "[",
        "*",
        "_",
        "é",
        "ع",
        "👍",
        "\n",
        "a-b",
        "1 ",
    ]
    repeated = [(piece * LONGEST)[:LONGEST] for piece in pieces if piece]
    mixed = ["".join(random_text(draw) for _ in range(400))[:LONGEST] for _ in range(20)]
    return repeated + mixed


def seconds(reading: Reading, text: str) -> float:
    times = []
    for _ in range(3):
        began = time.process_time()
        reading.spoken(text)
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--texts", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    learned = read_characters(PACKAGE / "nano" / "tts")
    assert learned is not None
    reading, draw = Reading("english", None, learned), random.Random(given.seed)
    texts = (random_text(draw) for _ in range(given.texts))
    mixed = (mixed_scripts(draw) for _ in range(2_000))
    wrong = [text for source in (texts, mixed) for text in source if set(reading.spoken(text)) - learned]
    plain = ("The old dog slept beside the stove and dreamt of rain. " * 200)[:LONGEST]
    control = seconds(reading, plain)
    worst = max(long_texts(draw), key=lambda text: seconds(reading, text))
    print(
        json.dumps(
            {
                "texts": given.texts + 2_000,
                "with other characters": len(wrong),
                "examples": wrong[:5],
                "plain text of 10,000 characters, s": round(control, 4),
                "slowest text, times as long": round(seconds(reading, worst) / control, 1),
                "it begins": worst[:20],
            },
            ensure_ascii=False,
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
