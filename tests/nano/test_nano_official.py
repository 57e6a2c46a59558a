"""The bundled nano TTS is a genuine Qwen3-TTS checkpoint: the official package gives exactly our codes for it.

Stored outputs of the official package are always compared. Where AUDIO_PROJECTION_OFFICIAL_PYTHON names an interpreter
that has the package (benchmarks/official_reference.py says how to make one), the package itself runs, too.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from audio_projection.files.locations import NANO_FOLDER
from audio_projection.tts import Qwen3TTS
from helpers import parity_kit
from helpers.paths import FIXTURES, REPOSITORY

parity = parity_kit.script("parity")
official_reference = parity_kit.script("official_reference")

NANO = NANO_FOLDER / "tts"
STORED = FIXTURES / "nano" / "official.safetensors"
PYTHON = "AUDIO_PROJECTION_OFFICIAL_PYTHON"
AGAIN = "run `OFFICIAL_PYTHON benchmarks/official_reference.py {} {} --small` again"
KINDS = ("ids.0", "codes.0", "wav.0", "tokens", "logits", "scores", "cp_logits", "embeds", "mask")


def agree(reference: Path, texts: int) -> None:
    """Compares our outputs for nano with those stored in `reference`, which must hold all cases of `texts` texts."""
    wanted = load_file(reference)
    cases = {case.name for case in official_reference.cases(("",) * texts, clones=False)}
    assert set(parity.cases(wanted)) == cases
    rows = parity.compare(parity.run(Qwen3TTS.from_pretrained(NANO), wanted), wanted)
    assert [f"{row.name}: {row.error} {row.equal} {row.note}" for row in rows if not row.passed] == []
    compared = {row.name.partition("@")[0] for row in rows}
    assert {f"{case}.{kind}" for case in cases for kind in KINDS} | {"enc.codes.0"} <= compared


def test_the_stored_outputs_belong_to_the_shipped_weights() -> None:
    with safe_open(STORED, "pt") as file:
        made_of = file.metadata()
    for name, digest in official_reference.digests(NANO).items():
        if made_of.get(name) != digest:
            again = AGAIN.format(*(path.relative_to(REPOSITORY) for path in (NANO, STORED)))
            pytest.fail(f"the stored outputs were made of another {name}: {again}")


def test_the_stored_official_outputs() -> None:
    agree(STORED, len(official_reference.TEXTS))
    assert STORED.stat().st_size < 300e3


@pytest.mark.timeout(900)
def test_the_official_package_itself(tmp_path: Path) -> None:
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"the official package is not run: {PYTHON} names no interpreter that has it")
    made, script = tmp_path / "official.safetensors", official_reference.__file__
    texts = ["--text", "A red kite rose above the field.", "--text", "Good morning."]
    subprocess.run([python, script, NANO, made, *texts, "--frames", "20"], check=True)
    agree(made, 2)
