"""Numbers in words: num2words's, without commas and hyphens."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_LONGEST = 9  # digits without commas that are read as one number; phone and card numbers are longer


@lru_cache(maxsize=1 << 14)
def number_words(number: int, kind: str = "cardinal") -> str:
    """Words without commas and hyphens; `kind`: cardinal, ordinal or year."""
    from num2words import num2words  # all its languages at once, and most texts have no number

    return str(num2words(number, to=kind)).replace(",", "").replace("-", " ")


def _cardinal(number: int) -> str:
    """As `number_words`, put together of thousands, each of which is asked for only once: num2words is not quick."""
    if number < 1000:
        return number_words(number)
    scale = 1000 ** ((len(str(number)) - 1) // 3)
    many, rest = divmod(number, scale)
    words = f"{number_words(many)} {number_words(scale).removeprefix('one ')}"
    return f"{words} {'and ' if rest < 100 else ''}{_cardinal(rest)}" if rest else words


def digit_words(digits: str, zero: str = "zero") -> str:
    return " ".join(number_words(int(digit)) if digit != "0" else zero for digit in digits)


def figure_words(figure: str) -> str:
    """1,234.5, 1 000, .5, 007 or a continental 1.500,25 in words."""
    whole, point, decimals = english_figure(figure).partition(".")
    words = [_integer(whole)] if whole else []
    return " ".join(words + (["point", digit_words(decimals)] if point else []))


def english_figure(figure: str) -> str:
    """A figure with a decimal point: "22,1" is 22.1, "1.500,00" is 1500.00, "1,234" stays."""
    figure = figure.replace(" ", "")
    if re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{3})*,[0-9]{1,2}", figure):
        return figure.replace(".", "").replace(",", ".")
    return figure


def _integer(figure: str) -> str:
    zero_led = len(figure) > 1 and figure[0] == "0"
    if zero_led or (len(figure) > _LONGEST and "," not in figure):
        return digit_words(figure.replace(",", ""))
    return _cardinal(int(figure.replace(",", "")))


def year_words(figure: str) -> str:
    return number_words(int(figure), "year")


def ordinal_words(number: int) -> str:
    return number_words(number, "ordinal")


def plural(words: str) -> str:
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith(("x", "ch")) else "s")


def fraction_words(figure: str) -> str:
    """3/4, 1/100th, 2 1/2, 3-1/2 or 2½ in words; 50/50 and 24/7 are said as they stand, 10/3 is ten over three."""
    figure = re.sub(r"(?<=[0-9])(?=[^0-9/⁄ .,a-z-])", " ", figure)
    figure = unicodedata.normalize("NFKC", figure).replace("⁄", "/")
    whole, _, part = figure.replace("-", " ").rpartition(" ")
    above, below = (int(number) for number in part.rstrip("thsrdn").split("/"))
    if not above < below or figure == "9/11":
        between = " over " if above > below and figure != "24/7" and above + below != 100 else " "
        return f"{figure_words(whole)} {number_words(above)}{between}{number_words(below)}".strip()
    name = {1: "whole", 2: "half", 4: "quarter"}.get(below) or ordinal_words(below)
    if above != 1:
        name = "halves" if below == 2 else plural(name)
    part = f"{'a' if whole and above == 1 else number_words(above)} {name}"
    return f"{figure_words(whole)} and {part}" if whole else part
