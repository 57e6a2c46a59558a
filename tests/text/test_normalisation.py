"""Spelling English out: what is said for what is written, and where it is done."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from num2words import num2words

from audio_projection.config import load_config
from audio_projection.data.pairs import Pair, PairFolder
from audio_projection.data_loader import load_pairs, read_texts, transcripts_to_fit
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.word_errors import word_errors
from audio_projection.text.input_text import as_spoken
from audio_projection.text.normalisation import READING, spell_out
from audio_projection.text.normalisation.abbreviations import ABBREVIATIONS, TITLES
from audio_projection.text.normalisation.measures import UNITS
from audio_projection.text.normalisation.patterns import MONTHS
from helpers.timing import least_seconds
from helpers.training import load_tts, make_config, make_pairs, manifest_config, spoken_config, write_noise
from helpers.voices import make_voice

SPOKEN = {
    # cardinals, decimals, negatives
    "I have 0 cats and 12 dogs.": "I have zero cats and twelve dogs.",
    "about 1,234 men": "about one thousand two hundred and thirty four men",
    "all 1000000 of 1,000,005": "all one million of one million and five",
    "it is 3.14 or 0.5 or .25": "it is three point one four or zero point five or point two five",
    "from -5 to −3.2": "from minus five to minus three point two",
    "one,2,3": "one,two,three",
    "sum 2+2=4": "sum two plus two equals four",
    "the 5 - 3 of it": "the five minus three of it",
    "a 3x4 and a 3 × 4": "a three by four and a three times four",
    "agent 007 and 05": "agent zero zero seven and zero five",
    "card 4111111111": "card four one one one one one one one one one",
    "version 1.2.3": "version one point two point three",
    "A4, B12, 3D, COVID-19, a 5-year-old": "A four, B twelve, three D, COVID-nineteen, a five-year-old",
    "x² and 10³": "x squared and ten cubed",
    # ordinals
    "the 1st, 22nd, 3RD and 101st": "the first, twenty second, third and one hundred and first",
    "the 1,000th": "the one thousandth",
    "He came in 1st. She came 3rd.": "He came in first. She came third.",
    "It was May 1st. He left.": "It was May first. He left.",
    # years
    "born in 1987": "born in nineteen eighty seven",
    "since 2005": "since two thousand and five",
    "in 1804, in 1066, in 1900": "in eighteen oh four, in ten sixty six, in nineteen hundred",
    "by 2021, but 1066 men": "by twenty twenty one, but one thousand and sixty six men",
    "the 1990s, the '90s and the 80s": "the nineteen nineties, the nineties and the eighties",
    "the 1900s and 747s": "the nineteen hundreds and seven hundred and forty sevens",
    "of 1987's best": "of nineteen eighty seven's best",
    # dates
    "on 3 May 1999": "on the third of May, nineteen ninety nine",
    "on the 3rd of May": "on the third of May",
    "on May 3rd, 2021, he": "on May third, twenty twenty one, he",
    "on May 3": "on May third",
    "in May 2021": "in May twenty twenty one",
    "on Jan. 5, 2020": "on January fifth, twenty twenty",
    "on 5 Jan. He came": "on the fifth of January. He came",
    "In May 20 people, on May 20 he": "In May twenty people, on May twentieth he",
    "May 3-5 or 3-5 May": "May third to fifth or the third to fifth of May",
    "due 2021-05-03": "due May third, twenty twenty one",
    "due 5/3/2021 or 25/12/99": "due May third, twenty twenty one or December twenty fifth, nineteen ninety nine",
    # times
    "at 10:30 or 10:00": "at ten thirty or ten o'clock",
    "at 17:45 or 17:00": "at seventeen forty five or seventeen hundred",
    "at 10.30 am or 10.30": "at ten thirty A M or ten point three zero",
    "some 1.50 amperes": "some one point five zero amperes",
    "at 10:00 A.M. or 5 P.M. he": "at ten A M or five P M he",
    "at 5 pm, 9:00 AM": "at five P M, nine A M",
    "at 7:05 a.m. He": "at seven oh five A M. He",
    "at 7:05 a.m. he": "at seven oh five A M he",
    "at 10:00 a.m. or this p.m. He": "at ten A M or this P M. He",
    "in 1:02:03": "in one oh two and three seconds",
    "open 9am-5pm": "open nine A M to five P M",
    "open 9 a.m.-5 p.m. daily": "open nine A M to five P M daily",
    "a 16:9 screen": "a sixteen to nine screen",
    # money
    "only $5, $1": "only five dollars, one dollar",
    "for $3.50": "for three dollars and fifty cents",
    "for $0.99 or 99¢": "for ninety nine cents or ninety nine cents",
    "for £20 or £3.01": "for twenty pounds or three pounds and one penny",
    "for €1.2 million": "for one point two million euros",
    "for $5bn, $5k": "for five billion dollars, five thousand dollars",
    "for $1,000.00": "for one thousand dollars",
    "some $5-10 million, £1-2": "some five to ten million dollars, one to two pounds",
    "from $1.50-2.50": "from one dollar and fifty cents to two dollars and fifty cents",
    "a $5 bill, a $2 million house": "a five dollar bill, a two million dollar house",
    "a $5-$6 fee": "a five to six dollar fee",
    "for US$5, 5 USD or $2T": "for five U S dollars, five dollars or two trillion dollars",
    "a $100 000 loan": "a one hundred thousand dollar loan",
    "owes -$5 or 5 €": "owes minus five dollars or five euros",
    # percent, fractions
    "up 5% or 3.5 %": "up five percent or three point five percent",
    "some 10-20%": "some ten to twenty percent",
    "a 1/2, 3/4 or 2/3": "a one half, three quarters or two thirds",
    "for 2 1/2 or 2½ years": "for two and a half or two and a half years",
    "the 1/100th or 3/100ths": "the one one hundredth or three one hundredths",
    "went 50-50": "went fifty fifty",
    "went 50/50, 24/7, 9/11": "went fifty fifty, twenty four seven, nine eleven",
    # units
    "ran 5 km, not 1 km": "ran five kilometers, not one kilometer",
    "a 5-km run of 3.5kg": "a five kilometer run of three point five kilograms",
    "10 cm, 2 mm, 3 m, 6 ft, 5 lb": "Ten centimeters, two millimeters, three meters, six feet, five pounds",
    "at 60 mph or 90 km/h": "at sixty miles per hour or ninety kilometers per hour",
    "is 20°C or 68 °F": "is twenty degrees Celsius or sixty eight degrees Fahrenheit",
    "is 30°C-35°C": "is thirty degrees Celsius to thirty five degrees Celsius",
    "is 5'10\" tall": "is five foot ten tall",
    "is 9.8 m/s²": "is nine point eight meters per second squared",
    "the 1.5m people, 3bn stars, 5m long": "the one point five million people, three billion stars, five meters long",
    "is 6 ft. tall": "is six feet tall",
    "is 6 ft. He": "is six feet. He",
    "turn 90°": "turn ninety degrees",
    "½ km of 12 m²": "One half kilometer of twelve square meters",
    # ranges and phone numbers
    "in 10-20 or 10–20": "in ten to twenty or ten to twenty",
    "the 2nd-3rd floor": "the second to third floor",
    "in the 1920s-1930s": "in the nineteen twenties to nineteen thirties",
    "all 1 000 000 of 5 200 men": "all one million of five two hundred men",
    "in 1990-1995": "in nineteen ninety to nineteen ninety five",
    "call 555-1234": "call five five five, one two three four",
    "call (555) 123-4567": "call five five five, one two three, four five six seven",
    "call +44 20 7946 0958": "call plus four four, two zero, seven nine four six, zero nine five eight",
    "call 911": "call nine one one",
    "or +44 7911 123456": "or plus four four, seven nine one one, one two three four five six",
    "call 1-800-555-1234": "call one, eight zero zero, five five five, one two three four",
    "some 200-1000": "some two hundred to one thousand",
    # abbreviations and signs
    "Mr. Poe, Mrs. Roe, Ms. Doe": "Mister Poe, Missus Roe, Miz Doe",
    "Mr Poe and Dr Roe": "Mister Poe and Doctor Roe",
    "Dr. Lee and Prof. Roe": "Doctor Lee and Professor Roe",
    "St. Paul of Baker St. is": "Saint Paul of Baker Street is",
    "lives on Main St. My": "lives on Main Street. My",
    "lives on Ocean Dr. in, at 12 Elm Dr. He": "lives on Ocean Drive in, at twelve Elm Drive. He",
    "of Dr. Lee of St. James St. Bob": "of Doctor Lee of Saint James Saint Bob",  # a name or a street: a name
    "lives on St. James St. Bob": "lives on Saint James Street. Bob",
    "on Monday Dr. Lee, in 1948 Louis St. Laurent": "on Monday Doctor Lee, in nineteen forty eight Louis Saint Laurent",
    "cats, e.g. lions, i.e. big": "cats, for example lions, that is big",
    "cats vs. dogs vs birds": "cats versus dogs versus birds",
    "and so on, etc.": "and so on, et cetera.",
    "No. 5, #6, pp. 10-12": "Number five, number six, pages ten to twelve",
    "No. I said no.": "No. I said no.",
    "A & B, Q&A, me@home": "A and B, Q and A, me at home",
    "a C++ line ====": "a C plus plus line ====",
    # Roman numerals, acronyms
    "Henry VIII and Elizabeth II's": "Henry the eighth and Elizabeth the second's",
    "King George I, but George I know": "King George the first, but George I know",
    "World War II, Chapter IV": "World War two, Chapter four",
    "BBC, DVDs, MP3, NATO, FBI, HMM": "B B C, D V Ds, M P three, NATO, F B I, HMM",
    "the USA, the UK's CEO, the US": "the U S A, the U K's C E O, the U S",
    "the U.S. Army left the U.S. He did": "the U S Army left the U S. He did",
    "by J.R.R. Tolkien, in the U.S.": "by J R R Tolkien, in the U S.",
    "see www.example.com.": "see W W W dot example dot com.",
    "see https://a-b.co.uk/c?d=1, or": "see a dash b dot co dot uk slash c question mark d equals one, or",
    "write j.doe@example.com": "write j dot doe at example dot com",
    "WE'LL see XX": "WE'LL see XX",
    # a sentence that begins with a figure
    'He ran. 5 men came. "10!"': 'He ran. Five men came. "Ten!"',
}


@pytest.mark.parametrize("written", SPOKEN)
def test_what_is_written_is_said(written: str) -> None:
    assert spell_out(written) == SPOKEN[written]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  The old dog slept;\tbeside the - warm - stove.\r\n\n",
        "It's well-known, isn't it? 'Yes!' she said... (Quietly.)",
        "Henry and I may march in June. No. Nobody said no.",
        "Größe, ١٢٣, 数字, 👍 # * / ~ ^ | --- ====",
        "NASA is old. A cat is a CAT. Give US that.",
        "Malcolm X met J. Smith. He came.Next",
        "ſt. Paul, ı.e. other letters",
    ],
)
def test_other_text_comes_back_as_it_is(text: str) -> None:
    assert spell_out(text) == text


RULES = {rule.words: rule for rule in READING if rule.words.__doc__ and " -> " in rule.words.__doc__}


@pytest.mark.parametrize("words", RULES, ids=lambda words: words.__name__)
def test_the_examples_of_each_rule(words: Callable[[re.Match[str]], str | None]) -> None:
    for line in filter(lambda line: " -> " in line, (words.__doc__ or "").splitlines()):
        written, said = line.strip().split(" -> ")
        begins = said if written[0].islower() else said[0].upper() + said[1:]
        assert begins in (spell_out(written), spell_out(written, READING)), written


def test_no_rule_sees_what_another_wrote() -> None:
    assert spell_out("Two TVs. Use LLMs. In 20 ms.") == "Two T Vs. Use L L Ms. In twenty milliseconds."


def test_the_held_out_sentences_are_words_only(repository: Path) -> None:
    text = (repository / "benchmarks/heldout.txt").read_text(encoding="utf-8")
    assert spell_out(text) == text


PIECES = [
    *"0123456789 .,:;-–—−/⁄'’\"()$£€¥¢%&@+=×÷±°º²³½¾#№xXsmMpPaAIVLBCéßſıİK\n\t_",
    *(*UNITS, *TITLES, *ABBREVIATIONS, *MONTHS),
    *(
        "www.",
        "://",
        ".com",
        ".co.uk",
        "a-b",
        "U.S.",
        "USA",
        "J.R.",
        "the US",
        "on Main",
        "Elm",
        "US$",
        "USD",
        "911",
        " 000",
    ),
    *("Mr.", "Dr.", "St.", "No.", "pp.", "Henry", "King", "VIII", "World War ", "BBC", "LL", "DVDs", "a.m.", "pm"),
    *("1st", "nd", "TH", "1987", "10-20", "1,000", "in ", "the ", "to ", " of ", "million", "bn", "k", "Smith", "Dec."),
]


@given(st.text() | st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_no_digit_is_left_and_a_second_time_changes_nothing(text: str) -> None:
    spoken = spell_out(text)
    assert not re.search("[0-9]", spoken)
    assert spell_out(spoken) == spoken


@given(st.text("abcdefghijklmnopqrstuvwxyz ,;:!?-'\"()\n"))
def test_small_letters_are_never_touched(text: str) -> None:
    without = re.sub(r"\b(vs|phd)\b", "", text)
    assert spell_out(without) == without


@given(st.integers(0, 10**21 - 1))
def test_numbers_are_those_of_num2words(number: int) -> None:
    assert spell_out(f"so {number:,}") == "so " + num2words(number).replace(",", "").replace("-", " ")


def seconds_for(text: str) -> float:
    """The number words are known after the first time."""
    return least_seconds(lambda: spell_out(text))


def test_long_texts_are_quick() -> None:
    draw = random.Random(0).randint
    lines = (
        f"In {draw(1100, 2099)} Dr. Lee paid ${draw(1, 999)}.{draw(10, 99)} for {draw(1, 99_999):,} km to the BBC."
        for _ in range(200)
    )
    control = least_seconds(lambda: sum(number * number for number in range(500_000)))
    # measured: 1.5 to 2 times the control, and processors differ by half; a quadratic rule would take ten times as long
    assert seconds_for(" ".join(lines)[:10_000]) < 8 * control


@pytest.mark.parametrize(
    "piece",
    ["1", "1-", "1.", "1,111", "1/", "1 1/", "1:", "+1 ", "1 ", "May 3-", "012 3456 "]
    + ["A", "B'", " ", "(", "+", "St.", "etc. (", "Henry V", "on A", "a.", "a-b", "http://", "A.B", "1 000", "$1-"],
)
def test_no_text_is_slow(piece: str) -> None:
    short, long = (seconds_for((piece * length)[:length]) for length in (1_500, 12_000))
    assert long < 24 * short + 0.05  # eight times as long; a quadratic rule would take 64 times as long


# --- where it is done


def test_the_shipped_configurations_choose(repository: Path) -> None:
    assert load_config().tts.normalise == "none"
    assert load_config(repository / "configs/nano.yaml").tts.normalise == "english"
    assert load_config(repository / "configs/default.yaml").tts.normalise == "none"
    with pytest.raises(AudioProjectionError, match="tts.normalise"):
        load_config(None, ["tts.normalise=german"])


def test_checked_first_then_spelled_out() -> None:
    assert as_spoken(" Dr.\u200b  Lee\t") == "Dr. Lee"
    assert as_spoken(" Dr.\u200b  Lee\t", "english") == "Doctor Lee"
    with pytest.raises(AudioProjectionError, match="nothing to speak"):
        as_spoken("$%", "english")


@pytest.mark.parametrize("control", [None, "plain"])
def test_reading_aloud_speaks_the_words(control: str | None) -> None:
    """The same rows, so the same sound: as one utterance, because no stop of a title cuts it."""
    text, words = "hello Prof. Fox. Good 22 dogs", "hello Professor Fox. Good twenty two dogs"
    plain, spelling = make_voice(), make_voice(normalise="english")
    spoken = spelling.speak(text, control=control)
    np.testing.assert_array_equal(spoken.samples, plain.speak(words, control=control).samples)
    assert not np.array_equal(spoken.samples, plain.speak(text, control=control).samples)
    assert spoken.text == text


def test_spelled_out_before_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = make_voice(normalise="english", longest=30)
    read: list[str] = []
    states = voice.llm.states
    monkeypatch.setattr(voice.llm, "states", lambda texts: read.extend(texts) or states(texts))
    voice.speak("He saw Sgt. Fox. 1,234 dogs said hello.")
    assert read == ["He saw Sergeant Fox.", "One thousand two hundred and", "thirty four dogs said hello."]


def test_texts_to_train_on_are_those_that_are_spoken(tmp_path: Path) -> None:
    config = spoken_config(tmp_path, ["Dr. Fox has 2 dogs", "Doctor Fox has two dogs", "the 1st"])
    assert len(read_texts(config.data, config.tts.normalise)) == 3
    config.tts.normalise = "english"
    assert read_texts(config.data, config.tts.normalise) == ["Doctor Fox has two dogs", "the first"]
    assert sorted(transcripts_to_fit(config)) == ["Doctor Fox has two dogs", "the first"]


def test_recordings_and_ready_pairs_are_spelled_out_too(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav", 1.0)
    config = manifest_config(tmp_path, ["a.wav\tthe 2 dogs"])
    assert load_pairs(config, load_tts())[0].text == "the 2 dogs"
    config.tts.normalise = "english"  # the codes stay, the text follows the setting
    assert load_pairs(config, load_tts())[0].text == "the two dogs" == transcripts_to_fit(config)[0]

    pair = make_pairs(1)[0]
    PairFolder(tmp_path / "pairs", {}).add([Pair(pair.id, "the 3 dogs", pair.codes, pair.voice)])
    config = make_config(tmp_path / "run")
    config.data.source, config.data.path, config.data.min_seconds = "pairs", tmp_path / "pairs", 0.0
    assert load_pairs(config, load_tts())[0].text == "the 3 dogs"
    config.tts.normalise = "english"
    assert load_pairs(config, load_tts())[0].text == "the three dogs" == transcripts_to_fit(config)[0]


def test_words_are_compared_as_they_are_said() -> None:
    errors = word_errors("Dr. Lee paid $22 to the BBC.", "doctor lee paid twenty two dollars to the b. b. c.")
    assert (errors.errors, errors.words) == (0, 11)
