"""Sums of money."""

from __future__ import annotations

from audio_projection.text.normalisation.measures import per
from audio_projection.text.normalisation.number_words import english_figure, figure_words, number_words
from audio_projection.text.normalisation.patterns import (
    CONTINENTAL,
    NO_LETTER_AFTER,
    NUMBER,
    Match,
    Rule,
    is_adjective,
    one_of,
    rule,
)

_Names = tuple[str, str, str, str]
_DOLLARS = {
    "": "",
    "US": "U S ",
    "U.S.": "U S ",
    **{"A": "Australian ", "AU": "Australian ", "C": "Canadian ", "CA": "Canadian ", "NZ": "New Zealand "},
    **{"HK": "Hong Kong ", "S": "Singapore ", "NT": "Taiwan "},
}
CURRENCIES: dict[str, _Names] = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "", ""),
    "¢": ("cent", "cents", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "", ""),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
    "₺": ("lira", "lira", "kurus", "kurus"),
    "₪": ("shekel", "shekels", "agora", "agorot"),
    "₫": ("dong", "dong", "", ""),
    "₱": ("peso", "pesos", "centavo", "centavos"),
    "₴": ("hryvnia", "hryvnias", "kopeck", "kopecks"),
    "₦": ("naira", "naira", "kobo", "kobo"),
    "฿": ("baht", "baht", "satang", "satang"),
    "₿": ("bitcoin", "bitcoins", "", ""),
    "R$": ("real", "reais", "centavo", "centavos"),
    "zł": ("zloty", "zlotys", "grosz", "groszy"),
    "kr": ("krone", "kroner", "", ""),
    "Rs": ("rupee", "rupees", "paisa", "paise"),
    "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes"),
    "USD": ("dollar", "dollars", "cent", "cents"),
    "GBP": ("pound", "pounds", "penny", "pence"),
    "EUR": ("euro", "euros", "cent", "cents"),
    "JPY": ("yen", "yen", "", ""),
    "CNY": ("yuan", "yuan", "", ""),
    "RMB": ("yuan", "yuan", "", ""),
    "INR": ("rupee", "rupees", "paisa", "paise"),
    "CAD": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "AUD": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "NZD": ("New Zealand dollar", "New Zealand dollars", "cent", "cents"),
    "SEK": ("Swedish krona", "Swedish kronor", "", ""),
    "NOK": ("Norwegian krone", "Norwegian kroner", "", ""),
    "DKK": ("Danish krone", "Danish kroner", "", ""),
    "PLN": ("zloty", "zlotys", "grosz", "groszy"),
    "BRL": ("real", "reais", "centavo", "centavos"),
    "MXN": ("peso", "pesos", "centavo", "centavos"),
    "KRW": ("won", "won", "", ""),
    "BTC": ("bitcoin", "bitcoins", "", ""),
}
SIGNS = [sign for sign in CURRENCIES if len(sign) == 1]
_CODES = [sign for sign in CURRENCIES if len(sign) == 3]
SCALES = {
    **{"k": "thousand", "m": "million", "mn": "million", "mm": "million", "mio": "million"},
    **{"b": "billion", "bn": "billion", "t": "trillion", "tn": "trillion"},
}


def _money(match: Match) -> str:
    """A sum behind its sign.

    only $5, $1, $0.99 and £3.01 -> only five dollars, one dollar, ninety nine cents and three pounds and one penny
    A $20-a-day room, €9.99/month -> A twenty dollar a day room, nine euros and ninety nine cents per month
    for US$5, A$2 or R$50 -> for five U S dollars, two Australian dollars or fifty reais
    """
    kind, sign, first, figure, short, scale, rate, joined = match.groups()
    scale = SCALES[short.lower()] if short else (scale or "").lower()
    names = _names(sign, kind)
    if joined or is_adjective(match, match.start()):
        names = (names[0], names[0], names[2], names[2])
    words = _amount(names, figure, scale)
    if first:
        decimals = "." in first and not scale
        words = f"{_amount(names, first, '') if decimals else figure_words(first)} to {words}"
    return words + (per(rate) if rate else joined.replace("-", " ") if joined else "")


def _money_behind(match: Match) -> str:
    """A sum before its sign or code.

    99¢, 5 €, 4,50 € or 20 CHF -> Ninety nine cents, five euros, four euros and fifty cents or twenty Swiss francs
    """
    figure, scale, sign, rate = match.groups()
    words = _amount(_names(sign.strip(), ""), figure, scale or "")
    return words + (per(rate) if rate else "")


def _names(sign: str, kind: str | None) -> _Names:
    if sign != "$" or not kind:
        return CURRENCIES[sign]
    of = _DOLLARS[kind]
    return (f"{of}dollar", f"{of}dollars", "cent", "cents")


def _amount(names: _Names, figure: str, scale: str) -> str:
    one, many, small_one, small_many = names
    if scale:
        return f"{figure_words(figure)} {scale} {many}"
    figure = english_figure(figure)
    whole, _, decimals = figure.partition(".")
    if len(decimals) != 2 or not small_one:
        return f"{figure_words(figure)} {one if figure == '1' else many}"
    large = f"{figure_words(whole)} {one if whole == '1' else many}" if whole.strip("0") else ""
    small = f"{number_words(int(decimals))} {small_one if decimals == '01' else small_many}" if decimals != "00" else ""
    return " and ".join(filter(None, [large, small])) or f"zero {many}"


_SCALE = rf"(?:(?ai:({'|'.join(SCALES)})|[ -]?(thousand|million|billion|trillion)){NO_LETTER_AFTER})?"
_KINDS = one_of(kind for kind in _DOLLARS if kind)
_SIGN = (
    rf"(?:(?<![^\W_])({_KINDS})(?=\$))?((?<![^\W_])(?:R\$|Rs(?=\.? ?[0-9])|(?:{'|'.join(_CODES)})(?= ?[0-9]))"
    rf"|[{''.join(SIGNS)}])(?:(?<=s)\.)? ?"
)
_FIGURE = rf"(?:{CONTINENTAL}|{NUMBER})"
_RATE = (
    r"(?:/(sq ft|sq m|(?:mo|yr|hr|wk)(?=\.[,;]|\.\s[a-z])|[A-Za-z]+)(?:(?<=mo|yr|hr|wk)\.(?=[,;]|\s[a-z]))?(?![\w/])"
    r"|(-(?:an?|per)-[a-z]+))?"
)
RANGES: list[Rule] = [
    rule(rf"{_SIGN}({NUMBER})(?:-| ?[–—~] ?)\2?({NUMBER}){_SCALE}{_RATE}", _money, digits=True),
]
RULES: list[Rule] = [
    rule(rf"{_SIGN}()({_FIGURE}){_SCALE}{_RATE}", _money, digits=True),
    rule(
        rf"({_FIGURE})(?: (thousand|million|billion|trillion)(?= [€£A-Zz]))?"
        rf"( ?[€£¢₹₽₺₪₫₱₴₦฿]|[$¥₩₿]| ?(?:zł|kr|{'|'.join(_CODES)}){NO_LETTER_AFTER})(?:/([A-Za-z]+)(?![\w/]))?",
        _money_behind,
        digits=True,
    ),
]
