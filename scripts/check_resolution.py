"""Check what this project's dependency ranges resolve to, and that the oldest versions they allow work.

    python scripts/check_resolution.py                          a table for Python 3.10 to 3.14; nothing is installed
    python scripts/check_resolution.py --suite VENV [TEST ...]  the tests with the oldest versions, in a new environment

The table asks pip for wheels only, as a user without a compiler would get them, with all extras but [gguf], which is
source everywhere. The suite runs under the Python that runs this script, with every dependency at the lowest version
of its range; torch is the one of constraints.txt unless --torch names another.

Needs pip 23.3 or newer, whose dry runs read metadata only, and Python 3.11 or newer for the table.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
EXTRAS = ("aac", "datasets", "eval", "finetune", "serve", "tensorboard")
SHOWN = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "peft", "lhotse", "pydantic", "typer")
SOURCE_ONLY = ("docopt",)
"""Pure Python packages without a wheel on the registry; one wheel, built here, serves every Python."""
NEEDS_NEWER = {"schemathesis": "tests/server/test_fuzzing.py"}
"""What the tests use that does not install beside the lowest versions, and the tests that are left out for it."""
REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9_.-]+)(?P<range>[^;]*)")
WITHOUT_WHEEL = re.compile(r"No matching distribution found for ([A-Za-z0-9_.-]+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=Path, metavar="VENV", help="run the tests in this new environment")
    parser.add_argument("--torch", help="the torch of --suite, instead of that of constraints.txt")
    parser.add_argument("tests", nargs="*", default=[], help="the tests of --suite; all where none is named")
    options = parser.parse_args()
    sys.exit(run_suite(options.suite, options.torch, options.tests) if options.suite else print_table())


def print_table() -> int:
    """Prints a row for each Python as soon as it is resolved; 1 if one cannot be resolved."""
    print("| Python | " + " | ".join(SHOWN) + " | no wheel |\n" + "|---" * (len(SHOWN) + 2) + "|", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        wheels = Path(scratch) / "wheels"
        _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), *SOURCE_ONLY)
        for python in PYTHONS:
            try:
                versions, missing = resolve(python, wheels, Path(scratch) / f"{python}.json")
            except RuntimeError as error:
                failed = 1
                print(f"| {python} | does not resolve: {error} |", flush=True)
                continue
            row = " | ".join(versions.get(name, "") for name in SHOWN)
            print(f"| {python} | {row} | {', '.join(missing)} |", flush=True)
    return failed


def resolve(python: str, wheels: Path, report: Path) -> tuple[dict[str, str], list[str]]:
    """Versions by name for one Python, and what of the extras it has no wheel for (each left out with its extra)."""
    extras, missing = list(EXTRAS), []
    while True:
        project = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
        done = _pip_dry_run(python, wheels, report, project)
        if done.returncode == 0:
            installed = json.loads(report.read_text(encoding="utf-8"))["install"]
            return {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in installed}, missing
        lacking = WITHOUT_WHEEL.search(done.stderr)
        extra = _extra_of(lacking[1]) if lacking else None
        if lacking is None or extra not in extras:
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given")
        extras.remove(extra)
        missing.append(f"{lacking[1]} [{extra}]")


def run_suite(folder: Path, torch: str | None, tests: list[str]) -> int:
    """The tests' exit code in a new environment with the lowest version of every range."""
    if folder.exists():
        print(f"error: {folder} is there already: give --suite a folder that is not", file=sys.stderr)
        return 1
    pin = f"torch=={torch}\n" if torch else (ROOT / "constraints.txt").read_text(encoding="utf-8")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    lowest = folder / "lowest.txt"
    lowest.write_text(pin + "".join(f"{line}\n" for line in lowest_versions()), encoding="utf-8")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)
    project = ["-e", f"{ROOT}[{','.join(EXTRAS)}]", *test_packages()]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", lowest, *project], check=True)
    subprocess.run([python, "-m", "pip", "list"], check=True)
    left_out = [f"--ignore={path}" for path in NEEDS_NEWER.values()]
    return subprocess.run([python, "-m", "pytest", "-q", *left_out, *tests], cwd=ROOT, check=False).returncode


def lowest_versions() -> list[str]:
    """`name==version` of the lower end of every range in pyproject.toml, torch excepted."""
    lowest = []
    for requirement in (line for extra in (None, *EXTRAS, "gguf") for line in _requirements(extra)):
        parsed = REQUIREMENT.match(requirement)
        bound = re.search(r">=\s*([0-9.]+)", parsed["range"]) if parsed else None
        if parsed and bound and parsed["name"] != "torch":
            lowest.append(f"{parsed['name']}=={bound[1]}")
    return lowest


def test_packages() -> list[str]:
    """What the tests need besides the project: the extra [dev] without the project itself and the checks of style."""
    unused = ("audio-projection", "mypy", "ruff", "types-", *NEEDS_NEWER)
    needed = [line for line in _requirements("dev") if not line.startswith(unused)]
    plain = [line for line in _requirements("gguf") if not line.startswith("llama-cpp-python")]
    return [*needed, *plain, "librosa"]


def _requirements(extra: str | None) -> list[str]:
    """The lines of pyproject.toml's dependencies, or of one extra: read as text, since Python 3.10 has no tomllib."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(rf"^{extra or 'dependencies'} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    return re.findall(r'"([^"]+)"', block[1]) if block else []


def _extra_of(package: str) -> str | None:
    for extra in EXTRAS:
        if any(line.lower().startswith(package.lower()) for line in _requirements(extra)):
            return extra
    return None


def _pip_dry_run(python: str, wheels: Path, report: Path, project: str) -> subprocess.CompletedProcess[str]:
    options = ["--dry-run", "--ignore-installed", "--python-version", python, "--only-binary=:all:"]
    target = ["--target", str(report.with_suffix(".target")), "--find-links", str(wheels), "--report", str(report)]
    return _pip("install", *options, *target, project, check=False)


def _pip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check", *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=check)


if __name__ == "__main__":
    main()
