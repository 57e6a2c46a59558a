"""Each loss against its definition written out, one utterance and one position at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from audio_projection.alignment.token_states import TokenStates
from audio_projection.config import TrainConfig
from audio_projection.errors import AudioProjectionError
from audio_projection.training.examples import Examples
from audio_projection.training.losses import LOSSES, SubsetSampler, chosen_count, count_targets
from audio_projection.training.objective import Objective
from audio_projection.training.teacher_forcing import TeacherForced, Utterance
from audio_projection.tts.prompt import training_sequence
from helpers.training import forced, load_tts, make_config, make_models, make_pairs, parity_file

PREDICTED = ("talker", "accuracy", "predictor")


def sampler(seed: int = 0, **settings: Any) -> SubsetSampler:
    return SubsetSampler(torch.Generator().manual_seed(seed), TrainConfig.model_validate(settings))


def value(name: str, batch: TeacherForced, seed: int = 0, **settings: Any) -> float:
    return LOSSES[name](batch, sampler(seed, **settings)).item()


def alone(batch: TeacherForced, index: int, embeddings: Tensor, layout: str = "nonstreaming") -> Tensor:
    """States (T + 1, H) of one utterance by itself."""
    utterance = batch.utterances[index]
    sequence = training_sequence(batch.tts, utterance.prefix, embeddings, utterance.codes, layout)
    return batch.tts.talker(sequence.embeds[None])[0, sequence.first :]


def test_losses_and_gradient_equal_the_official_ones() -> None:
    reference, tts = load_file(parity_file("tiny_custom_voice.train.safetensors")), load_tts()
    features, codes = reference["feats"].requires_grad_(), reference["codes"]
    prefix = reference["pre"].shape[1]
    embeds = torch.cat((reference["pre"], tts.frame_embedding(codes) + features), 1)
    empty = TokenStates([], torch.empty(0), torch.empty(0))
    batch = TeacherForced(tts, [Utterance(empty, frames, torch.empty(0)) for frames in codes], [], "streaming")
    batch.states = list(tts.talker(embeds)[:, prefix - 1 :])  # the state before a frame predicts it
    batch.targets = F.pad(codes[..., 0], (0, 1), value=-100).flatten()  # the reference has no end: left out
    frames = codes.shape[0] * codes.shape[1]
    first = LOSSES["talker"](batch, sampler()) / frames
    rest = LOSSES["predictor"](batch, sampler(predictor_share=1.0)) / (frames * (codes.shape[2] - 1))
    (first + rest).backward()
    assert abs(first.item() - reference["l0"].item()) < 1e-5
    assert abs(rest.item() - reference["l1"].item()) < 1e-5
    assert (features.grad - reference["grad"]).abs().max() < 1e-6


@pytest.mark.parametrize("layout", ["streaming", "nonstreaming"])
def test_batched_sums_equal_one_utterance_at_a_time_by_definition(layout: str) -> None:
    """Without the padding and gathering of the batch."""
    batch = forced(4, layout)
    tts = batch.tts
    sums = {name: value(name, batch, predictor_share=1.0) for name in PREDICTED}
    talker, predictor, hits = 0.0, 0.0, 0
    for index, frames in enumerate(batch.codes):
        hidden = alone(batch, index, batch.embeddings[index], layout)
        for place, label in enumerate([*frames[:, 0].tolist(), tts.config.talker.codec_eos]):
            scores = tts.talker.codec_head(hidden[place])
            talker += float(torch.logsumexp(scores, 0) - scores[label])
            hits += int(scores.argmax() == label)
        for place, frame in enumerate(frames):
            logits = tts.code_predictor(hidden[place][None], frame[None])[0]
            predictor += float(F.cross_entropy(logits, frame[1:], reduction="sum"))
    assert sums == pytest.approx({"talker": talker, "predictor": predictor, "accuracy": hits}, rel=1e-5)
    counts = count_targets(PREDICTED, [len(codes) for codes in batch.codes], [], 16, TrainConfig(predictor_share=1.0))
    assert counts["talker"] == counts["accuracy"] == sum(len(codes) + 1 for codes in batch.codes)
    assert counts["predictor"] == sum(len(codes) * 15 for codes in batch.codes)


def test_distillation_equals_its_definition_and_is_nothing_for_the_plain_text() -> None:
    batch = forced(3, noise=1.0)
    divergence, error = 0.0, 0.0
    for index in range(3):
        student = alone(batch, index, batch.embeddings[index]).double()
        teacher = alone(batch, index, batch.utterances[index].features.text_embeddings).double()
        head = batch.tts.talker.codec_head.weight.double()
        for ours, theirs in zip(student, teacher, strict=True):
            p, q = (head @ theirs).softmax(0), (head @ ours).softmax(0)
            divergence += float((p * (p / q).log()).sum())
            error += float((ours - theirs).square().sum() / theirs.square().sum())
    assert value("distill", batch) == pytest.approx(divergence, rel=1e-3)
    assert value("distill_states", batch) == pytest.approx(error, rel=1e-4)
    plain = forced(3)
    assert abs(value("distill", plain)) < 1e-5 < 1e-3 * divergence
    assert value("distill_states", plain) < 1e-6 * error


def test_rows_loss_is_the_relative_squared_error_of_each_token() -> None:
    batch = forced(3, noise=0.5)
    wanted = 0.0
    for utterance, embeddings in zip(batch.utterances, batch.embeddings, strict=True):
        for given, own in zip(embeddings.tolist(), utterance.features.text_embeddings.tolist(), strict=True):
            wanted += sum((a - b) ** 2 for a, b in zip(given, own, strict=True)) / sum(b * b for b in own)
    assert value("rows", batch) == pytest.approx(wanted, rel=1e-4)
    tokens = [len(utterance.features.ids) for utterance in batch.utterances]
    assert count_targets(["rows"], [1], tokens, 16, TrainConfig()) == {"rows": sum(tokens)}


def test_a_share_of_frames_is_sampled_by_seed_and_counted() -> None:
    batch = forced(3)
    sums = [value("predictor", batch, seed, predictor_share=0.25) for seed in (1, 1, 2)]
    assert sums[0] == sums[1] != sums[2]
    frames = [len(codes) for codes in batch.codes]
    counted = count_targets(["predictor"], frames, [], 16, TrainConfig(predictor_share=0.25))
    assert counted == {"predictor": 15 * round(0.25 * sum(frames))}


def test_at_least_one_and_at_most_all() -> None:
    assert chosen_count(3, 0.01) == 1 and chosen_count(10, 1.0) == 10 and chosen_count(0, 0.5) == 0


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "accuracy"])
def test_every_loss_reaches_the_embeddings_and_no_frozen_weight(name: str) -> None:
    batch = forced(2, noise=1.0)
    LOSSES[name](batch, sampler(perceptual_share=1.0)).backward()
    reached = [each.grad is not None and bool(each.grad.isfinite().all()) for each in batch.embeddings]
    assert all(reached) and all(each.grad.abs().sum() > 0 for each in batch.embeddings)  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in batch.tts.parameters())


def test_a_loss_without_weight_costs_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedding loss alone runs no talker, predictor or codec; the talker's loss no teacher and no predictor."""

    def never(*_: Any) -> None:
        raise AssertionError("computed for nothing")

    def computed(weights: dict[str, float]) -> dict[str, Tensor]:
        config = make_config(tmp_path, loss=dict.fromkeys(("talker", "predictor"), 0.0) | weights)
        models = make_models(config)
        objective = Objective(config.train, config.tts.layout, models.projector, models.tts)
        examples = Examples(models, make_pairs(3), config.train, config.tts)
        return objective(examples, [0, 1, 2], objective.projected, objective.names, 0)

    tts = load_tts()
    for module in (tts.code_predictor, tts.codec.decoder):
        monkeypatch.setattr(module, "forward", never)
    monkeypatch.setattr(TeacherForced, "teacher", property(never))
    assert computed({"talker": 1.0}).keys() == {"talker", "accuracy"}
    monkeypatch.setattr(tts.talker, "forward", never)
    assert computed({"rows": 1.0}).keys() == {"rows"}
    with pytest.raises(AudioProjectionError, match=r"all weights of train\.loss are 0"):
        computed({})


def test_weights_and_targets_make_the_loss(tmp_path: Any) -> None:
    weights = {"talker": 2.0, "predictor": 0.0, "rows": 0.5}
    models = make_models(config := make_config(tmp_path, loss=weights))
    objective = Objective(config.train, config.tts.layout, models.projector, models.tts)
    sums = {"talker": torch.tensor(30.0), "accuracy": torch.tensor(7.0), "rows": torch.tensor(8.0)}
    assert float(objective.weighted(sums, {"talker": 10, "accuracy": 10, "rows": 4})) == pytest.approx(2 * 3 + 0.5 * 2)
