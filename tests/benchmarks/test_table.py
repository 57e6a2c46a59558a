"""The main table: rows from YAML, spoken by tiny models, resumed, and rows that are missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("jiwer", reason="needs the extra `eval`")
pytest.importorskip("pocketsphinx", reason="needs the extra `eval`")

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from helpers import parity_kit
from helpers.evaluation import save_tiny
from helpers.paths import REPOSITORY

table = parity_kit.script("table")

ROWS = """
- {name: plain}
- {name: residual of tiny, projector: residual}
- {name: the same shuffled, projector: residual, control: shuffled}
- {name: never trained, projector: nowhere}
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def test_rows_are_spoken_with_the_llm_of_their_projectors(
    tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, texts, output = tmp_path / "rows.yaml", tmp_path / "texts.txt", tmp_path / "out"
    rows.write_text(ROWS)
    texts.write_text("hello there\nThe lazy dog.\nGood day.\n")
    words = [
        "--rows",
        rows,
        "--projectors",
        tiny.output_dir,
        "--output",
        output,
        "--texts",
        texts,
        "--sentences",
        2,
        "--jobs",
        1,
    ]
    # the configuration names no LLM of these projectors: each projector's record does
    settings = ["llm.name=nowhere", f"tts.name={tiny.tts.name}", "tts.speaker=ada", "device=cpu"]
    table.main([*map(str, words), "--sentences", "2", "--jobs", "1", *settings])
    made = (output / "table.md").read_text()
    assert capsys.readouterr().out.endswith(made)
    plain, residual, shuffled, missing = (line.split(" | ") for line in made.splitlines()[2:])
    assert plain[0] == "| plain" and plain[3] == "" and plain[1] == residual[1]
    assert residual[3] == "+0.0 % [0.0, 0.0]", "untrained it is plain text"
    assert "0.0 % of the embedding from the states" in residual[-1]
    assert "untrained" in shuffled[-1] and "embedding" not in shuffled[-1]
    assert missing[0] == "| never trained" and "nowhere" in missing[1]
    results = json.loads((output / "results.json").read_text())
    assert len(results["sentences"]) == 2
    assert [len(list((output / name).glob("*.wav"))) for name in ("plain", "the same shuffled")] == [2, 2]


def test_plain_text_is_spoken_by_the_models_of_the_first_row_that_is_there(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "rows.yaml").write_text(
        "- {name: plain}\n- {name: gone, projector: nowhere}\n- {name: a, projector: linear, llm: another}\n"
    )
    plain, gone, named = table.systems_of(table.read_rows(tmp_path / "rows.yaml"), tiny.output_dir)
    assert (plain.projector, plain.control, plain.llm) == (named.projector, "plain", "another")
    assert gone.llm is None and named.control is None
    (tmp_path / "rows.yaml").write_text("- {name: plain}\n- {name: gone, projector: nowhere}\n")
    assert table.systems_of(table.read_rows(tmp_path / "rows.yaml"), tiny.output_dir)[0].projector is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("- {name: linear}", "a projector for all rows but"),
        ("- {name: plain, projector: there}", "a projector for all rows but"),
        ("- {name: a, projektor: there}", "projektor"),
        ("- {name: a, projector: there, control: loud}", "control"),
        ("[", "cannot read the rows"),
    ],
)
def test_rows_that_are_none_are_refused(rows: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rows.yaml").write_text(rows)
    with pytest.raises(AudioProjectionError, match=message):
        table.read_rows(tmp_path / "rows.yaml")


def test_the_rows_of_the_main_table_are_rows() -> None:
    rows = table.read_rows(REPOSITORY / "benchmarks" / "table.yaml")
    assert [row.name for row in rows[:3]] == ["teacher", "codec", "plain"]
    assert len({row.name for row in rows}) == len(rows)
    assert {row.control for row in rows} == {None, "shuffled", "other"}
