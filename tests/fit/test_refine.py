"""The refinement of a fit by a softmax over text embeddings: what it gains, what it keeps, that it repeats."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audio_projection.alignment.token_states import TokenStates
from audio_projection.config import Config, FitConfig
from audio_projection.fit import refine as refining
from audio_projection.fit.closed_form import FitReport, fit_linear, fit_mlp, run_fit
from audio_projection.fit.refine import Rows, TokenPool, refine, refine_fitted, refine_memory
from audio_projection.fit.ridge import Split
from audio_projection.projector import LinearProjector, MLPProjector, Projector, ProjectorInfo, build_projector
from helpers.training import pairs_config, save_llm

D, H, VOCABULARY = 24, 48, 300
SETTINGS = FitConfig(tokens=4000, held_out=40, ridges=[1e-4])


@pytest.fixture(scope="module")
def codes() -> Tensor:
    return torch.randn(VOCABULARY, D, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def table(codes: Tensor) -> Tensor:
    """Text embeddings that are half linear in the states, half their own."""
    generator = torch.Generator().manual_seed(2)
    shared = codes @ torch.randn(D, H, generator=generator) / D**0.5
    return 0.2 * (shared + torch.randn(VOCABULARY, H, generator=generator)) + 0.1


@pytest.fixture(scope="module")
def pairs(codes: Tensor, table: Tensor) -> list[tuple[str, TokenStates]]:
    """Texts of tokens as unequally frequent as words are, a vocabulary twelve times the width of a state."""
    generator = torch.Generator().manual_seed(3)
    frequencies = 1 / (5 + torch.arange(VOCABULARY))
    texts = []
    for index in range(800):
        ids = torch.multinomial(frequencies, 10, replacement=True, generator=generator)
        states = codes[ids] + 0.1 * torch.randn(10, D, generator=generator)
        texts.append((f"text {index}", TokenStates(ids.tolist(), states[:, None], table[ids])))
    return texts


def fitted(pairs: list[tuple[str, TokenStates]]) -> tuple[LinearProjector, Split, TokenPool, FitReport]:
    torch.manual_seed(0)
    projector = build_projector(ProjectorInfo(llm_size=D, tts_size=H, layers=[1]))
    assert isinstance(projector, LinearProjector)
    split, pool = Split(len(pairs), SETTINGS), TokenPool(3000)
    return projector, split, pool, fit_linear(projector, pairs, split, SETTINGS.ridges, pool)


def refined(pairs: list[tuple[str, TokenStates]], table: Tensor, steps: int = 300) -> tuple:
    projector, split, pool, report = fitted(pairs)
    return projector, report, refine_fitted(projector, pool, split, lambda ids: table[ids], VOCABULARY, steps)


def test_more_text_embeddings_are_right_than_by_ridge_alone(pairs: list, table: Tensor) -> None:
    projector, ridge, report = refined(pairs, table)
    assert report.kept and report.right.share > ridge.nearest_row + 0.03, (ridge.nearest_row, report.right.share)
    sizes = torch.stack([item.text_embeddings for _, item in pairs[:40]]).flatten(0, 1).norm(dim=1)
    with torch.no_grad():
        made = torch.cat([projector(item.states, item.text_embeddings) for _, item in pairs[:40]]).norm(dim=1)
    assert 0.7 < float(made.mean() / sizes.mean()) < 1.2, "the embeddings keep their sizes"


def test_it_gives_the_same_again(pairs: list, table: Tensor) -> None:
    one, other = (refined(pairs, table, steps=20)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_worse_is_not_kept(pairs: list, table: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    projector, split, pool, _ = fitted(pairs)
    before = copy.deepcopy(projector.state_dict())
    monkeypatch.setattr(refining, "RATE", 30.0)
    report = refine_fitted(projector, pool, split, lambda ids: table[ids], VOCABULARY, 10)
    assert not report.kept and "the ridge regression is kept" in str(report) and not report.to_json()["kept"]
    assert all(torch.equal(before[name], value) for name, value in projector.state_dict().items())


def test_the_loss_is_the_cross_entropy_of_cosines_and_the_squared_error(table: Tensor) -> None:
    """Written out for four tokens, two of them the same, that compete with each other and with two rivals."""
    projector = build_projector(ProjectorInfo(llm_size=D, tts_size=H, layers=[1]))
    states, ids = torch.randn(4, 1, D, generator=torch.Generator().manual_seed(0)), torch.tensor([7, 3, 7, 50])
    mean, deviation = table.mean(0), table.std(0)
    rows = Rows(lambda chosen: table[chosen], VOCABULARY, mean, deviation)
    rivals = torch.tensor([3, 20, 60])  # 3 is a token of the batch: it does not compete twice
    loss = refining._loss(projector, rows, states, ids, (rivals, table[rivals]))
    predicted = (projector(states, table[ids]) - mean) / deviation
    candidates = (table[torch.tensor([3, 7, 50, 20, 60])] - mean) / deviation
    cosines = torch.cosine_similarity(predicted[:, None], candidates[None], dim=-1)
    right = torch.tensor([1, 0, 1, 2])
    expected = torch.nn.functional.cross_entropy(refining.SCALE * cosines, right)
    squared = (predicted - candidates[right]).square().mean()
    torch.testing.assert_close(loss, expected + refining.SQUARED * squared)


def test_the_pool_holds_so_many_tokens_and_walks_through_all_of_them() -> None:
    pool = TokenPool(5)
    pool.add(torch.arange(6.0).reshape(3, 1, 2), [10, 11, 12])
    pool.add(torch.arange(6.0, 12).reshape(3, 1, 2), [13, 14, 15])
    pool.add(torch.zeros(1, 1, 2), [16])
    assert pool.ids == [10, 11, 12, 13, 14]
    (states, ids) = next(iter(pool.batches(1, torch.Generator().manual_seed(0))))
    assert sorted(ids.tolist()[:5]) == pool.ids and states.dtype == torch.float32
    assert all(state[0, 0] == 2 * (token - 10) for state, token in zip(states, ids.tolist(), strict=True))


def test_its_memory_is_that_of_weights_and_rivals() -> None:
    sums = 16 * 8_394_752 + 16 * 4608 * 2048 + 12 * 512 * 4608 + 4 * 512 * (2 * 4096 + 6 * 2048)
    assert refine_memory(8_394_752, 4096, 2048) == sums < 0.4e9


def test_no_gradients_are_left() -> None:
    (table, pool) = torch.randn(50, 4), TokenPool(10)
    pool.add(torch.randn(10, 1, 4), list(range(10)))
    projector = build_projector(ProjectorInfo(llm_size=4, tts_size=4, layers=[1]))
    refine(projector, pool, Rows(lambda ids: table[ids], 50, torch.zeros(4), torch.ones(4)), steps=2)
    assert all(weight.grad is None for weight in projector.parameters())


def test_mlp_begins_at_a_ridge_regression_and_is_refined(pairs: list, table: Tensor) -> None:
    """Its inner layer has 96 channels: from the states' 24 a linear map could not make more of them."""
    torch.manual_seed(0)
    projector = build_projector(ProjectorInfo(kind="mlp", llm_size=D, tts_size=H, layers=[1], hidden=96))
    assert isinstance(projector, MLPProjector)
    inner = projector.linear.weight.clone()
    split, pool = Split(len(pairs), SETTINGS), TokenPool(3000)
    begun = fit_mlp(projector, pairs, split, SETTINGS.ridges, pool)
    assert torch.equal(projector.linear.weight, inner) and begun.r2 > 0.5
    report = refine_fitted(projector, pool, split, lambda ids: table[ids], VOCABULARY, 300)
    assert report.kept and not torch.equal(projector.linear.weight, inner)
    assert report.right.share > begun.nearest_row and report.right.share > fitted(pairs)[3].nearest_row + 0.03


@pytest.mark.parametrize(("kind", "refine"), [("linear", "softmax"), ("mlp", "none")])
def test_a_configuration_asks_for_it(tmp_path: Path, kind: str, refine: str) -> None:
    """The kind mlp needs not be asked."""
    values = pairs_config(tmp_path, save_llm(tmp_path / "llm")) | {"projector": {"kind": kind}}
    values["fit"] |= {"refine": refine, "refine_steps": 60}
    projector = Projector.from_pretrained(run_fit(Config.model_validate(values)))
    report = projector.info.measurements["fit"]
    assert report["refined"]["steps"] == 60 and report["refined"]["kept"]
    assert report["refined"]["nearest_row"] > report["nearest_row"]
