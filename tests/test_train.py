"""Training end to end on tiny models: what changes, what is saved, what resumes, what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from audio_projection.alignment.token_states import token_states
from audio_projection.config import Config, TrainConfig, load_config
from audio_projection.data_loader import BatchWalk
from audio_projection.errors import AudioProjectionError
from audio_projection.fit.closed_form import run_fit
from audio_projection.inference import Voice
from audio_projection.llm.language_model import LanguageModel
from audio_projection.models import Models
from audio_projection.projector import Projector
from audio_projection.train import run_training, train_projector
from audio_projection.training.examples import Examples
from audio_projection.training.optimizer_step import learning_rate
from audio_projection.training.run_log import MetricsLog, read_metrics
from audio_projection.training.trainer import Trainer
from audio_projection.tts.layers import Block
from audio_projection.tts.model import Qwen3TTS
from helpers.training import (
    load_tts,
    make_config,
    make_models,
    make_pairs,
    pairs_config,
    save_llm,
)

PAIRS = make_pairs(14)


@pytest.fixture(scope="module")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llm(tmp_path_factory.mktemp("llm"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return Projector.from_pretrained(folder).state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def digest(module: torch.nn.Module) -> str:
    total = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        total.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def train(config: Config, models: Models | None = None, pairs: list = PAIRS) -> Models:
    models = models or make_models(config)
    train_projector(config, models, pairs[:10], pairs[10:])
    return models


@pytest.mark.parametrize("kind", ["linear", "residual", "mlp"])
def test_only_the_projector_changes_and_it_learns(tmp_path: Path, kind: str) -> None:
    config = make_config(tmp_path, steps=25, learning_rate=3e-2)
    config.projector.kind = kind  # type: ignore[assignment]
    models = make_models(config)
    frozen = digest(models.tts), digest(models.llm.model)
    before = {name: value.clone() for name, value in models.projector.state_dict().items()}
    train(config, models)
    assert (digest(models.tts), digest(models.llm.model)) == frozen
    changed = [name for name, value in models.projector.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == list(before)  # every trained tensor, the mix of the layers too
    assert all(parameter.grad is None for parameter in models.tts.parameters())
    steps = [
        record["training"]["talker"]
        for record in read_metrics(config.run_dir / "metrics.jsonl")
        if "training" in record
    ]
    assert len(steps) == 25 and sum(steps[-5:]) < sum(steps[:5]) - 1.0
    assert same(weights(config.trained_projector), models.projector.state_dict())


def test_a_run_leaves_records_curve_and_projector(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    train(config)
    records = read_metrics(config.run_dir / "metrics.jsonl")
    assert [record["step"] for record in records if "training" in record] == [1, 2, 3, 4, 5, 6]
    evaluated = [record for record in records if "held_out" in record]
    assert [record["step"] for record in evaluated] == [0, 3, 6]
    assert all(record["plain"] == evaluated[0]["plain"] for record in evaluated)
    assert (config.run_dir / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (config.run_dir / "checkpoints").iterdir()) == [
        "step-00000004",
        "step-00000006",
    ]
    info = Projector.from_pretrained(config.trained_projector).info
    assert (info.steps, info.layers, info.layout, info.state_convention) == (6, [2, 4], "nonstreaming", "bound")
    assert info.measurements["train"]["held_out"] == evaluated[-1]["held_out"]


def test_untrained_residual_has_the_plain_loss(tmp_path: Path) -> None:
    config = make_config(tmp_path, steps=1)
    config.projector.kind = "residual"
    train(config)
    first = read_metrics(config.run_dir / "metrics.jsonl")[0]
    assert first["held_out"] == first["plain"]


def test_accumulated_batches_give_the_gradient_of_one_large_batch(tmp_path: Path) -> None:
    """Utterances of different lengths, so that a mean of micro-batch means would differ."""
    gradients = []
    for name, batch, accumulation in (("large", 8, 1), ("small", 2, 4)):
        options: dict[str, Any] = {
            "batch": batch,
            "grad_accumulation": accumulation,
            "clip": 1e9,
            "predictor_share": 1.0,
        }
        config = make_config(tmp_path / name, **options)
        models = make_models(config)
        trainer = Trainer(config, models, PAIRS[:8], [])
        trainer.resume()
        trainer.optimization.take_step(BatchWalk(trainer.order), 1e-2)
        gradients.append([parameter.grad.clone() for parameter in models.projector.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_states_in_memory_and_computed_again_agree(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    models = make_models(config)
    in_memory = Examples(models, PAIRS, config.train, config.tts)
    config.train.states_memory = 0.0
    computed = Examples(models, PAIRS, config.train, config.tts)
    for one, other in zip(in_memory.at([3, 5]), computed.at([3, 5]), strict=True):
        torch.testing.assert_close(one.features.states, other.features.states, rtol=1e-4, atol=1e-5)
        assert torch.equal(one.features.text_embeddings, other.features.text_embeddings) and torch.equal(
            one.prefix, other.prefix
        )
    assert in_memory._states._in_memory is not None and computed._states._in_memory is None


def test_learning_rate_warms_up_and_falls_to_a_tenth() -> None:
    settings = TrainConfig(steps=110, warmup=10, learning_rate=1.0)
    rates = [learning_rate(settings, 110, step) for step in range(111)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3]) and rates[9:11] == pytest.approx([1.0, 1.0])
    assert rates[60] == pytest.approx(0.55) and rates[110] == pytest.approx(0.1)
    assert learning_rate(settings.model_copy(update={"schedule": "constant"}), 110, 100) == 1.0
    timed = settings.model_copy(update={"max_minutes": 1.0})
    assert learning_rate(timed, 110, 11, seconds=60.0) == pytest.approx(0.1)


def test_bfloat16_trains_with_a_projector_in_float32(tmp_path: Path) -> None:
    config = make_config(tmp_path, precision="bf16", steps=4)
    models = train(config)
    assert {value.dtype for value in models.projector.state_dict().values()} == {torch.float32}
    losses = [r["training"]["talker"] for r in read_metrics(config.run_dir / "metrics.jsonl") if "training" in r]
    exact = make_config(tmp_path / "exact", steps=4)
    train(exact)
    others = [r["training"]["talker"] for r in read_metrics(exact.run_dir / "metrics.jsonl") if "training" in r]
    assert losses == pytest.approx(others, rel=0.02) and losses != others


def test_time_limit_ends_a_run_with_its_projector(tmp_path: Path) -> None:
    config = make_config(tmp_path, steps=10_000, max_minutes=1e-4, eval_every=10_000)
    outcome = train_projector(config, make_models(config), PAIRS[:10], PAIRS[10:])
    steps = Projector.from_pretrained(config.trained_projector).info.steps
    assert 1 <= steps < 10_000
    assert f"trained {steps} of 10000 steps, as many as train.max_minutes allowed" in str(outcome)


@pytest.mark.parametrize("change", [{"learning_rate": 0.5}, {"batch": 2}, {"steps": 7}])
def test_other_settings_do_not_resume_a_run(tmp_path: Path, change: dict[str, Any]) -> None:
    train(make_config(tmp_path))
    with pytest.raises(AudioProjectionError, match=f"begun with another train.{next(iter(change))}"):
        train(make_config(tmp_path, **change))


def test_other_data_or_seed_do_not_resume_a_run(tmp_path: Path) -> None:
    train(make_config(tmp_path))
    with pytest.raises(AudioProjectionError, match="begun with another data"):
        train(make_config(tmp_path), pairs=make_pairs(14, seed=3))
    config = make_config(tmp_path)
    config.seed = 9
    with pytest.raises(AudioProjectionError, match="begun with another seed"):
        train(config)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    train(config)
    newest = config.run_dir / "checkpoints" / "step-00000006"
    (newest / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(AudioProjectionError, match="step-00000006 is damaged"):
        train(config)


def test_metrics_of_lost_steps_are_made_again(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    for step in (1, 2, 3):
        log.add({"step": step})
    with open(log.path, "a") as file:
        file.write('{"step": 4, "tr')
    assert MetricsLog(log.path, 2).records() == [{"step": 1}, {"step": 2}]


def test_fit_alone_then_training_from_probe_and_fit(tmp_path: Path, llm_folder: Path) -> None:
    values = pairs_config(tmp_path, llm_folder, steps=2)
    values["llm"]["layers"] = "probe"
    config = Config.model_validate(values)
    fitted = Projector.from_pretrained(run_fit(config))
    assert fitted.voice == "ada" and fitted.info.steps == 0
    assert fitted.info.measurements["fit"]["nearest_row"] > 0.4
    probed = fitted.info.measurements["probe"]
    assert fitted.info.layers == [probed["chosen"]] and set(probed["layers"]) == {"1", "2", "3", "4"}
    outcome = run_training(config)
    trained = Projector.from_pretrained(outcome.projector)
    assert trained.info.layers == fitted.info.layers and trained.info.steps == 2
    assert run_training(config).step == 2  # resumes, and is done already; the layer is not probed again


@pytest.mark.parametrize("kind", ["linear", "residual"])
def test_layers_side_by_side_are_fitted_trained_resumed_and_spoken(tmp_path: Path, llm_folder: Path, kind: str) -> None:
    values = pairs_config(tmp_path, llm_folder, steps=2)
    values["llm"]["layers"], values["projector"] = [0, "last"], {"kind": kind, "mix": "concat"}
    values["data"]["cache"] = None
    config = Config.model_validate(values)
    if kind == "linear":
        fitted = Projector.from_pretrained(run_fit(config))
        assert fitted.linear.weight.shape == (64, 2 * 32)  # type: ignore[union-attr]
        alone = values | {
            "llm": values["llm"] | {"layers": "last"},
            "projector": {},
            "output_dir": str(tmp_path / "one"),
        }
        other = Projector.from_pretrained(run_fit(Config.model_validate(alone)))
        right, without = (each.info.measurements["fit"]["nearest_row"] for each in (fitted, other))
        assert right > without + 0.1, "the embeddings beside the last layer tell more of the tokens"
    trained = Projector.from_pretrained(run_training(config).projector)
    assert trained.info.layers == [0, 4] and trained.info.mix == "concat" and trained.info.steps == 2
    config.train.steps, config.train.extend = 4, True
    outcome = run_training(config)
    assert outcome.step == 4
    speech = Voice.from_config(config, projector=str(outcome.projector)).speak("hello there")
    assert len(speech.samples)
    values |= {"projector": {"kind": kind}, "output_dir": str(tmp_path / "other")}
    values["train"] |= {"start": str(outcome.projector)}
    with pytest.raises(AudioProjectionError, match="train.start is a projector with another mix"):
        run_training(Config.model_validate(values))


def test_one_layer_side_by_side_with_nothing_is_refused_before_anything_is_loaded(
    tmp_path: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = pairs_config(tmp_path, llm_folder) | {"projector": {"mix": "concat"}}
    monkeypatch.setattr("audio_projection.train.load_tts", lambda *_: pytest.fail("the models are loaded"))
    monkeypatch.setattr("audio_projection.fit.closed_form.load_tts", lambda *_: pytest.fail("the models are loaded"))
    for run in (run_fit, run_training):
        with pytest.raises(AudioProjectionError, match=r"here is one: give several, for example llm.layers=\[0,last\]"):
            run(Config.model_validate(values))


def test_fitted_embeddings_are_nearest_to_the_own_ones(tmp_path: Path, llm_folder: Path) -> None:
    config = Config.model_validate(pairs_config(tmp_path, llm_folder))
    projector = Projector.from_pretrained(run_fit(config))
    from audio_projection.llm.language_model import LanguageModel

    llm = LanguageModel.from_pretrained(llm_folder, layers=2)
    (features,) = token_states(llm, load_tts(), ["hello there the lazy fox 3"])
    embeddings = projector(features.states, features.text_embeddings)
    nearest = torch.cdist(embeddings, features.text_embeddings).argmin(1)
    assert (features.text_embeddings[nearest] == features.text_embeddings).all(1).float().mean() > 0.4


def test_twenty_steps_on_real_recordings(tmp_path: Path, shared: Path) -> None:
    """32 LJSpeech clips, codes by the codec's encoder, through the base model with each clip's x-vector."""
    corpus = shared / "data" / "corpora" / "LJSpeech-1.1"
    config = make_config(tmp_path, steps=20, batch=2, eval_every=20, learning_rate=3e-3)
    config.tts.speaker = None
    config.data.source, config.data.path, config.data.held_out = "ljspeech", corpus, 4
    config.data.max_seconds = 6.0  # the tiny encoder is slow on long clips
    from audio_projection.data.speakers import default_voice
    from audio_projection.data_loader import load_pairs, split_held_out

    tts = load_tts("base")
    training, held_out = split_held_out(load_pairs(config, tts), 4, 0)
    models = make_models(config, "base")
    models.projector.set_voice(*default_voice(config.tts, tts, training, config.data.voice_speaker))
    outcome = train_projector(config, models, training, held_out)
    losses = [r["training"]["talker"] for r in read_metrics(config.run_dir / "metrics.jsonl") if "training" in r]
    assert len(losses) == 20 and sum(losses[-4:]) < sum(losses[:4])
    saved = Projector.from_pretrained(outcome.projector)
    assert isinstance(saved.voice, torch.Tensor) and saved.info.voice_source == "LJ"


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with pytest.raises(AudioProjectionError, match="nothing to train on"):
        train_projector(config, make_models(config), [], [])


def test_models_are_frozen_when_loaded() -> None:
    assert isinstance(load_tts(), Qwen3TTS)
    assert not any(parameter.requires_grad for parameter in load_tts().parameters())


def test_layers_computed_again_give_the_same_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients, counts = [], []
    forward, passes = Block.forward, []
    monkeypatch.setattr(Block, "forward", lambda self, *inputs: (passes.append(self), forward(self, *inputs))[1])
    for again in (False, True):
        config = make_config(tmp_path / str(again), activation_checkpointing=again, clip=1e9)
        models = make_models(config)
        trainer = Trainer(config, models, PAIRS[:8], [])
        passes.clear()
        trainer.optimization.take_step(BatchWalk(trainer.order), 1e-2)
        counts.append(sum(block in list(models.tts.talker.transformer.layers) for block in passes))
        gradients.append([parameter.grad.clone() for parameter in models.projector.parameters()])
    models.tts.talker.transformer.checkpointing = False  # other tests share this model
    assert counts[1] == 2 * counts[0] > 0
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_every_loss_is_recorded_and_falls_on_its_own(tmp_path: Path) -> None:
    """Each loss alone for a few steps of the real training loop; the recorded loss is the weighted sum."""
    for name in ("predictor", "distill", "distill_states", "rows", "perceptual"):
        loss = {"talker": 0.0, "predictor": 0.0} | {name: 2.0}
        config = make_config(tmp_path / name, steps=12, eval_every=12, loss=loss, perceptual_share=1.0)
        config.train.predictor_share = 1.0
        train(config)
        records = read_metrics(config.run_dir / "metrics.jsonl")
        steps = [record["training"] for record in records if "training" in record]
        assert all(step["loss"] == pytest.approx(2 * step[name], rel=1e-5) for step in steps)
        assert steps[0].keys() - {"loss", "gradient", "learning_rate", "accuracy"} == {name}
        held_out = [record["held_out"] for record in records if "held_out" in record]
        assert {"talker", "accuracy", "predictor", name} == held_out[0].keys()
        if name != "perceptual":  # twelve steps do not learn the sound of random codes
            assert sum(step[name] for step in steps[-4:]) < sum(step[name] for step in steps[:4]), name


@pytest.mark.parametrize(
    ("settings", "reads"), [({}, False), ({"states_memory": 0.0}, True), ({"sample_every": 2}, True)]
)
def test_the_llm_is_freed_when_its_states_are_there(
    tmp_path: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], reads: bool
) -> None:
    """And reads without output head and upper layers as long as it is needed."""
    freed: list[str] = []
    release, reading = LanguageModel.release, LanguageModel.keep_reading_only
    monkeypatch.setattr(LanguageModel, "release", lambda llm: [freed.append("all"), release(llm)])
    monkeypatch.setattr(LanguageModel, "keep_reading_only", lambda llm: [freed.append("head"), reading(llm)][1])
    config = Config.model_validate(pairs_config(tmp_path, llm_folder, steps=2, **settings))
    assert run_training(config).finished
    assert freed == (["head"] if reads else ["head", "all"])


def test_warm_up_in_proportion_to_the_steps() -> None:
    """With eight GPUs a run has an eighth of the steps, and the same share of them is warm-up."""
    settings = TrainConfig(warmup=0.1, learning_rate=1.0)
    for steps in (800, 100):
        rates = [learning_rate(settings, steps, step) for step in range(steps)]
        assert rates.index(max(rates)) == steps // 10 - 1 and rates[0] == pytest.approx(10 / steps)
    assert TrainConfig(warmup=10).warmup_steps(40) == 10 and TrainConfig(warmup=0).warmup_steps(40) == 0
    assert TrainConfig().warmup_steps(1000) == 70 and TrainConfig().warmup_steps(3) == 0
    for wrong in (-1, 1.5, -0.1):
        with pytest.raises(ValueError, match="warmup"):
            TrainConfig(warmup=wrong)
    with pytest.raises(AudioProjectionError, match="train.warmup"):
        load_config(None, ["train.warmup=-3"])
