"""How a text is read aloud: cases, learned characters, the user's own spellings."""

from __future__ import annotations

import logging
import random
import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.text import input_text
from audio_projection.text.characters import (
    FILE,
    fold,
    learned_characters,
    plain_forms,
    read_characters,
    write_characters,
)
from audio_projection.text.input_text import Reading, as_spoken
from audio_projection.text.languages import foreign_language
from audio_projection.text.lexicon import Lexicon
from audio_projection.text.markup import ANSWER, read_plain
from helpers.nano import CHARACTERS
from helpers.timing import least_seconds

CASES = Path(__file__).with_name("cases") / "read_aloud.tsv"
LEARNED = frozenset(string.ascii_letters + " \n.,?!'") - {"Z"}
READER = Reading("english", characters=LEARNED)


def compared(text: str) -> str:
    """Small letters, no punctuation but apostrophes, hyphens as spaces."""
    plain = re.sub(r"[^\w\s']", " ", text.lower().replace("-", " ").replace("’", "'"))
    return " ".join(re.sub(r"(?<!\w)'|'(?!\w)", " ", plain).split())


def cases(path: Path) -> list[tuple[str, list[str]]]:
    """Texts and their right readings."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return [(text, said.split(" | ")) for *_, text, said in rows]


@pytest.mark.parametrize(("written", "readings"), cases(CASES))
def test_reported_kinds(written: str, readings: list[str]) -> None:
    assert compared(READER.spoken(written)) in map(compared, readings)


def test_the_reported_sentences(shared: Path) -> None:
    wrong = [
        (written, READER.spoken(written))
        for written, readings in cases(shared / "cases" / "read_aloud.tsv")
        if compared(READER.spoken(written)) not in map(compared, readings)
    ]
    assert not wrong


def test_the_reported_answers(shared: Path) -> None:
    for written, readings in cases(shared / "cases" / "answers.tsv"):
        said = READER.spoken(read_plain(written.replace("\\n", "\n"), ANSWER))
        assert compared(said) in map(compared, readings)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("I don’t think it’s ‘good’.", "I don't think it's good."),
        ("Bring the map (the old one) with you.", "Bring the map, the old one, with you."),
        ("The ship — old -- sailed – at – dawn.", "The ship, old, sailed, at, dawn."),
        ("Well… maybe. Wait... What?", "Well, maybe. Wait. What?"),
        ("He said “no”; then: left!!", "He said no, then, left!"),
        ("Naïve café, Größe, smørrebrød, Łódź", "Naive cafe, Grosse, smorrebrod, Lodz"),
        ("ﬁne 𝐛𝐨𝐥𝐝 ｆｕｌｌ １２", "fine bold full twelve"),
        ("Zoë and ZOO", "zoe and zoo"),
        ("HELP ME NOW! The BBC and NASA DID it.", "Help me now! The B B C and nasa did it."),
        ("<speak>One <break/> two</speak>", "One, two"),
        ("a well-known, re-used part", "a well known, re used part"),
        ("हिन्दी and ١٢", "and twelve"),
    ],
)
def test_marks_become_plain_ones_or_pauses(written: str, spoken: str) -> None:
    assert READER.spoken(written) == spoken


def test_without_a_list_letters_of_all_scripts_stay() -> None:
    assert as_spoken("Größe: 数字 (é) — “x”", "english") == 'Größe: 数字 (é), "x"'
    assert as_spoken("An old हिन्दी é\u0301 book of 5", "english") == "An old हिन्दी é\u0301 book of five"


@given(
    st.text()
    | st.lists(
        st.sampled_from(
            [
                "$5",
                "10:30",
                "Dr.",
                "<b>",
                "&amp;",
                "**",
                "_",
                "—",
                "“",
                "½",
                "x²",
                "IV",
                "CAPS",
                "é",
                "ß",
                "👍",
                "Ω",
                "'",
                "-",
                ";",
                "ﷺ",
            ]
        )
    ).map(" ".join)
)
def test_only_learned_characters_come_out(text: str) -> None:
    spoken = READER.spoken(text)
    assert set(spoken) <= LEARNED
    assert spoken == spoken.strip() and "  " not in spoken


@given(st.text(), st.sets(st.characters(codec="latin-1"), min_size=1))
def test_whatever_a_tts_has_learned(text: str, learned: set[str]) -> None:
    assert set(fold(text, frozenset(learned) | {" ", "\n"})) <= learned | {" ", "\n"}


def test_nothing_that_the_voice_can_say() -> None:
    assert READER.spoken("数字") == ""
    with pytest.raises(AudioProjectionError, match="nothing to speak: this voice"):
        as_spoken("数字", READER)


def test_a_long_text_takes_no_longer_than_ten_plain_ones() -> None:
    plain = ("The old dog slept beside the stove and dreamt of rain. " * 200)[:10_000]
    control = least_seconds(lambda: READER.spoken(plain))
    draw = random.Random(0)
    for piece in [
        "|",
        "THE ",
        "1-",
        "&",
        "<b ",
        "[a](",
        "'",
        "“",
        "**a",
        "a_",
        "É",
        "1.5kg-",
        "# ",
        "👍",
        "IV ",
        "((",
        ".",
    ]:
        text = (piece * 10_000)[:10_000]
        assert least_seconds(lambda text=text: READER.spoken(text)) < 10 * control + 0.02, piece  # type: ignore[misc]
    mixed = "".join(draw.choice("$5.1-/: <>*_[](aA'\"") for _ in range(10_000))
    assert least_seconds(lambda: READER.spoken(mixed)) < 10 * control


# --- languages, SSML: one warning


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The old dog slept beside the stove.", None),
        ("H2O and CO2 mix.", None),
        ("Das ist nicht der Hund, den ich auf dem Bild sah.", "German"),
        ("Je ne sais pas où il est, mais elle est avec nous.", "French"),
        ("Я не знаю, где он.", "Cyrillic"),
        ("你好吗", "Cjk"),
        ("Pizza margherita", None),
        ("Die young in the war.", None),
        ("12 34 !", None),
    ],
)
def test_other_languages(text: str, language: str | None) -> None:
    assert foreign_language(text) == language


def test_another_language_is_passed_on_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    input_text._warned.clear()
    text = "Das ist nicht der Hund, den ich um 10:30 auf dem Bild sah."
    with caplog.at_level(logging.WARNING):
        assert as_spoken(text, "english") == text
        as_spoken("Je ne sais pas où il est, mais elle est avec nous.", "english")
    assert [record.message for record in caplog.records if "German" in record.message]
    assert len(caplog.records) == 1


def test_ssml_is_left_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    input_text._warned.clear()
    with caplog.at_level(logging.WARNING):
        READER.spoken("<speak>One <break time='1s'/></speak>")
        READER.spoken("<prosody rate='slow'>two</prosody>")
        READER.spoken("three <break/> four")
    assert len(caplog.records) == 1 and "SSML" in caplog.records[0].message


# --- the list of characters


def test_the_list_lies_beside_the_tts(tmp_path: Path) -> None:
    assert read_characters(tmp_path) is None
    write_characters(tmp_path, learned_characters(["ab\tc", "É"]))
    assert read_characters(tmp_path) == frozenset("abc É\n")
    for content in ("{", "[]", '{"characters": "12"}', '{"characters": 5}'):
        (tmp_path / FILE).write_text(content)
        with pytest.raises(AudioProjectionError, match=FILE):
            read_characters(tmp_path)


def test_the_bundled_list_holds_its_texts_and_no_figures() -> None:
    assert learned_characters([(NANO_FOLDER / "texts.txt").read_text("utf-8")]) | {"\n"} <= CHARACTERS
    assert set(string.ascii_lowercase + " ,.'?!") <= CHARACTERS and not any(map(str.isdigit, CHARACTERS))


def test_plain_forms() -> None:
    assert plain_forms("① ㎏ ﬃ ½ ² … Ⅳ ٣ ﹣ ¨") == "1 kg ffi ½ ² … IV 3 - ¨"


# --- the user's own spellings


def test_a_lexicon_comes_before_the_rules(tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text(
        "# mine\nnginx\tengine X\nSQL\tsequel\n5G\tfive gee\nMr. T\tmister tee\n\n", "utf-8"
    )
    lexicon = Lexicon.from_file(tmp_path / "words.tsv")
    text = "Nginx, nginxes and MySQL; SQL over 5G for Mr. T."
    assert (
        as_spoken(text, Reading("none", lexicon)) == "Engine X, nginxes and MySQL; sequel over five gee for mister tee."
    )
    assert Reading("english", lexicon, LEARNED).spoken(text) == (
        "Engine X, nginxes and MySQL, sequel over five gee for mister tee."
    )
    assert lexicon.name != Lexicon({}).name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("word spelling", "line 1: expected a word, a tab and its spelling"),
        ("a\tb\n\tc", "line 2: the word before the tab is missing"),
        ("a\t ", "line 1: the spelling of 'a' has no letter"),
        ("a\tb\na\tc", "line 2: 'a' has two spellings, 'b' and 'c'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "words.tsv").write_text(content, "utf-8")
    with pytest.raises(AudioProjectionError, match=message):
        Lexicon.from_file(tmp_path / "words.tsv")


def test_a_lexicon_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AudioProjectionError, match="cannot be read"):
        Lexicon.from_file(tmp_path / "none.tsv")
    (tmp_path / "latin").write_bytes(b"caf\xe9\tx")
    with pytest.raises(AudioProjectionError, match="not UTF-8"):
        Lexicon.from_file(tmp_path / "latin")
