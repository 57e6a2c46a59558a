"""Signs that are said: &, %, + and the like."""

from __future__ import annotations

import re
import unicodedata

from audio_projection.text.normalisation.money import CURRENCIES, SIGNS
from audio_projection.text.normalisation.number_words import figure_words
from audio_projection.text.normalisation.patterns import Match, Rule, rule

_SIGNS = {
    **{"&": "and", "@": "at", "+": "plus", "=": "equals", "%": "percent", "±": "plus or minus", "×": "times"},
    **{"÷": "divided by", "°": "degrees", "²": "squared", "³": "cubed", "‰": "per mille"},
    **{sign: CURRENCIES[sign][0] for sign in SIGNS},
}
_COMPARED = {
    **{"<=": "less than or equal to", ">=": "greater than or equal to", "<": "less than", ">": "greater than"},
    **{"≤": "less than or equal to", "≥": "greater than or equal to", "≠": "not equal to", "!=": "not equal to"},
    **{"==": "equal to", "≈": "approximately", "≡": "equivalent to", "≪": "much less than", "≫": "much greater than"},
}
_MATHS = {
    **{"√": "the square root of", "∞": "infinity", "∑": "the sum of", "∫": "the integral of", "∂": "partial"},
    **{"∈": "in", "∩": "intersection", "∪": "union", "∀": "for all", "∃": "there exists", "∆": "delta", "∇": "nabla"},
    **{"½": "one half", "∝": "proportional to", "⇒": "implies", "⇔": "if and only if", "∴": "therefore"},
}
_RAISED = "⁰¹⁴⁵⁶⁷⁸⁹"


def _sign(match: Match) -> str | None:
    """One or two of a sign are said; a longer row is a line drawn.

    Q&A, 5%, a C++ line ==== -> Q and A, five percent, a C plus plus line ====
    """
    if len(match[0]) > 2:
        return None
    return " ".join([_SIGNS[match[1]]] * len(match[0]))


def _raised(match: Match) -> str:
    """Powers.

    10^6, x^2 and 10⁻³ -> Ten to the power of six, x squared and ten to the power of minus three
    """
    raised = unicodedata.normalize("NFKC", match[0].lstrip("^")).strip("{}()").replace("−", "-")
    if raised in ("2", "3"):
        return "squared" if raised == "2" else "cubed"
    minus, figure = ("minus ", raised[1:]) if raised[0] == "-" else ("", raised)
    return f"to the power of {minus}{figure_words(figure) if figure[0].isdigit() else figure}"


def _scientific(match: Match) -> str:
    """Figures with an exponent.

    some 1.5e-3 -> some one point five times ten to the power of minus three
    """
    figure, sign, power = match.groups()
    return f"{figure_words(figure)} times ten to the power of {'minus ' if sign == '-' else ''}{figure_words(power)}"


def _compared(match: Match) -> str:
    """Comparisons.

    if a <= b and x ≥ 3 -> if a is less than or equal to b and x is greater than or equal to three
    """
    return f"is {_COMPARED[match[0].strip()]}"


def _bound(match: Match) -> str:
    """Comparisons with nothing before them.

    in <5 minutes -> in less than five minutes
    """
    return {"<": "less than", ">": "more than", "≤": "at most", "≥": "at least"}[match[1]]


def _times(match: Match) -> str:
    """Products.

    a 3x4, 3 × 4 or 3*4, 2x a day -> a three by four, three times four or three times four, two times a day
    """
    return "by" if "x" in match[0] else "times"


def _compass(match: Match) -> str:
    """Degrees of latitude and longitude.

    at 51° N -> at fifty one degrees north
    """
    return {"N": "north", "S": "south", "E": "east", "W": "west"}[match[1]]


def _maths(match: Match) -> str:
    """Signs of mathematics.

    √9 and ∞ -> The square root of nine and infinity
    """
    return _MATHS[match[0]]


_COMPARISONS = r"(?:<=|>=|==|!=|[<>≤≥≠≈≡≪≫])"
MATHS: list[Rule] = [
    rule(
        r"(?<![0-9.,])([0-9]+(?:\.[0-9]+)?)[eE]([+-]?)([0-9]{1,3})(?![\w.])",
        _scientific,
        digits=True,
    ),
    rule(
        rf"(?<=[\w)])(?:\^(?:[-−]?[0-9]+|\{{[-−]?\w+\}}|\([-−]?\w+\)|[a-z](?!\w))|[⁻]?[{_RAISED}][{_RAISED}²³]*|⁻[{_RAISED}²³]+)",
        _raised,
    ),
    rule(
        r"(?<![^\W_])(?:or|and|is|it|was|are|be|by|in|at|of|with|for|to|only|under|than) ([<>≤≥]) ?(?=[$€£]?[0-9])",
        _bound,
        part=1,
        digits=True,
    ),
    rule(rf"(?<=[\w)\]])(?:{_COMPARISONS}| {_COMPARISONS} )(?=[\w(√∞$€£-])", _compared),
    rule(r"(?<![\w<>=-])([<>≤≥])(?= ?[$€£]?[0-9])", _bound, digits=True),
    rule(r"(?<=[0-9]) ?[x×] ?(?=[0-9.,]+ ?=)", "times", digits=True),
    rule(r"(?<=[0-9]) ?[x×] ?(?=[0-9])", _times, digits=True),
    rule(r"(?<=[0-9]) ?(?:\*|⋅|·) ?(?=[0-9])", "times", digits=True),
    rule(
        r"(?<=[0-9]) ?[x×](?= (?:a|an|per|as|more|faster|larger|the|[a-z]+er)\b)",
        "times",
        digits=True,
    ),
    rule("[" + "".join(sign for sign in _MATHS if sign != "½") + "]", _maths),
    rule(r"−|(?<=[=+×*/(] )-(?=[\w(√])|(?<=[=(])-(?=[a-z](?![^\W_]))", "minus"),
    rule(r"(?<=°) ?([NSEW])(?!\w)", _compass),
    rule(r"(?<![^\W_])[a-z](/)(?=[0-9(])", "over", part=1),
    rule(r"(?<=[0-9]) / (?=[0-9])", "divided by", digits=True),
    rule(r"(?<=[0-9)])/(?=[a-z](?![^\W_]))", "over"),
    rule(r"(?<![\w#])([CFG]|[Ff])#(?!\w)", lambda match: f"{match[1]} sharp"),
]
RULES: list[Rule] = [
    rule(r"(?<![&|])(&&|\|\|)(?![&|])", lambda match: "and" if match[1] == "&&" else "or"),
    rule(r"(?<![\w.])\.NET(?!\w)", "dot net"),
    rule(r"[°º] ?([CF])(?![^\W_])", lambda match: {"C": "degrees Celsius", "F": "degrees Fahrenheit"}[match[1]]),
    rule(rf"([{''.join(map(re.escape, _SIGNS))}])\1*", _sign),
]


def _slash(match: Match) -> str:
    """A slash between words.

    go home / away, a TCP/IP stack, red/green -> go home or away, a T C P I P stack, red slash green
    """
    before, slash, after = match.group(1, 2, 3)
    if " " in slash:
        return "or"
    return " " if before.isupper() and after.isupper() else " slash "


def _greek(match: Match) -> str:
    """A Greek letter on its own.

    the angle α and Δt -> the angle alpha and delta t
    """
    return unicodedata.name(match[0]).split()[-1].lower()


EMOTICONS: list[Rule] = [
    rule(r"(?<!\S)(?:[:;][-']?[)(DPpO|*3]+|=[)(D]+|<3+|xD|XD|\^_\^|¯\\_\(ツ\)_/¯)(?!\w)", ""),
]
BETWEEN_WORDS: list[Rule] = [
    rule("(?<![\u0370-\u03ff\u1f00-\u1fff])[Α-ΡΣ-Ωα-ρσ-ω](?![\u0370-\u03ff\u1f00-\u1fff])", _greek),
    rule(r"(?<=([^\W_]))( ?/ ?)(?=([^\W_]))", _slash, part=2),
    rule(r"(?<=[^\W_])_+(?=[^\W_])", " "),
]
