"""A run's folder: what is refused before anything is loaded, finished and lengthened runs, fits, starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from audio_projection import train as training
from audio_projection.cli.evaluate import _systems
from audio_projection.cli.train import _training_settings
from audio_projection.config import Config
from audio_projection.data.corpora.extract import _check_place
from audio_projection.data.corpora.prepare import Corpus, PreparedCorpus, prepare
from audio_projection.data.pairs import PairFolder
from audio_projection.data_loader import split_held_out
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.systems import SYSTEMS, name_systems
from audio_projection.files.interruption import Interrupted
from audio_projection.files.locations import given_projector
from audio_projection.files.lock import folder_lock
from audio_projection.fit import assemble, closed_form
from audio_projection.fit.closed_form import run_fit
from audio_projection.inference import Voice
from audio_projection.projector import Projector
from audio_projection.train import run_training, train_projector
from audio_projection.training.estimates.dry_run import describe
from audio_projection.training.trainer import Outcome, losses_in_words
from helpers.corpora import contents, noise, write_sound
from helpers.gguf_files import tiny_projector
from helpers.training import make_config, make_models, make_pairs, pairs_config, save_llm
from helpers.voices import make_voice

PAIRS = make_pairs(14)


@pytest.fixture(scope="module")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llm(tmp_path_factory.mktemp("llm"))


def train(config: Config) -> Outcome:
    return train_projector(config, make_models(config), PAIRS[:10], PAIRS[10:])


def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (training, closed_form):
        monkeypatch.setattr(module, "load_tts", lambda config: pytest.fail("models are loaded"))


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    first, before = train(config), contents(tmp_path)
    again = train(config)
    assert contents(tmp_path) == before
    assert (again.held_out, again.plain, again.finished, again.step) == (first.held_out, first.plain, True, 6)
    assert str(again) == str(first)


def test_a_run_is_lengthened_when_that_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_config(tmp_path))
    with pytest.raises(AudioProjectionError, match=r"train.steps .6, now 9.; .*train.extend=true"):
        train(make_config(tmp_path, steps=9))
    with caplog.at_level("INFO"):
        outcome = train(make_config(tmp_path, steps=9, extend=True))
    assert outcome.step == 9 and Projector.from_pretrained(outcome.projector).info.steps == 9
    assert "resuming from step 6" in caplog.text and "train.steps was 6 and is 9: the cosine schedule" in caplog.text
    with pytest.raises(AudioProjectionError, match="the run is at step 9 already"):
        train(make_config(tmp_path, steps=4, extend=True))
    with pytest.raises(AudioProjectionError, match="begun with another train.batch"):
        train(make_config(tmp_path, steps=12, batch=2, extend=True))


def test_what_settings_show_is_refused_before_anything_is_loaded(
    tmp_path: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = pairs_config(tmp_path, llm_folder)
    config = Config.model_validate(values)
    train(config)
    forbid_loading(monkeypatch)
    values["train"]["batch"] = 2
    with pytest.raises(AudioProjectionError, match="begun with another train.batch"):
        run_training(Config.model_validate(values))
    values["llm"]["layers"], values["output_dir"] = 99, str(tmp_path / "other")
    for run in (run_training, run_fit):
        with pytest.raises(AudioProjectionError, match="99"):
            run(Config.model_validate(values))


def test_a_fit_replaces_no_training(tmp_path: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.model_validate(pairs_config(tmp_path, llm_folder))
    train(config)
    before = contents(config.run_dir)
    forbid_loading(monkeypatch)
    with pytest.raises(AudioProjectionError, match="trained for 6 steps, which a fit would replace: give another"):
        run_fit(config)
    assert contents(config.run_dir) == before


def test_two_runs_do_not_share_a_folder(tmp_path: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.model_validate(pairs_config(tmp_path, llm_folder))
    forbid_loading(monkeypatch)
    with folder_lock(config.run_dir):
        for run in (run_training, run_fit):
            with pytest.raises(AudioProjectionError, match="another run"):
                run(config)


def test_the_probe_is_not_begun_again(tmp_path: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = pairs_config(tmp_path, llm_folder, steps=1)
    values["llm"]["layers"] = "probe"
    config = Config.model_validate(values)

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    probed: list[int] = []
    probe = assemble.probe
    monkeypatch.setattr(assemble, "probe", lambda *arguments: (probed.append(1), probe(*arguments))[1])
    monkeypatch.setattr(training, "fit_projector", interrupted)
    with pytest.raises(Interrupted, match="the same command begins again"):
        run_training(config)
    monkeypatch.undo()
    monkeypatch.setattr(assemble, "probe", lambda *arguments: pytest.fail("it is probed again"))
    monkeypatch.setattr(training, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_training(config)
    monkeypatch.undo()
    monkeypatch.setattr(assemble, "probe", lambda *arguments: pytest.fail("it is probed again"))
    monkeypatch.setattr(training, "fit_projector", lambda *arguments: pytest.fail("it is fitted again"))
    projector = Projector.from_pretrained(run_training(config).projector)
    assert probed == [1] and projector.info.measurements["fit"] and projector.info.measurements["probe"]


def test_a_run_starts_from_a_projector(tmp_path: Path, llm_folder: Path) -> None:
    values = pairs_config(tmp_path, llm_folder, steps=2)
    first = run_training(Config.model_validate(values))
    values["output_dir"] = str(tmp_path / "second")
    values["train"] |= {"start": str(first.projector.parents[1]), "steps": 0}
    second = Projector.from_pretrained(run_training(Config.model_validate(values)).projector)
    one = Projector.from_pretrained(first.projector)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in one.state_dict().items())
    assert second.info.measurements["start"]["steps"] == 2 and "fit" not in second.info.measurements
    values["llm"]["layers"], values["output_dir"] = 3, str(tmp_path / "third")
    with pytest.raises(AudioProjectionError, match="train.start is a projector with another layers"):
        run_training(Config.model_validate(values))


def test_projector_path_means_nothing_in_training(tmp_path: Path) -> None:
    with pytest.raises(AudioProjectionError, match=r"projector.path is for speaking.*train.start="):
        _training_settings("nano", [f"projector.path={tmp_path}"], None, None, None, None)


def test_a_run_stands_for_its_projector(tmp_path: Path) -> None:
    place = tmp_path / "run" / "linear" / "projector"
    tiny_projector().save_pretrained(place)
    for given in (place, place.parent, tmp_path / "run"):
        assert given_projector(given) == place
    tiny_projector("residual").save_pretrained(tmp_path / "run" / "residual" / "projector")
    with pytest.raises(AudioProjectionError, match="has several projectors: give .*linear.projector or .*residual"):
        given_projector(tmp_path / "run")
    with pytest.raises(AudioProjectionError, match="no projector.json in it"):
        given_projector(tmp_path)


def test_evaluate_takes_one_projector(tmp_path: Path) -> None:
    place = tiny_projector().save_pretrained(tmp_path / "linear" / "projector")
    config = make_config(tmp_path / "out")
    systems = _systems(config, str(tmp_path), SYSTEMS)
    assert systems == ["teacher", "codec", "plain", str(place), "shuffled", "other"]
    assert config.projector.path == place and len(name_systems(systems)) == 6
    assert _systems(config, None, SYSTEMS) == list(SYSTEMS)


def test_fine_tuning_goes_beside_the_first_run(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    config.tts.finetune = "lora"
    assert config.run_dir == tmp_path / "linear"
    config.tts.finetune = "none"
    train(config)
    config.tts.finetune = "lora"
    assert config.trained_projector == tmp_path / "linear-lora" / "projector"
    config.tts.finetune = "none"
    assert config.run_dir == tmp_path / "linear"


def test_losses_have_one_name() -> None:
    losses, weights = {"talker": 2.0, "predictor": 3.0, "accuracy": 0.5}, {"talker": 1.0, "predictor": 0.5}
    assert losses_in_words(losses, weights) == "2.000 (predictor 3.000, sum 3.500)"
    assert losses_in_words({"talker": 2.0}, {"talker": 1.0}) == "2.000"
    assert losses_in_words({"rows": 0.25}, {"rows": 2.0}) == "rows 0.250, sum 0.500"


@pytest.mark.parametrize(("count", "held_out"), [(4, 0), (14, 2), (320, 32)])
def test_few_texts_and_what_the_plan_says_of_them(
    tmp_path: Path, count: int, held_out: int, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = make_pairs(count)
    with caplog.at_level("INFO"):
        assert len(split_held_out(pairs, 32, 0)[1]) == held_out
    assert ("nothing is held out of 4 texts" in caplog.text) is (count == 4)
    assert ("2 texts are held out, not 32: a fifth of the 14" in caplog.text) is (count == 14)
    PairFolder(tmp_path / "pairs", {}).add(pairs)
    config = Config.model_validate(
        {"data": {"source": "pairs", "path": str(tmp_path / "pairs"), "held_out": 32}, "output_dir": str(tmp_path)}
    )
    assert f"utterances: {count}, " in (plan := describe(config)) and f"held out: {held_out}\n" in plan


def test_folders_that_are_taken_for_others(tmp_path: Path) -> None:
    write_sound(tmp_path / "corpus" / "a.wav", noise(1.5))
    (tmp_path / "corpus" / "list.tsv").write_text("a.wav\tthe fox\n")
    config = make_config(tmp_path)
    prepare(Corpus("manifest", tmp_path / "corpus" / "list.tsv"), tmp_path / "prepared", config.data, 8, 1)
    with pytest.raises(AudioProjectionError, match="is a prepared corpus, not encoded yet: run .*data features"):
        PairFolder(tmp_path / "prepared")
    _check_place(PreparedCorpus(tmp_path / "prepared"))
    (tmp_path / "corpus").rename(tmp_path / "moved")
    with pytest.raises(AudioProjectionError, match=r"not where they were.*a.wav: move the corpus back, or prepare it"):
        _check_place(PreparedCorpus(tmp_path / "prepared"))
    PairFolder(tmp_path / "pairs", {}).add(PAIRS)
    with pytest.raises(AudioProjectionError, match="these are pairs.*data.source=pairs data.path=.*pairs"):
        PreparedCorpus(tmp_path / "pairs")


def test_capitals_are_told_where_there_were_some(tmp_path: Path) -> None:
    for name, text, told in (("LOUD", "THE FOX", True), ("quiet", "The fox", False)):
        chapter = tmp_path / name / "dev-clean" / "1" / "2"
        write_sound(chapter / "1-2-0.flac", noise(1.5))
        (chapter / "1-2.trans.txt").write_text(f"1-2-0 {text}\n")
        report = prepare(
            Corpus("librispeech", tmp_path / name), tmp_path / f"{name} out", make_config(tmp_path).data, 8, 1
        )
        assert ("1 transcripts in capitals became sentences" in report.headline) is told


def test_a_tts_of_other_weights_is_told(caplog: pytest.LogCaptureFixture) -> None:
    voice = make_voice()
    assert "other weights" not in caplog.text and voice.projector.info.tts_weights == voice.tts.embeddings_hash
    voice.projector.info.tts_weights = "0" * 16
    Voice(voice.llm, voice.tts, voice.projector, voice.defaults)
    assert "has other weights: speech may be wrong" in caplog.text


@pytest.mark.parametrize("begin", [run_training, run_fit])
def test_a_folder_that_is_no_pairs_is_refused_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Config], object]
) -> None:
    for module in ("train", "fit.closed_form"):
        monkeypatch.setattr(f"audio_projection.{module}.load_tts", lambda _: pytest.fail("a model was loaded"))
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "prepare.json").write_text("{}", encoding="utf-8")
    data = {"source": "pairs", "path": str(tmp_path / "prepared")}
    with pytest.raises(AudioProjectionError, match="is a prepared corpus, not encoded yet"):
        begin(Config.model_validate({"data": data, "output_dir": str(tmp_path / "run")}))
