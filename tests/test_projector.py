"""Projectors: what they compute, how they are saved and loaded, and which models they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from audio_projection.errors import AudioProjectionError
from audio_projection.models import load_projector
from audio_projection.projector import (
    ACTIVATIONS,
    LinearProjector,
    MLPProjector,
    Projector,
    ProjectorInfo,
    ResidualProjector,
    build_projector,
    check_matches,
    residual_rank,
)


def info(**changes: object) -> ProjectorInfo:
    sizes = {"llm_size": 12, "tts_size": 8, "layers": [3]}
    hashes = {"llm_tokenizer_hash": "a" * 64, "tts_tokenizer_hash": "b" * 64}
    return ProjectorInfo(**(sizes | hashes | changes))


def inputs(layers: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, layers, 12, generator=generator), torch.randn(2, 5, 8, generator=generator)


def test_linear_at_real_size_has_the_announced_parameters() -> None:
    with torch.device("meta"):
        projector = build_projector(info(llm_size=4096, tts_size=2048))
    assert projector.parameter_count == 4096 * 2048 + 3 * 2048
    assert abs(projector.parameter_count - 8.39e6) < 0.01 * 8.39e6


def test_residual_at_real_size_is_as_large_as_linear() -> None:
    with torch.device("meta"):
        projector = build_projector(info(kind="residual", llm_size=4096, tts_size=2048))
    assert abs(projector.parameter_count - 8.39e6) < 0.01 * 8.39e6


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_is_activation_of_layernorm_of_an_affine_map(activation: str) -> None:
    projector = build_projector(info(activation=activation))
    torch.nn.init.normal_(projector.norm.weight)
    torch.nn.init.normal_(projector.norm.bias)
    states, embeddings = inputs()
    affine = states[:, :, 0] @ projector.linear.weight.T + projector.linear.bias
    centred = affine - affine.mean(-1, keepdim=True)
    normalised = centred / (affine.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    expected = ACTIVATIONS[activation](normalised * projector.norm.weight + projector.norm.bias)
    torch.testing.assert_close(projector(states, embeddings), expected)
    torch.testing.assert_close(projector(states, torch.zeros_like(embeddings)), expected)  # uses the states only


def test_mlp_is_two_affine_maps_with_layernorm_and_gelu_between() -> None:
    projector = build_projector(info(kind="mlp", hidden=20))
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter)
    assert isinstance(projector, MLPProjector) and projector.output.weight.shape == (8, 20)
    states, embeddings = inputs()
    inner = torch.nn.functional.layer_norm(states[:, :, 0] @ projector.linear.weight.T + projector.linear.bias, (20,))
    inner = inner * projector.norm.weight + projector.norm.bias
    inner = 0.5 * inner * (1 + torch.erf(inner / 2**0.5))
    expected = inner @ projector.output.weight.T + projector.output.bias
    torch.testing.assert_close(projector(states, embeddings), expected)
    assert torch.equal(projector(states, 0 * embeddings), projector(states, embeddings)), "from the states alone"
    assert build_projector(info(kind="mlp")).info.hidden == 8, "as wide as a text embedding"
    with pytest.raises(AudioProjectionError, match="projector hidden must be at least 1, not 0"):
        build_projector(info(kind="mlp", hidden=0))


def test_mlp_at_real_size() -> None:
    with torch.device("meta"):
        projector = build_projector(info(kind="mlp", llm_size=4096, tts_size=2048))
    assert projector.parameter_count == 4096 * 2048 + 2048 * 2048 + 4 * 2048


def test_untrained_residual_is_exactly_the_text_embedding() -> None:
    projector = build_projector(info(kind="residual"))
    states, embeddings = inputs()
    assert torch.equal(projector(states, embeddings), embeddings)


def test_residual_learns_from_its_zero_gate_and_reports_its_share() -> None:
    projector = build_projector(info(kind="residual"))
    assert isinstance(projector, ResidualProjector)
    states, embeddings = inputs()
    projector(states, embeddings).square().sum().backward()
    assert projector.gate.grad is not None and projector.gate.grad.abs().sum() > 0
    assert torch.equal(projector.share_from_states(states, embeddings), torch.zeros(2, 5))
    torch.nn.init.ones_(projector.gate)
    added = projector(states, embeddings) - embeddings
    share = added.norm(dim=-1) / embeddings.norm(dim=-1)
    torch.testing.assert_close(projector.share_from_states(states, embeddings), share)


def test_mix_of_layers_starts_as_their_mean_and_trains() -> None:
    projector = build_projector(info(layers=[1, 2, 3]))
    states, embeddings = inputs(3)
    torch.testing.assert_close(projector.mixed(states), states.mean(-2))
    projector(states, embeddings).square().sum().backward()
    assert projector.mix is not None and projector.mix.grad is not None and projector.mix.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["linear", "residual", "mlp"])
def test_layers_side_by_side_are_projected_together(kind: str) -> None:
    """As a projector of one layer as wide as all of them projects them."""
    projector = build_projector(info(kind=kind, layers=[0, 4], mix="concat"))
    wide = build_projector(info(kind=kind, llm_size=24))
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter)
    wide.load_state_dict(projector.state_dict())
    states, embeddings = inputs(2)
    side_by_side = torch.cat([states[:, :, 0], states[:, :, 1]], -1)
    assert torch.equal(projector.mixed(states), side_by_side) and projector.input_size == 24
    assert torch.equal(projector(states, embeddings), wide(side_by_side[:, :, None], embeddings))


@pytest.mark.parametrize("kind", ["linear", "residual"])
def test_layers_side_by_side_at_real_size(kind: str) -> None:
    """[0, last] of 4096 -> 2048 is 16.8M."""
    with torch.device("meta"):
        projector = build_projector(info(kind=kind, llm_size=4096, tts_size=2048, layers=[0, 32], mix="concat"))
    assert abs(projector.parameter_count - 16.78e6) < 0.01 * 16.78e6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mix": "concat"}, "projector.mix=concat puts several layers side by side, and here is one"),
        ({"mix": "sum", "layers": [1, 2]}, "unknown projector.mix 'sum'; choose one of scalar, concat"),
    ],
)
def test_a_mix_that_does_not_go_with_the_layers_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(AudioProjectionError, match=words):
        build_projector(info(**changes))


def test_a_file_of_before_mixes_as_ever(tmp_path: Path) -> None:
    projector = build_projector(info(layers=[1, 4]))
    projector.save_pretrained(tmp_path)
    record = json.loads((tmp_path / "projector.json").read_text(encoding="utf-8"))
    del record["mix"]
    (tmp_path / "projector.json").write_text(json.dumps(record), encoding="utf-8")
    again = Projector.from_pretrained(tmp_path)
    assert again.info == projector.info and torch.equal(again.mix, projector.mix)  # type: ignore[arg-type]


def test_states_of_another_size_are_refused() -> None:
    with pytest.raises(AudioProjectionError, match="layers it was trained with"):
        build_projector(info())(torch.zeros(1, 2, 12), torch.zeros(1, 8))


@pytest.mark.parametrize("mix", ["scalar", "concat"])
@pytest.mark.parametrize("kind", ["linear", "residual", "mlp"])
@pytest.mark.parametrize("voice", ["ada", torch.arange(4.0), None])
def test_saved_projector_comes_back_whole(tmp_path: Path, kind: str, voice: object, mix: str) -> None:
    projector = build_projector(info(kind=kind, layers=[1, 4], mix=mix))
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter)
    projector.set_voice(voice, "103")
    projector.info.measurements["r2"] = 0.5
    again = Projector.from_pretrained(projector.save_pretrained(tmp_path / "größe mit blank"))
    assert type(again) is type(projector) and again.info == projector.info
    if isinstance(voice, torch.Tensor):
        assert torch.equal(again.voice, voice)
    else:
        assert again.voice == voice
    states, embeddings = inputs(2)
    assert torch.equal(again(states, embeddings), projector(states, embeddings))


def test_folder_holds_two_files_and_only_projector_weights(tmp_path: Path) -> None:
    from safetensors import safe_open

    build_projector(info()).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["projector.json", "projector.safetensors"]
    with safe_open(tmp_path / "projector.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["linear.bias", "linear.weight", "norm.bias", "norm.weight"]


def test_broken_folders_are_refused_with_a_clear_message(tmp_path: Path) -> None:
    with pytest.raises(AudioProjectionError, match="no trained projector in"):
        Projector.from_pretrained(tmp_path)
    build_projector(info()).save_pretrained(tmp_path)
    weights, metadata = tmp_path / "projector.safetensors", tmp_path / "projector.json"
    whole, record = weights.read_bytes(), json.loads(metadata.read_text())
    weights.write_bytes(whole[:-50])
    with pytest.raises(AudioProjectionError, match="not a whole safetensors"):
        Projector.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    for change, words in [
        ({"tts_size": 9}, r"has shape \(8,.*wants \(9,"),
        ({"kind": "residual"}, "missing down.weight"),
        ({"kind": "cubic"}, "unknown projector kind 'cubic'"),
        ({"activation": "sin"}, "unknown projector activation 'sin'"),
        ({"format": "mmproj"}, "not projector metadata"),
        ({"version": 99}, "version 99"),
        ({"colour": "red"}, "colour"),
        ({"layers": "last"}, "layers has the wrong type"),
    ]:
        metadata.write_text(json.dumps(record | change))
        with pytest.raises(AudioProjectionError, match=words):
            Projector.from_pretrained(tmp_path)
    metadata.write_text("{")
    with pytest.raises(AudioProjectionError, match="not valid JSON"):
        Projector.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    projector = build_projector(info())
    with torch.no_grad():
        next(projector.parameters()).view(-1)[3] = value
    with pytest.raises(AudioProjectionError, match="linear.weight has weights that are no finite numbers"):
        load_projector(projector.save_pretrained(tmp_path))


def test_other_models_are_refused_by_name_of_the_mismatch() -> None:
    llm = SimpleNamespace(name="llm", hidden_size=12, tokenizer_hash="a" * 64)
    tts = SimpleNamespace(config=SimpleNamespace(hidden_size=8), tokenizer_hash="b" * 64)
    check_matches(info(), llm, tts)
    for change, words in [
        ({"llm_size": 13}, "LLM hidden size differs"),
        ({"tts_size": 9}, "TTS hidden size differs"),
        ({"llm_tokenizer_hash": "c" * 64}, "LLM tokenizer differs"),
        ({"tts_tokenizer_hash": "c" * 64}, "TTS tokenizer differs"),
        ({"state_convention": "before-token"}, "before-token"),
    ]:
        with pytest.raises(AudioProjectionError, match=words):
            check_matches(info(**change), llm, tts)


def test_kinds_are_the_two_of_the_interface() -> None:
    assert isinstance(build_projector(info()), LinearProjector)
    assert [residual_rank(*sizes) for sizes in ((4096, 2048), (512, 256), (12, 8), (1, 1))] == [1376, 160, 5, 1]
    with pytest.raises(AudioProjectionError, match="rank must be at least 1"):
        build_projector(info(kind="residual", rank=0))


@pytest.mark.parametrize("kind", ["linear", "residual"])
def test_the_metadata_given_stay_as_they_are(kind: str) -> None:
    given = info(kind=kind)
    projector = build_projector(given)
    projector.set_voice("ada")
    projector.info.measurements["r2"] = 0.5
    projector.info.layers.append(4)
    assert given == info(kind=kind)
    assert projector.info.rank == (5 if kind == "residual" else None)
