"""What can be spoken, and how long text is cut."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_projection.errors import AudioProjectionError
from audio_projection.text.input_text import check_text, is_speakable, split_sentences

unicode_text = st.text(st.characters(exclude_categories=["Cs", "Cf"], exclude_characters="\0"))
prose = st.text(st.sampled_from("aé。.?! ,;\n\u0301\u200dनि।ع؟字1👩"))


def letters(text: str) -> str:
    return "".join(character for character in text if unicodedata.category(character)[0] in "LN")


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "nothing to speak"),
        (" \n\t", "nothing to speak"),
        ("...!?", "nothing to speak"),
        ("😀👍🏽🎉", "nothing to speak"),
        ("\u200b\u200d", "nothing to speak"),
        ("a\0b", "NUL character at position 1"),
        ("ab\ud83d", r"U\+D83D\) at position 2"),
        (None, "must be a string, not NoneType"),
    ],
)
def test_refused_in_one_line(text: str, word: str) -> None:
    with pytest.raises(AudioProjectionError, match=word) as refused:
        check_text(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("  Hello\t\n world \u3000", "Hello world"),
        ("One.\r\n\r\n\r\nTwo", "One.\n\nTwo"),
        ("One\u2029Two\u2028Three", "One\n\nTwo Three"),
        ("cafe\u0301", "café"),
        ("a\u0007b", "a b"),
        ("\ufeffsoft\u00adhyphen \u202eabc\u202c", "softhyphen abc"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("7", "7"),
        ("你好", "你好"),
    ],
)
def test_tidied(text: str, spoken: str) -> None:
    assert check_text(text) == spoken


@given(unicode_text)
def test_tidying_is_stable_and_keeps_every_letter(text: str) -> None:
    if not is_speakable(text):
        with pytest.raises(AudioProjectionError):
            check_text(text)
        return
    spoken = check_text(text)
    assert check_text(spoken) == spoken
    assert letters(spoken) == letters(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Hello there. How are you? Fine!", ["Hello there.", "How are you?", "Fine!"]),
        ("你好。今天怎么样？很好！", ["你好。", "今天怎么样？", "很好！"]),
        ("كيف حالك؟ أنا بخير.", ["كيف حالك؟", "أنا بخير."]),
        ("यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है।", "यह दूसरा है।"]),
        ("Dr. Smith met J. Doe at 3.14 p.m. yesterday.", ["Dr. Smith met J. Doe at 3.14 p.m. yesterday."]),
        ("He said “Stop!” She did.", ["He said “Stop!”", "She did."]),
        ("A title\n\nThe text", ["A title", "The text"]),
        ("He lives at No. 5 Elm Road. No. 5!", ["He lives at No. 5 Elm Road.", "No. 5!"]),
        ("On Jan. 5 Gov. Fox came. In Jan. He left.", ["On Jan. 5 Gov. Fox came.", "In Jan.", "He left."]),
        ("The U.S. Army left the U.S. She did too.", ["The U.S. Army left the U.S.", "She did too."]),
        ("So am I. You too.", ["So am I.", "You too."]),
        ("Wait... what? Yes... No.", ["Wait... what?", "Yes...", "No."]),
        ("Visit example.com now", ["Visit example.com now"]),
        ("שלום עולם. hello world!", ["שלום עולם.", "hello world!"]),
    ],
)
def test_sentence_ends_of_many_scripts(text: str, sentences: list[str]) -> None:
    assert split_sentences(text, 200) == sentences


@pytest.mark.parametrize(
    ("text", "longest", "pieces"),
    [
        ("one two, three four; five six", 12, ["one two,", "three four;", "five six"]),
        ("one two three four", 9, ["one two", "three", "four"]),
        ("abcdefghij klm", 4, ["abcd", "efgh", "ij", "klm"]),
        ("字字，字字字、字", 4, ["字字，", "字字字、", "字"]),
        ("a\u0301a\u0301a\u0301", 3, ["a\u0301", "a\u0301", "a\u0301"]),
    ],
)
def test_too_long_sentences(text: str, longest: int, pieces: list[str]) -> None:
    assert split_sentences(text, longest) == pieces


@given(prose | unicode_text, st.integers(1, 30))
def test_nothing_is_lost_and_every_piece_fits(text: str, longest: int) -> None:
    pieces = split_sentences(text, longest)
    assert squeezed("".join(pieces)) == squeezed(text)
    assert all(0 < len(piece) <= longest and piece == piece.strip() for piece in pieces)


def test_ten_thousand_characters_are_cut_at_sentence_ends() -> None:
    text = check_text("The quick brown fox jumps over the lazy dog. " * 250)
    pieces = split_sentences(text, 200)
    assert len(text) > 10_000 and len(pieces) == 250 and set(pieces) == {"The quick brown fox jumps over the lazy dog."}


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(AudioProjectionError, match="at least 1"):
        split_sentences("a", 0)
