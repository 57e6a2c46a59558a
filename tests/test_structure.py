"""The structure of the package: data flows one way, so imports run downward only, and no folder is crowded."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "audio_projection"
LEVELS = (
    {"cli"},
    {"server"},
    {"train", "export"},
    {"training"},
    {"evaluation"},
    {"inference"},
    {"fit"},
    {"data_loader"},
    {"data"},
    {"models"},
    {"gguf"},
    {"alignment", "projector"},
    {"llm", "tts"},
    {"text", "sampling", "devices", "processes"},
    {"files"},
    {"config"},
    {"config_errors", "config_yaml"},
    {"errors", "version"},
)
"""From the top down: each part imports only what stands below it. Parts of one level do not import each other."""
MOST_FILES = 16


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in PACKAGE.rglob("*.py")}
FACES = {"", "__main__"}
"""The package's public face and its entry point stand above everything."""


def _imports(path: Path) -> set[str]:
    """The modules of the package that a file imports anywhere: at its top, in functions, for type annotations."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "audio_projection":
            module = node.module.removeprefix("audio_projection").lstrip(".")
            inside = {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
            found |= {name if name in MODULES else module for name in inside}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("audio_projection").lstrip(".")
                for alias in node.names
                if alias.name.split(".")[0] == "audio_projection"
            }
    return found


IMPORTS = {module: _imports(path) for module, path in MODULES.items()}


def _level(module: str) -> int:
    return next(number for number, parts in enumerate(LEVELS) if module.split(".")[0] in parts)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - FACES))
def test_imports_run_downward(module: str) -> None:
    part = module.split(".")[0]
    for imported in IMPORTS[module]:
        assert imported != "", f"{module} imports the package's public face"
        if imported.split(".")[0] != part:
            assert _level(imported) > _level(module), f"{module} imports {imported}, which does not stand below it"


def test_no_two_files_import_each_other() -> None:
    tuple(
        TopologicalSorter(
            {module: names & MODULES.keys() - {module} for module, names in IMPORTS.items()}
        ).static_order()
    )


def test_every_part_has_a_level() -> None:
    assert {module.split(".")[0] for module in MODULES.keys() - FACES} == set().union(*LEVELS)


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES.values()}), ids=lambda path: path.name)
def test_no_folder_is_crowded(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_FILES


def test_names_of_test_files_differ() -> None:
    """pytest collects files of one name in several folders as one module, and fails."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert len(set(names)) == len(names)
