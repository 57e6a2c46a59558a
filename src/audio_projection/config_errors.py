"""Error messages for a configuration: the key's path, what was expected, the nearest valid key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "path_type": "a path",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
}
_UNLIKE = 0.9  # least likeness of a key that is suggested; being in the same section counts 0.3 of it


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for all the problems of a configuration of the class `model`."""
    grouped: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False):
        grouped.setdefault(_key(problem["loc"], model), []).append(problem)
    return "; ".join(_sentence(key, problems, model) for key, problems in grouped.items())


def wrong_keys(error: ValidationError, model: type[BaseModel]) -> set[str]:
    """The keys, dotted, that a configuration's problems are about."""
    return {_key(problem["loc"], model) for problem in error.errors(include_url=False)}


def _sentence(key: str, problems: list[Any], model: type[BaseModel]) -> str:
    problem = problems[0]
    if problem["type"] == "extra_forbidden":
        nearest = _nearest(key, model)
        names = ", ".join(name for name in _keys(model) if name.rpartition(".")[0] == key.rpartition(".")[0])
        return f"unknown key {key!r}, " + (f"did you mean {nearest!r}?" if nearest else f"choose one of {names}")
    expected = " or ".join(dict.fromkeys(_expectation(each) for each in problems))
    return f"{key}: expected {expected}, got {_short(problem['input'])}"


def _expectation(problem: Any) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "literal_error":
        return f"one of {context['expected']}"
    if kind == "string_pattern_mismatch":
        return f"text like {context['pattern']}"
    return _EXPECTED.get(kind) or problem["msg"].removeprefix("Input should be ").removeprefix("a valid ")


def _short(value: Any) -> str:
    text = repr(str(value) if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def _key(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Dotted path of a field: the parts that pydantic adds for members of a union are left out."""
    parts: list[str] = []
    current: type[BaseModel] | None = model
    for part in location:
        parts.append(str(part))
        field = current.model_fields.get(str(part)) if current else None
        section = _section(field.annotation) if field else None
        if section is None:
            if field is not None:
                break
            continue
        current = section
    return ".".join(parts)


def _nearest(key: str, model: type[BaseModel]) -> str | None:
    section, _, name = key.rpartition(".")

    def likeness(candidate: str) -> float:
        its_section, _, its_name = candidate.rpartition(".")
        initials = "".join(word[0] for word in its_name.split("_"))
        same = 0.9 if name == initials else difflib.SequenceMatcher(None, name, its_name).ratio()
        return same + (0.3 if section == its_section else 0)

    best = max(_keys(model), key=likeness)
    return best if likeness(best) > _UNLIKE else None


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        section = _section(field.annotation)
        if section is not None:
            yield from _keys(section, f"{prefix}{name}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    """The type if it is that of a group of keys; in Python 3.10 list[int] is a type too, and nothing's subclass."""
    return annotation if hasattr(annotation, "model_fields") else None
