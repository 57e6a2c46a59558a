"""The benchmark of the fit's refinement on tiny models: one line for each fit, and none made twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

pytest.importorskip("jiwer", reason="needs the extra `eval`")
pytest.importorskip("pocketsphinx", reason="needs the extra `eval`")

from helpers import parity_kit
from helpers.evaluation import save_tiny
from helpers.training import make_texts

refinement = parity_kit.script("refinement")


def test_each_layer_is_heard_with_and_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = save_tiny(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(make_texts(40)))
    settings = {
        "llm": {"name": tiny.llm.name},
        "tts": {"name": tiny.tts.name, "speaker": "ada"},
        "data": {"texts": "texts.txt"},
        "fit": {"refine_steps": 5, "held_out": 4},
        "device": "cpu",
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    command = ["--config", str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / "out"), "--sentences", "2"]
    refinement.main([*command, "--layers", "1", "last"])
    table = capsys.readouterr().out.partition("| layer |")[2].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [line[:2] for line in cells] == [
        ["", "plain text"],
        ["1", "ridge"],
        ["1", "ridge, then softmax"],
        ["1", "mlp, softmax"],
        ["last", "ridge"],
        ["last", "ridge, then softmax"],
        ["last", "mlp, softmax"],
    ]
    assert all(line[4].endswith("]") for line in cells) and all(line[5] for line in cells[1:])
    assert [bool(line[6]) for line in cells] == [False, False, True, True, False, True, True]
    monkeypatch.setattr(refinement, "run_fit", lambda *_: pytest.fail("it is fitted again"))
    refinement.main([*command, "--layers", "1"])
