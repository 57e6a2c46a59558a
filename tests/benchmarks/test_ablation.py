"""The ablation benchmark: a smoke run on tiny models, resumed, and the shifted hidden states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("jiwer", reason="needs the extra `eval`")
pytest.importorskip("pocketsphinx", reason="needs the extra `eval`")

from audio_projection.config import Config
from audio_projection.projector import ACTIVATIONS
from helpers import parity_kit
from helpers.evaluation import save_tiny
from helpers.tiny_llm import make_llm
from helpers.training import make_texts

ablation = parity_kit.script("ablation")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file of tiny random models that speak their own training texts."""
    folder = tmp_path_factory.mktemp("ablation")
    tiny = save_tiny(folder)
    (folder / "texts.txt").write_text("\n".join(make_texts(40)))
    settings = {
        "llm": {"name": tiny.llm.name, "layers": 2},
        "tts": {"name": tiny.tts.name, "speaker": "ada"},
        "data": {"texts": "texts.txt", "limit": 12, "held_out": 2},
        "train": {"batch": 2, "max_minutes": 0.001},
        "device": "cpu",
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return folder / "tiny.yaml"


def run(config: Path, output: Path, *arguments: str) -> None:
    words = ["--config", config, "--output", output, "--sentences", "2", "--train-steps", "2"]
    ablation.main([str(word) for word in (*words, *arguments)])


def variants(output: Path) -> dict:
    return json.loads((output / "results.json").read_text())["variants"]


def test_variants_are_measured_once(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(config, tmp_path, "--questions", "training", "state")
    table = capsys.readouterr().out
    assert variants(tmp_path).keys() == {"plain", "baseline", "state before", "fit only"}
    assert [line.split(" | ")[1] for line in table.splitlines()[3:]] == [
        *("at the token", "one position before"),
        *("fit only", "fit and audio tokens"),
    ]
    assert (tmp_path / "table.md").read_text() == table
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")
    made = variants(tmp_path)
    # two steps were taken, however little time the configuration gives
    assert made["fit only"]["held_out"] is None and made["baseline"]["held_out"] > 0
    assert made["baseline"]["fit"]["r2"] > made["state before"]["fit"]["r2"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "baseline/linear/metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 2

    # earlier results are kept, not measured again
    made["baseline"]["heard"] = ["kept as it is", "and this"]
    record = json.loads((tmp_path / "results.json").read_text()) | {"variants": made}
    (tmp_path / "results.json").write_text(json.dumps(record))
    run(config, tmp_path, "--questions", "state", "kind")
    again = variants(tmp_path)
    assert again.pop("projector.kind=residual")["fit"] is None and again.pop("projector.kind=mlp")["fit"]["r2"] > 0.5
    assert again == made
    assert "| kind of projector | residual |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="another settings; choose another --output"):
        run(config, tmp_path, "--train-steps", "3")


def test_unusable_words_are_one_line(config: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="^ablation: .*nothing-here"):
        run(config, tmp_path, "--pairs", str(tmp_path / "nothing-here"))


def test_each_variant_differs_from_the_baseline_in_one_thing() -> None:
    config = Config.model_validate({"llm": {"layers": 3}, "projector": {"activation": "tanh"}})
    asked = ablation.variants(config, 4)
    assert list(asked) == list(ablation.QUESTIONS) and list(asked["activation"]) == list(ACTIVATIONS)
    assert list(asked["layer"]) == ["1", "2", "3", "4"]
    for question in ("kind", "activation", "state", "layer", "context", "training"):
        assert list(asked[question].values()).count(ablation.Variant()) == 1, question
    assert asked["layer"]["3"] == asked["activation"]["tanh"] == ablation.Variant()
    every = [variant for answers in asked.values() for variant in answers.values()]
    assert len({variant.name for variant in every}) == len(set(every)) == 1 + 2 + 6 + 1 + 3 + 1 + 1 + 3
    assert all(len(variant.changes) + variant.before <= 1 for variant in every)


@pytest.mark.parametrize("context", ["raw", "chat"])
def test_the_state_before_is_that_of_the_position_before(context: str) -> None:
    llm = make_llm(layers=[2], context=context)
    before = ablation.StateBefore(llm.model, llm.tokenizer, llm.name, [2], context)
    text = "the quick brown fox"
    (at,), (shifted,) = llm.states([text]), before.states([text])
    assert shifted.ids == at.ids and shifted.spans == at.spans
    assert torch.equal(shifted.states[1:], at.states[:-1])
    assert not torch.equal(shifted.states[0], at.states[0])
    # the first one has not seen the text: it is the same before another
    torch.testing.assert_close(shifted.states[0], before.states(["lazy dog"])[0].states[0])
