"""Fine-tuning the talker (LoRA, full): what trains, what stays frozen, saving and loading."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.inference import Voice
from audio_projection.models import Models
from audio_projection.projector import Projector
from audio_projection.train import train_projector
from audio_projection.training.teacher_forcing import TeacherForced
from audio_projection.training.trainer import Trainer
from audio_projection.tts.finetune import LoraFinetuning, load_finetuned
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.weights import official_state_dict
from helpers.tiny_llm import make_llm
from helpers.training import forced, load_tts, make_pairs, own_tts, parity_file, train_until, tuned

PAIRS = make_pairs(8)


def snapshot(tts: Qwen3TTS) -> dict[str, torch.Tensor]:
    """All weights but LoRA's, under the names that they have without it."""
    return {
        name.replace(".base_layer", ""): value.clone()
        for name, value in tts.state_dict().items()
        if "lora_" not in name
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Config, Models, dict[str, torch.Tensor]]]:
    """A short run of each kind, and the weights before it."""
    runs = {}
    for kind in ("lora", "full"):
        config, models = tuned(tmp_path_factory.mktemp(kind), kind)
        before = snapshot(models.tts)
        train_projector(config, models, PAIRS[:6], PAIRS[6:])
        runs[kind] = config, models, before
    return runs


def test_lora_trains_its_matrices_on_all_of_every_talker_layer_and_no_weight(trained: dict[str, Any]) -> None:
    _, models, before = trained["lora"]
    after = snapshot(models.tts)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    moving = {name for name, value in models.tts.named_parameters() if value.requires_grad}
    adapted = {name.split(".lora_")[0] for name in moving}
    matrices = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    count = models.tts.config.talker.transformer.num_layers
    assert adapted == {f"talker.transformer.layers.{i}.{part}" for i in range(count) for part in matrices}
    assert all(value.abs().sum() > 0 for name, value in models.tts.named_parameters() if ".lora_B." in name)


def test_full_trains_the_talkers_layers_and_nothing_else(trained: dict[str, Any]) -> None:
    _, models, before = trained["full"]
    changed = {name for name, value in models.tts.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("talker.transformer.")}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_saved_talker_is_the_trained_one(trained: dict[str, Any], kind: str) -> None:
    config, models, _ = trained[kind]
    fresh = own_tts()
    load_finetuned(fresh, kind, config.trained_projector)
    assert not any(parameter.requires_grad for parameter in fresh.parameters())
    assert fresh.talker.state_dict().keys() == load_tts().talker.state_dict().keys()  # merged: nothing is left of peft
    embeds = torch.randn(2, 9, fresh.config.hidden_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs, loaded = (tts.talker(embeds) for tts in (models.tts, fresh, load_tts()))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (ours - loaded).abs().max() > 1e-3


def test_full_is_saved_under_the_official_names(trained: dict[str, Any]) -> None:
    config, models, _ = trained["full"]
    saved = load_file(config.trained_projector / "talker" / "model.safetensors")
    official = official_state_dict(models.tts)
    assert saved.keys() == {
        name for name in official if name.startswith(("talker.model.layers.", "talker.model.norm."))
    }
    assert all(torch.equal(saved[name], official[name]) for name in saved)


def test_lora_is_saved_in_pefts_own_format(trained: dict[str, Any]) -> None:
    from peft import LoraConfig, PeftModel

    config, models, _ = trained["lora"]
    folder = config.trained_projector / "adapter"
    assert LoraConfig.from_pretrained(str(folder)).r == 4
    PeftModel.from_pretrained(talker := own_tts().talker, str(folder))
    lora = {name: value for name, value in models.tts.talker.state_dict().items() if "lora_" in name}
    assert lora and all(torch.equal(talker.state_dict()[name], value) for name, value in lora.items())


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_voice_loads_the_talker_beside_its_projector(
    trained: dict[str, Any], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a configuration, as the commands do; another TTS and a missing folder are refused."""
    config, models, _ = trained[kind]
    llm = make_llm(layers=[2, 4])
    monkeypatch.setattr("audio_projection.inference.loading.load_llm", lambda _: llm)
    config.tts.name = str(parity_file("tiny_custom_voice"))
    folder = config.trained_projector
    voice = Voice.from_config(config, projector=str(folder))
    embeds = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(voice.tts.talker(embeds), models.tts.talker(embeds), rtol=1e-4, atol=1e-5)
    assert voice.projector.info.finetune == kind

    copied = shutil.copytree(folder, tmp_path / "projector")
    other = own_tts()
    with torch.no_grad():
        other.talker.transformer.layers[0].mlp.down_proj.weight.add_(0.1)  # type: ignore[union-attr, operator]
    with pytest.raises(AudioProjectionError, match="does not belong to this TTS"):
        load_finetuned(other, kind, copied)
    shutil.rmtree(copied / {"lora": "adapter", "full": "talker"}[kind])
    with pytest.raises(AudioProjectionError, match="is missing: copy the whole folder"):
        Voice.from_config(config, projector=str(copied))


def test_a_fine_tuned_talker_loads_into_the_tts_in_another_dtype(trained: dict[str, Any]) -> None:
    config, _, _ = trained["lora"]
    half = Qwen3TTS.from_pretrained(parity_file("tiny_custom_voice"), torch.bfloat16)
    load_finetuned(half, "lora", config.trained_projector)
    assert half.dtype == torch.bfloat16


def test_the_teacher_is_the_talker_as_it_was_loaded(tmp_path: Path) -> None:
    """With a LoRA that is not zero the student differs, the teacher does not, and gradients reach every LoRA matrix."""
    batch = forced(2)
    tts = own_tts()
    lora = LoraFinetuning(tts, 4, 8.0, seed=0)
    with torch.no_grad():
        for name, value in tts.named_parameters():
            if ".lora_B." in name:
                value.normal_(std=0.3)
    other = TeacherForced(tts, batch.utterances, batch.embeddings, "nonstreaming", lora.untuned)
    student = torch.cat(other.states)
    assert torch.equal(other.teacher.states, batch.teacher.states)
    assert (student - other.teacher.states).abs().max() > 1e-2
    (student - other.teacher.states).square().sum().backward()
    assert all(value.grad is not None for value in tts.parameters() if value.requires_grad)


def test_lora_with_distillation_and_audio_samples(tmp_path: Path) -> None:
    """Audio samples are made with merged matrices, and do not change the training by a bit."""
    results = []
    for every in (None, 1):
        loss = {"talker": 0.0, "predictor": 0.0, "distill": 1.0, "distill_states": 0.1}
        config, models = tuned(tmp_path / str(every), "lora", steps=2, loss=loss, sample_every=every)
        train_projector(config, models, PAIRS[:6], [])
        results.append((snapshot(models.tts), models.projector.state_dict()))
    for one, other in zip(*results, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(list((tmp_path / "1" / "linear" / "samples").glob("step-*.wav"))) == 2


def test_a_stopped_run_resumes_with_its_lora(tmp_path: Path) -> None:
    weights = []
    for name, stops in (("straight", [4]), ("stopped", [2, 4])):
        for step in stops:
            config, models = tuned(tmp_path / name, "lora", steps=4)
            train_until(Trainer(config, models, PAIRS[:6], []), step)
        weights.append({name: value for name, value in models.tts.state_dict().items() if "lora_" in name})
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("kind", ["none", "lora", "full"])
def test_frozen_weights_get_no_optimizer_state(tmp_path: Path, kind: str) -> None:
    config, models = tuned(tmp_path, kind)
    trainer = Trainer(config, models, PAIRS[:6], [])
    held = {id(value) for group in trainer.optimization.optimizer.param_groups for value in group["params"]}
    moving = {id(value) for value in [*models.projector.parameters(), *models.tts.parameters()] if value.requires_grad}
    projector = sum(1 for _ in models.projector.parameters())
    assert held == moving and (len(held) == projector) == (kind == "none")
    train_until(trainer, 3)
    state = json.loads((config.run_dir / "checkpoints" / "step-00000003" / "state.json").read_text())
    saved = load_file(config.run_dir / "checkpoints" / "step-00000003" / "optimizer.safetensors")
    assert sum(len(group["params"]) for group in state["param_groups"]) == len(held)
    assert len({name.split(".")[0] for name in saved}) == len(held)


def test_what_cannot_be_trained_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def last_error(kind: str, tts: Qwen3TTS | None = None, **loss: float) -> str:
        config, models = tuned(tmp_path, kind, tts, loss={"talker": 0.0, "predictor": 0.0} | loss)
        with pytest.raises(AudioProjectionError) as caught:
            Trainer(config, models, PAIRS[:6], [])
        return str(caught.value)

    assert "needs a loss through the talker" in last_error("lora", rows=1.0)
    assert "train.loss.distill=0" in last_error("full", distill=1.0)
    half = Qwen3TTS.from_pretrained(parity_file("tiny_custom_voice"), torch.bfloat16)
    assert "tts.dtype=float32" in last_error("full", half, talker=1.0)
    monkeypatch.setitem(sys.modules, "peft", None)
    assert "pip install 'audio-projection[finetune]'" in last_error("lora", talker=1.0)


def test_projectors_from_before_fine_tuning_are_loaded(tmp_path: Path) -> None:
    config, models = tuned(tmp_path, "none")
    folder = models.projector.save_pretrained(tmp_path / "projector")
    record = json.loads((folder / "projector.json").read_text())
    del record["finetune"]
    (folder / "projector.json").write_text(json.dumps(record))
    assert Projector.from_pretrained(folder).info.finetune == "none"
