"""The dry run's estimate: parameters, sizes, data, FLOPs and time, without any weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audio_projection.config import Config, TTSConfig, load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.training.estimates.dry_run import KNOWN_TTS, describe, estimate_run, peaks_of
from audio_projection.training.estimates.flops import StackSizes
from audio_projection.training.estimates.memory import Batch, stack_activations
from audio_projection.tts.config import TransformerConfig
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.transformer import Transformer
from helpers.paths import REPOSITORY
from helpers.training import load_tts, make_config, make_texts, parity_file, save_llm


@pytest.fixture
def default(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """configs/default.yaml on a machine that has nothing of it."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return load_config(repository / "configs" / "default.yaml", [f"data.path={tmp_path / 'none'}"])


@pytest.fixture
def last(default: Config) -> Config:
    """The same with the LLM's last layer."""
    default.llm.layers = "last"
    return default


def test_default_configuration_is_estimated_without_any_file(default: Config) -> None:
    estimate = estimate_run(default)
    assert abs(estimate.parameters - 8.39e6) < 0.01 * 8.39e6
    assert estimate.utterances == 28_539 and estimate.steps is not None
    text = describe(default)
    assert "8,394,752 (8.39M)" in text and "linear.weight (2048, 4096)" in text
    assert "LLM weights 4.54" in text and "not there yet" in text and "x-vector" in text  # up to the deepest candidate
    assert "layer one of 1, 2, 3, 4, 6, 8 by the probe, of 32" in text and "one pass over up to 20,000 text" in text
    default.llm.layers = "last"
    assert "LLM weights 15.01" in describe(default)  # without its output head


@pytest.mark.parametrize("layers", ["probe", "last"])
def test_the_default_trains_in_24_gb(default: Config, layers: str) -> None:
    default.llm.layers = layers  # type: ignore[assignment]
    text = describe(default)
    for size in (24, 48, 80):
        assert f"  fits a GPU of {size} GB" in text
    assert "does not fit" not in text and "less memory" not in text


def test_what_does_not_fit_is_said_with_what_helps(last: Config) -> None:
    last.train.batch, last.train.grad_accumulation = 8, 2
    text = describe(last)
    assert "does not fit a GPU of 24 GB" in text and "  fits a GPU of 48 GB" in text and "llm.quantise=4bit" in text
    ways = (["llm.quantise=4bit"], ["train.activation_checkpointing=true"], ["llm.backend=gguf"], ["llm.layers=probe"])
    for way in ways:
        words = ["llm.layers=last", "train.batch=8", *way]
        config = load_config(REPOSITORY / "configs" / "default.yaml", words)
        assert "  fits a GPU of 24 GB" in describe(config), way


def test_the_sum_is_that_of_the_larger_peak(default: Config) -> None:
    made = estimate_run(default)
    peaks = peaks_of(default, made, Batch(4, 70, 250, 331))
    assert peaks.total == max(sum(peaks.fitting.values()), sum(peaks.training.values()))
    assert f"GPU memory in total, about: {peaks.total / 1e9:.2f} GB" in describe(default)
    assert {"LLM weights", "TTS weights", "activations of the talker"} <= peaks.training.keys()


def test_an_early_layer_needs_fewer_weights_and_cached_states_none(default: Config) -> None:
    batch = Batch(4, 70, 250, 331)

    def weights(*words: str) -> float:
        config = load_config(REPOSITORY / "configs" / "default.yaml", words)
        return peaks_of(config, estimate_run(config), batch).training.get("LLM weights", 0.0)

    table, layer = 128_256 * 4096, 218_112_000
    assert weights() == pytest.approx(2 * (table + 8 * layer), rel=1e-4)  # the deepest candidate of the probe
    assert weights("llm.layers=last") == pytest.approx(2 * (table + 32 * layer), rel=1e-4)
    assert weights("llm.layers=8") == pytest.approx(2 * (table + 8 * layer), rel=1e-4)
    assert weights("llm.layers=[0,2]") == pytest.approx(2 * (table + 2 * layer), rel=1e-4)
    assert weights("llm.backend=gguf") == 0
    assert weights("train.states_memory=40") == 0  # all states of 100 h are kept in memory
    assert weights("train.states_memory=40", "train.sample_every=100") > 0


def test_the_memory_of_the_probe_does_not_grow_with_the_depth_of_the_llm(default: Config) -> None:
    def probe(layers: list[int], depth: int = 32) -> float:
        default.fit.probe_layers = layers
        made = estimate_run(default)
        made = replace(made, llm=replace(made.llm, layers=depth))
        return peaks_of(default, made, Batch(4, 70, 250, 331)).fitting["probe of the layers"]

    assert probe([1, 2, 3, 4, 6, 8]) == probe([1, 2, 3, 4, 6, 8], depth=126) < 4.1e9
    assert probe([1, 2]) < 1.7e9


def test_layers_side_by_side_are_counted(last: Config) -> None:
    last.llm.layers, last.projector.mix = [0, "last"], "concat"
    text = describe(last)
    assert "trained parameters: 16,783,360 (16.78M)" in text and "linear.weight (2048, 8192)" in text
    assert "LLM states (4, 70, 2, 4096), side by side (4, 70, 8192) -> projected embeddings (4, 70, 2048)" in text
    fitting = peaks_of(last, estimate_run(last), Batch(4, 70, 250, 331)).fitting["normal equations"]
    last.projector.mix = "scalar"
    alone = peaks_of(last, estimate_run(last), Batch(4, 70, 250, 331)).fitting["normal equations"]
    equations = 24 * 4096 * ((2 * 4096 + 2048) * 2 - (4096 + 2048))
    assert fitting - alone == equations + 4 * 16384 * 3 * 4096  # and blocks of 16,384 tokens, three times as wide
    last.llm.layers, last.projector.mix = "probe", "concat"
    with pytest.raises(AudioProjectionError, match="projector.mix=concat puts several layers side by side"):
        estimate_run(last)


@pytest.mark.skipif(
    not hasattr(torch.ops.aten, "_fused_rms_norm"), reason="this torch has no fused RMSNorm: its layers keep more"
)
@pytest.mark.parametrize(("bf16", "autocast"), [(False, False), (True, True), (True, False)])
def test_what_a_layer_keeps_is_what_autograd_saves(bf16: bool, autocast: bool) -> None:
    """Counted from the tensors that autograd saves for the backward pass of a frozen layer."""
    config = TransformerConfig(64, 160, 3, 4, 2, 32)
    stack = StackSizes(64, 3, 160, 4 * 32, 2 * 32)
    kept = saved_by(config, bf16, autocast, layers=3) - saved_by(config, bf16, autocast, layers=1)
    assert kept / (2 * 2 * 40) == pytest.approx(stack_activations(stack, bf16), rel=0.1)


def saved_by(config: TransformerConfig, bf16: bool, autocast: bool, layers: int) -> int:
    torch.manual_seed(0)
    stack = Transformer(replace(config, num_layers=layers, windows=(None,) * layers)).requires_grad_(False)
    stack = stack.to(torch.bfloat16) if bf16 else stack
    weights = {weight.untyped_storage().data_ptr() for weight in stack.parameters()}
    inputs = torch.randn(2, 40, 64, dtype=torch.bfloat16 if bf16 else torch.float32, requires_grad=True)
    seen: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        alive.append(tensor)
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        output = stack(inputs)
    assert output.requires_grad
    return sum(seen.values())


def test_flops_and_time_are_printed(default: Config) -> None:
    text = describe(default)
    assert "FLOPs, about:" in text and "H100 or H200" in text and " min" in text
    assert "113,136 utterances" in text and "assumed to be half" not in text
    default.data.source, default.data.limit, default.train.steps = "manifest", None, 100
    assert "assumed to be half of" in describe(default)
    default.train.steps = None
    assert "FLOPs and time: not known before the data are there" in describe(default)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_what_is_tuned_in_the_talker_is_counted(tmp_path: Path, kind: str) -> None:
    from audio_projection.tts.finetune import finetuning

    config = make_config(tmp_path)
    config.tts.name, config.llm.name = str(parity_file("tiny_custom_voice")), str(save_llm(tmp_path / "llm"))
    config.tts.finetune, config.tts.lora_rank = kind, 4  # type: ignore[assignment]
    counted, tts = estimate_run(config).tts.finetuned(config.tts), Qwen3TTS.from_pretrained(config.tts.name)
    finetuning(config, tts)
    assert counted == sum(weight.numel() for weight in tts.parameters() if weight.requires_grad)
    assert f"tts.finetune={kind}: {counted:,}" in describe(config)


def test_residual_of_the_default_is_as_large(default: Config) -> None:
    default.projector.kind = "residual"
    assert abs(estimate_run(default).parameters - 8.39e6) < 0.01 * 8.39e6


def test_the_refinement_is_told(default: Config) -> None:
    assert "refinement of the fit" not in describe(default)
    default.fit.refine = "softmax"
    line = "refinement of the fit: 1,000 steps of softmax over text embeddings, on 100,000 of its tokens (0.82 GB of"
    assert line in describe(default)
    default.fit.refine, default.projector.kind = "none", "mlp"
    text = describe(default)
    assert line in text and "trained parameters: 12,591,104 (12.59M), projector mlp" in text
    default.projector.kind = "residual"
    assert "refinement of the fit" not in describe(default)


def test_a_model_without_known_sizes_is_asked_for(default: Config) -> None:
    default.llm.name = "someone/unknown"
    with pytest.raises(AudioProjectionError, match="sizes of someone/unknown are not known"):
        estimate_run(default)


def test_folders_are_read_by_their_configuration_only(tmp_path: Path) -> None:
    llm, tts = save_llm(tmp_path / "llm"), tmp_path / "tts"
    for weights in llm.glob("*.safetensors"):
        weights.unlink()
    (tts / "speech_tokenizer").mkdir(parents=True)
    for name in ("config.json", "speech_tokenizer/config.json"):
        (tts / name).write_bytes((parity_file("tiny_custom_voice") / name).read_bytes())
    (tmp_path / "texts.txt").write_text("\n".join(make_texts(50)))
    config = make_config(tmp_path / "run", steps=None, epochs=3.0, batch=5)
    config.llm.name, config.tts.name, config.data.texts = str(llm), str(tts), tmp_path / "texts.txt"
    config.llm.layers, config.data.held_out = [1, -1], 10
    estimate = estimate_run(config)
    assert estimate.layers == "1, 4" and estimate.parameters == 32 * 64 + 3 * 64 + 2
    assert estimate.utterances == 50 and estimate.steps == 3 * 40 // 5
    real = load_tts()
    parts = (real.codec.encoder, real.codec.decoder)
    codec = sum(parameter.numel() for part in parts for parameter in part.parameters())
    assert estimate.tts.codec_parameters == codec
    assert estimate.tts.parameters == sum(parameter.numel() for parameter in real.parameters()) - codec
    assert describe(config).startswith("trained parameters: 2,242")


def test_known_sizes_are_those_of_the_published_configurations(shared: Path, tmp_path: Path) -> None:
    from audio_projection.training.estimates.dry_run import _tts_sizes

    settings = TTSConfig(name=str(tmp_path))
    for name, known in (("1.7B-CustomVoice.derived", "1.7B-CustomVoice"), ("0.6B-CustomVoice", "0.6B-CustomVoice")):
        (tmp_path / "config.json").write_text((shared / "data" / "configs" / f"config.{name}.json").read_text())
        sizes, table = _tts_sizes(settings, None), KNOWN_TTS[f"Qwen/Qwen3-TTS-12Hz-{known}"]
        rounded = replace(sizes, parameters=table.parameters, codec_parameters=table.codec_parameters)
        assert rounded == table
        assert abs(sizes.parameters - table.parameters) < 0.01 * table.parameters
