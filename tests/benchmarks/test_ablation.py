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
    words = ["--config", config, "--output", output, "--sentences", "2", "--train-steps", "2", "--jobs", "1"]
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
    asked = ablation.variants(config, range(1, 5))
    assert list(asked) == list(ablation.QUESTIONS) and list(asked["activation"]) == list(ACTIVATIONS)
    assert list(asked["layer"]) == ["1", "2", "3", "4"]
    for question in ("kind", "activation", "state", "layer", "context", "refine", "training"):
        assert list(asked[question].values()).count(ablation.Variant()) == 1, question
    assert asked["layer"]["3"] == asked["activation"]["tanh"] == ablation.Variant()
    every = [variant for answers in asked.values() for variant in answers.values()]
    assert len({variant.name for variant in every}) == len(set(every)) == 1 + 2 + 6 + 1 + 3 + 1 + 1 + 1 + 3
    assert all(len(variant.changes) + variant.before <= 1 for variant in every)


def test_the_baseline_may_be_the_fit_alone() -> None:
    config = Config.model_validate({"llm": {"layers": 2}})
    asked = ablation.variants(config, [2, 0, [0, 4]], [500], trained=False)
    assert list(asked["layer"]) == ["2", "0", "0 and 4"]
    baseline, zero, both = asked["layer"].values()
    assert baseline == asked["training"]["fit only"] == asked["refine"]["ridge"] == ablation.Variant(trained=False)
    assert zero.changes == (("llm.layers", 0),)
    assert both.changes == (("llm.layers", (0, 4)), ("projector.mix", "concat"))
    assert {variant.trained for answers in asked.values() for variant in answers.values()} == {False, True}
    assert asked["training"]["fit and audio tokens"].trained, "the only one that is trained"


def test_layers_side_by_side_are_fitted_on_text_alone(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--fit-only", "--questions", "layer", "refine", "--layers", "last", "0+last"]
    run(config, tmp_path, "fit.refine_steps=2", *words)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in lines[3:]] == ["4", "0 and 4", "ridge", "ridge, then softmax"]
    made = variants(tmp_path)
    assert all(record.get("held_out") is None for record in made.values())
    both = made["llm.layers=(0, 4), projector.mix=concat, fit only"]
    assert both["fit"]["r2"] > made["llm.layers=4, fit only"]["fit"]["r2"], "layer 0 knows the token"
    assert made["fit.refine=softmax, fit only"]["fit"]["refined"]["steps"] == 2
    assert [len(met) for met in both["met"]] == [len(text.split()) for text in ablation.read_sentences(limit=2)]
    with pytest.raises(SystemExit, match="^ablation: --layers: 'first' is no layer"):
        run(config, tmp_path, "fit.refine_steps=2", "--layers", "first")


def test_words_are_told_apart_by_their_tokens() -> None:
    # é has two bytes; the second word's second token is new, and the last word is one new token
    text, spans = "Café tables, then", [(0, 5), (5, 10), (10, 13), (13, 18)]
    assert ablation.met_words(text, [1, 2, 3, 4], spans, {1, 2}) == [True, False, False]
    assert ablation.met_words(text, [1, 2, 3, 4], spans, {1, 2, 3, 4}) == [True] * 3
    texts, heard = ["A dog, then a cat.", "It's twelve."], ["a dog then the cat sat", "its twelve"]
    met = [[True, False, True, True, False], [True, False]]
    found = ablation.wrong_by_meeting(texts, heard, met, ablation.PocketSphinx().normalise)
    assert found == {True: [False, False, True, True], False: [False, False, False]}
    # a normaliser that drops a word: that sentence's words cannot be told apart
    found = ablation.wrong_by_meeting(texts, heard, met, lambda text: "" if text == "A" else text.lower())
    assert sum(map(len, found.values())) == 2


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
