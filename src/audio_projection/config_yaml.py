"""YAML for configurations: keys that are there twice are errors, and text stays as it was typed.

YAML 1.1, which PyYAML reads, makes false of `no`, 67 of `0103` and 90 of `1:30`. Here numbers are decimal, true and
false are the only truth values, and a number remembers how it was typed, for keys that want text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml


@dataclass(frozen=True)
class TypedScalar:
    """A number, truth value or date, and the text that it was typed as."""

    text: str
    value: Any


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the rules above."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {}  # noqa: RUF012 - PyYAML's own name for it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in lines and key.tag != "tag:yaml.org,2002:merge":
                raise DuplicateKey(str(key.value), lines[key.value], line)
            if isinstance(key.value, str):
                lines[key.value] = line
        mapping = super().construct_mapping(node, deep=deep)
        return {key.text if isinstance(key, TypedScalar) else key: value for key, value in mapping.items()}


class DuplicateKey(yaml.YAMLError):
    """A key that stands twice in one mapping."""

    def __init__(self, key: str, first: int, second: int) -> None:
        super().__init__(f"{key!r} is there twice, in line {first} and in line {second}: put what both say into one")


_DATE = r"\d{4}-\d\d?-\d\d?(?:[Tt ].*)?"
_PATTERNS = {
    "bool": "true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "timestamp": _DATE,
}


def _number(node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _real(node: yaml.ScalarNode) -> float:
    return float(node.value.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _resolve(loader: _Loader, node: yaml.ScalarNode, kind: str) -> Any:
    if kind == "int":
        value: Any = _number(node)
    elif kind == "float":
        value = _real(node)
    else:
        value = getattr(yaml.SafeLoader, f"construct_yaml_{kind}")(loader, node)
    return TypedScalar(node.value, value)


for _kind, _pattern in _PATTERNS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), None)
    _Loader.add_constructor(
        f"tag:yaml.org,2002:{_kind}",
        lambda loader, node, kind=_kind: _resolve(loader, node, kind),  # type: ignore[misc]
    )
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("(?:~|null|Null|NULL|)$"), None)
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("(?:<<)$"), ["<"])


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, with `TypedScalar`s in it; yaml.YAMLError or ValueError for what is none."""
    return yaml.load(text, _Loader)  # noqa: S506 - a subclass of the safe loader


def as_meant(value: Any, annotation: Any) -> Any:
    """The value with each `TypedScalar` as what the type `annotation` takes: its text, or its value."""
    if isinstance(value, TypedScalar):
        return value.text if _means_text(annotation, type(value.value)) else value.value
    if isinstance(value, list):
        item = next((get_args(each)[0] for each in _members(annotation) if get_origin(each) is list), Any)
        return [as_meant(each, item) for each in value]
    if isinstance(value, dict):
        fields = getattr(annotation, "model_fields", {})  # of a section; list[int] is a type too in Python 3.10
        return {key: as_meant(each, fields[key].annotation if key in fields else Any) for key, each in value.items()}
    return value


def _means_text(annotation: Any, kind: type) -> bool:
    """Whether text or a path is wanted, and nothing of that kind."""
    members = list(_members(annotation))
    takes = {int: (int, float), float: (float,), bool: (bool,)}.get(kind, ())
    text = any(isinstance(each, str) or each in (str, Path) for each in members)
    return text and not any(each in takes for each in members)


def _members(annotation: Any) -> Iterator[Any]:
    """The types in a union, and the values in a Literal."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for each in get_args(annotation):
            yield from _members(each)
    elif origin is Literal:
        yield from get_args(annotation)
    else:
        yield annotation
