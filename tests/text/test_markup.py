"""Markup that is not spoken, in whole texts and in streams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_projection.text.markup import ANSWER, TEXT, Kept, MarkupFilter, filtered, read_plain


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("This is **very** _important_, ***both*** and __strong__.", "This is very important, both and strong."),
        ("2*3, 2**3, 5 * 3 and snake_case stay.", "2*3, 2**3, 5 * 3 and snake_case stay."),
        ("~~old~~ new, about ~5", "old new, about ~5"),
        ("`a*b` and ``x`y``", "a*b and xy"),
        ("# Title\nText ##\n- one\n* two\n+ three\n> four", "Title Text one two three four"),
        ("1. One\n2) Two", "1. One 2) Two"),
        ("Title\n=====\n\n---\nText", "Title Text"),
        ("| a | b |\n|---|:-:|\n| c | d |", "a b c d"),
        ("See [the guide](https://a.org/b_(c)?d=1), ![a cat](cat.png) and [one][2].", "See the guide, a cat and one."),
        ("As shown [1] and [2, 3].[^4] [x] done", "As shown and . done"),
        ("Use <https://a.org> now", "Use https://a.org now"),
        (r"\*not\* \# this", "*not* # this"),
        ("Tom &amp; Jerry&nbsp;&euro;5 &#39;x&#x27; &foo; AT&T", "Tom & Jerry €5 'x' &foo; AT&T"),
        ("<p>Hi <b class='x'>there</b></p><br/>you<!-- no -->", "Hi there you"),
        ("a < b, a<b and c>d, x <- y, 5 <6", "a < b, a<b and c>d, x <- y, 5 <6"),
        ("<script>let x = 1;</script>Yes <style>p {}</style>no", "Yes no"),
        ("<speak>Wait <break time='1s'/>here <prosody rate=\"slow\">now</prosody></speak>", "Wait , here now"),
        ('<sub alias="World Wide Web">WWW</sub> is old', "World Wide Web is old"),
        ("Open 🎉🎉 the ❤️ door 👩‍👧", "Open the door \u200d"),
        ("C# and F# stay, #1 too", "C# and F# stay, #1 too"),
    ],
)
def test_marks_go_and_words_stay(written: str, plain: str) -> None:
    assert words(read_plain(written)) == words(plain)


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("### Steps\n\n1. **Open** the box.\n2. Take the *small* key.", "Steps Open the box. Take the small key."),
        ("Sure! Here is a list:\n- apples\n- pears", "Sure! Here is a list: apples pears"),
        ("<think>The user wants a fact.</think>Water boils.", "Water boils."),
        ("<think>\nNever closed", ""),
        ("Hm</think>Yes", "Yes"),
        ("See [the guide](https://example.org/a/b?c=1) for more.", "See the guide for more."),
        ("Run this:\n```python\nprint(1)\n# no\n```\nThen wait.", "Run this: Then wait."),
        ("Run this:\n~~~\n```\n~~~\nThen\n```\nunclosed", "Run this: Then"),
        ("Use the `print` command.", "Use the print command."),
        ("In <https://a.org> see", "In see"),
        ("| Day | Sky |\n|-----|-----|\n| Monday | blue |\n", "Day Sky Monday blue"),
        ("- [ ] milk\n- [x] bread", "milk bread"),
    ],
)
def test_of_an_answer_thoughts_and_code_go_too(written: str, plain: str) -> None:
    assert words(read_plain(written, ANSWER)) == plain


PIECES = [
    "*",
    "**",
    "_",
    "`",
    "```",
    "\n",
    "\n\n",
    "# ",
    "- ",
    "1. ",
    "12",
    "[",
    "]",
    "(",
    ")",
    "![",
    "<think>",
    "</think>",
]
PIECES += [
    "<b>",
    "</b>",
    "<",
    ">",
    "&amp;",
    "&",
    "|",
    "---",
    "~~",
    "\\",
    "word",
    " ",
    "a_b",
    "<break/>",
    "👍",
    "|--|",
    " #",
]
PIECES += ["[1]", "~", "<script>", "</script>", "> ", "é", ".", "#", "!", "5"]
written_texts = st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text()


@given(written_texts, st.lists(st.integers(0, 60), max_size=8), st.sampled_from([TEXT, ANSWER]))
def test_any_chunks_give_the_same(text: str, cuts: list[int], left_out: frozenset[str]) -> None:
    whole = list(filtered([text], MarkupFilter(left_out)))
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in zip(places, places[1:], strict=False)]
    assert list(filtered(chunks, MarkupFilter(left_out))) == whole
    assert list(filtered(text, MarkupFilter(left_out))) == whole


@given(written_texts)
def test_places_ascend_and_what_stays_is_in_its_place(text: str) -> None:
    kept = list(filtered([text], MarkupFilter()))
    places = [each.place for each in kept]
    assert places == sorted(places)
    assert all(text[each.place] == each.character for each in kept if each.character.isalnum() and "&" not in text)


def test_a_plain_word_passes_at_once() -> None:
    markup = MarkupFilter(ANSWER)
    assert list(markup.feed("The")) == [Kept("T", 0), Kept("h", 1), Kept("e", 2)]
    assert list(markup.feed(" **")) == [Kept(" ", 3)]
    assert list(markup.feed("fox**")) == [Kept("f", 6), Kept("o", 7), Kept("x", 8)]
    assert list(markup.end()) == []
