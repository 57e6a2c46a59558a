"""The closed-form fit: ridge regression, inverse activations, the fitted projector, the layer probe."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from audio_projection.alignment.token_states import TokenStates, stream_token_states
from audio_projection.config import FitConfig
from audio_projection.errors import AudioProjectionError
from audio_projection.fit.closed_form import FitReport, fit_projector
from audio_projection.fit.closed_form import fit_linear as fit_in_place
from audio_projection.fit.layer_probe import ProbeReport
from audio_projection.fit.layer_probe import probe_layers as probe_given
from audio_projection.fit.refine import TokenPool
from audio_projection.fit.ridge import RidgeFit, Split, pre_image, r_squared
from audio_projection.fit.rows_right import RowsRight, nearest_embedding_accuracy
from audio_projection.projector import ACTIVATIONS, ProjectorInfo, build_projector
from helpers.tiny_llm import make_llm
from helpers.training import load_tts, make_texts

D, H, VOCABULARY = 24, 12, 40


def settings(**changes: object) -> FitConfig:
    return FitConfig(**({"tokens": 4000, "held_out": 30, "ridges": [1e-8, 1e-4]} | changes))


def corpus(texts: int, activation: str = "identity", noise: float = 0.0, blur: float = 0.0) -> list:
    """Random tokens: embeddings that a LinearProjector of `activation` can give, states that identify the token.

    With `blur` a second layer's states have that share of the next token's state in them.
    """
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(VOCABULARY, D, generator=generator)
    weight = torch.randn(H, D, generator=generator) / D**0.5
    gain, bias = 0.3 + torch.rand(H, generator=generator), 0.3 * torch.randn(H, generator=generator)
    embeddings = ACTIVATIONS[activation](F.layer_norm(table @ weight.T, (H,)) * gain + bias)
    pairs = []
    for index in range(texts):
        ids = torch.randint(VOCABULARY, (10,), generator=generator)
        states = torch.stack([table[ids], (1 - blur) * table[ids] + blur * table[ids.roll(-1)]], 1)
        states = states + noise * torch.randn(states.shape, generator=generator)
        pairs.append((f"text {index}", TokenStates(ids.tolist(), states, embeddings[ids])))
    return pairs


def only_first_layer(pairs: list) -> list:
    return [(text, TokenStates(item.ids, item.states[:, :1], item.text_embeddings)) for text, item in pairs]


def linear(activation: str):  # noqa: ANN201
    return build_projector(ProjectorInfo(llm_size=D, tts_size=H, layers=[2], activation=activation))


def fit_linear(projector: Any, pairs: list, limits: FitConfig) -> FitReport:
    return fit_in_place(projector, pairs, Split(len(dict(pairs)), limits), limits.ridges, TokenPool(0))


def probe_layers(pairs: list, layers: list[int], limits: FitConfig) -> ProbeReport:
    return probe_given(pairs, layers, Split(len(dict(pairs)), limits), limits.ridges)


@pytest.mark.parametrize("block", [8192, 70, 1])
def test_streamed_ridge_equals_the_direct_solution(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audio_projection.fit.ridge.STRIP", 7)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, D, generator=generator) * 5 + 3, torch.randn(200, H, generator=generator)
    equations = RidgeFit(D, H, block=block)
    for part in range(0, 200, 30):
        equations.add(x[part : part + 30], y[part : part + 30], torch.arange(part, min(part + 30, 200)))
    weight, bias = equations.solve(0.1)
    xc, yc = (x - x.mean(0)).double(), (y - y.mean(0)).double()
    penalty = torch.diag(0.1 * xc.square().sum(0))  # relative to each channel's own variance
    expected = torch.linalg.solve(xc.T @ xc + penalty, xc.T @ yc).T
    torch.testing.assert_close(weight, expected.float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(bias, (y.mean(0) - expected.float() @ x.mean(0)), rtol=1e-4, atol=1e-5)


def test_ridge_survives_channels_of_wild_scale_and_constant_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, D, generator=generator)
    y = x @ torch.randn(D, H, generator=generator)
    x = x * torch.logspace(-2, 3, D)
    x = torch.cat([x, torch.full((300, 1), 700.0)], 1)
    equations = RidgeFit(D + 1, H)
    equations.add(x, y, torch.arange(300))
    weight, bias = equations.solve(1e-8)
    assert r_squared(x @ weight.T + bias, y) > 0.9999


@pytest.mark.parametrize("block", [8192, 70, 3])
def test_tokens_that_come_again_count_each_time(block: int) -> None:
    """Their states are summed before the product with their common target, also without room for all tokens."""
    generator = torch.Generator().manual_seed(0)
    ids, table = torch.randint(9, (300,), generator=generator), torch.randn(9, H, generator=generator)
    x, y = torch.randn(300, D, generator=generator), table[ids]
    together, apart = RidgeFit(D, H, block=block), RidgeFit(D, H)
    together.add(x, y, ids)
    apart.add(x, y, torch.arange(300))
    for one, other in zip(together.solve(1e-3), apart.solve(1e-3), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_ridge_too_weak_is_skipped() -> None:
    x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)).repeat(1, D)  # one direction only
    equations = RidgeFit(D, 1)
    equations.add(x, x[:, :1], torch.arange(50))
    # -0.5 cannot be solved for: the matrix is not positive definite.
    strength, *_ = equations.best([-0.5, 1e-3], lambda weight, bias: 0.0)
    assert strength == 1e-3
    with pytest.raises(AudioProjectionError, match="too weak for 50 tokens"):
        equations.best([-0.5], lambda weight, bias: 0.0)


def test_nothing_to_fit_is_refused() -> None:
    with pytest.raises(AudioProjectionError, match="nothing to fit on"):
        RidgeFit(D, H).solve(1.0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_pre_image_comes_back_through_the_activation(activation: str) -> None:
    reachable = ACTIVATIONS[activation](torch.linspace(-0.7, 2.5, 50))
    torch.testing.assert_close(
        ACTIVATIONS[activation](pre_image(reachable, activation)), reachable, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("activation", ["gelu", "silu", "relu", "tanh", "softsign"])
def test_pre_image_of_a_value_out_of_range_is_that_of_the_nearest(activation: str) -> None:
    reached = ACTIVATIONS[activation](pre_image(torch.tensor([-5.0]), activation))
    lowest = max(-0.99, float(ACTIVATIONS[activation](torch.linspace(-500, 6, 40000)).min()))
    assert float(reached) == pytest.approx(lowest, abs=1e-2)


@pytest.mark.parametrize("activation", ["identity", "tanh", "softsign", "asinh"])
def test_fit_recovers_embeddings_that_the_projector_can_give(activation: str) -> None:
    projector = linear(activation)
    report = fit_linear(projector, only_first_layer(corpus(400, activation)), settings())
    assert report.r2 > 0.975 and report.nearest_row == 1.0
    assert report.held_out_tokens == 300 and report.activation == activation


def test_fit_reports_held_out_texts() -> None:
    """With states of pure noise, 24 inputs fitted on few tokens would look good on those tokens only."""
    generator = torch.Generator().manual_seed(2)
    pairs = only_first_layer(corpus(60))
    noise = [
        (text, TokenStates(item.ids, torch.randn(item.states.shape, generator=generator), item.text_embeddings))
        for text, item in pairs
    ]
    report = fit_linear(linear("identity"), noise, settings())
    assert report.r2 < 0.05 and report.nearest_row < 0.3


def test_a_repeated_text_is_neither_fitted_nor_held_out_again() -> None:
    pairs = only_first_layer(corpus(100))
    report = fit_linear(linear("identity"), pairs * 3, settings())
    assert report.held_out_tokens == 100  # a tenth of the texts
    assert report.tokens == fit_linear(linear("identity"), pairs, settings()).tokens < 1000


def test_noise_wants_a_stronger_ridge() -> None:
    choices = settings(ridges=[1e-8, 1.0], tokens=120)
    assert fit_linear(linear("identity"), only_first_layer(corpus(400)), choices).ridge == 1e-8
    assert fit_linear(linear("identity"), only_first_layer(corpus(400, noise=3.0)), choices).ridge == 1.0


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(AudioProjectionError, match="too few different texts"):
        fit_linear(linear("identity"), only_first_layer(corpus(2)), settings())


def test_residual_needs_no_fit() -> None:
    projector = build_projector(ProjectorInfo(kind="residual", llm_size=D, tts_size=H))
    before = {name: value.clone() for name, value in projector.state_dict().items()}
    assert fit_projector(settings(), None, None, projector, []) is None  # type: ignore[arg-type]
    assert all(torch.equal(before[name], value) for name, value in projector.state_dict().items())


def test_nearest_embedding_accuracy_counts_tokens() -> None:
    table = torch.eye(4)
    predicted = table[[0, 1, 2, 2]] + 0.1
    assert nearest_embedding_accuracy(predicted, torch.tensor([7, 8, 9, 5]), table, torch.tensor([7, 8, 9, 5])) == 0.75


def test_tokens_that_were_never_met_are_counted_apart() -> None:
    table, ids = torch.eye(4), torch.tensor([7, 8, 9, 5])
    predicted = table[[0, 1, 0, 3, 3]]  # of the tokens 7, 8, 9, 5 and 9 again
    right = RowsRight.measure(predicted, torch.tensor([7, 8, 9, 5, 9]), (table, ids), {7, 8, 9})
    assert (right.share, right.seen, right.unseen, right.unseen_tokens) == (0.6, 0.5, 1.0, 1)
    assert str(right) == "60.0% (met in fitting: 50.0%; never met: 100.0% of 1)"
    all_met = RowsRight.measure(predicted, torch.tensor([7, 8, 9, 5, 9]), (table, ids), {5, 7, 8, 9})
    assert all_met.unseen is None and str(all_met) == "60.0%, every one of them met in fitting"


def test_fit_and_probe_report_unseen_tokens() -> None:
    """Token 39 is in the held-out texts only."""
    pairs = corpus(400)
    kept = [(text, item) for text, item in pairs[60:] if 39 not in item.ids]
    pairs = pairs[:60] + kept
    met = sum(item.ids.count(39) for _, item in pairs[:30])
    assert met > 0
    fitted = fit_linear(linear("identity"), only_first_layer(pairs), settings())
    probed = probe_layers(pairs, [1, 2], settings()).layers[0].right
    assert fitted.right.unseen_tokens == probed.unseen_tokens == met
    assert fitted.right.seen == probed.seen == 1.0
    assert fitted.to_json()["unseen"] == fitted.right.unseen and fitted.to_json()["unseen_tokens"] == met


def test_probe_prefers_the_layer_that_identifies_its_token() -> None:
    report = probe_layers(corpus(400, blur=0.9), [1, 2], settings())
    assert report.chosen == 1
    assert report.layers[0].nearest_row == 1.0 and report.layers[1].nearest_row < 0.6
    assert report.layers[0].r2 > report.layers[1].r2
    assert report.to_json()["layers"]["2"]["nearest_row"] == report.layers[1].nearest_row


def test_probe_takes_the_deeper_of_equal_layers() -> None:
    assert probe_layers(corpus(400, blur=0.0), [1, 2], settings()).chosen == 2


def test_the_table_of_text_embeddings_holds_no_whole_texts() -> None:
    """A view of one token would keep the embeddings of its whole text in memory: 3.6 GB for 0.19 at the real size."""
    texts = make_texts(40)
    split = Split(len(texts), FitConfig(held_out=2))
    for _ in split.stream(stream_token_states(make_llm(layers=2), load_tts(), texts, 8)):
        pass
    storages = [embedding.untyped_storage() for embedding in split.table.values()]
    held = {storage.data_ptr(): storage.nbytes() for storage in storages}
    assert len(held) == len(split.table)
    assert sum(held.values()) == sum(4 * embedding.numel() for embedding in split.table.values())
