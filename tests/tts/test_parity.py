"""Parity with outputs of the official package: on the committed checkpoints, and on the whole parity kit if present."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audio_projection.tts import Qwen3TTS
from helpers import parity_kit

parity = parity_kit.script("parity")
CASES = {"stream", "nonstream", "stream_b2", "nonstream_b2", "stream_norep"}
CLONED = CASES | {"xvec", "xvec_nonstream"}


def failures(compared: list) -> list[str]:
    return [f"{one.name}: {one.error} {one.equal} {one.note}" for one in compared if not one.passed]


@pytest.mark.parametrize(
    ("checkpoint", "reference", "cases"),
    [
        ("tiny_custom_voice", "tiny_custom_voice", CASES),
        ("tiny_voice_design", "tiny_voice_design", CASES),
        ("tiny_base", "tiny_base", CLONED),  # the reference recording is longer than the text
        ("tiny_base", "short", CASES),  # and shorter
        ("odd", "odd", CASES),  # 6 code groups, equal widths, biases, sliding windows, a dialect's speaker
    ],
)
def test_decoding(checkpoint: str, reference: str, cases: set[str]) -> None:
    wanted = parity_kit.reference(reference)
    assert set(parity.cases(wanted)) == cases
    outputs = parity.run(Qwen3TTS.from_pretrained(parity_kit.checkpoint(checkpoint)), wanted)
    compared = parity.compare(outputs, wanted)
    assert not failures(compared)
    names = {one.name.partition("@")[0] for one in compared}
    assert {f"{case}.{kind}" for case in cases for kind in ("tokens", "codes.0", "ids.0", "embeds", "mask")} <= names
    assert {"stream.logits", "stream.scores", "stream.cp_logits", "stream.wav.0"} <= names


@pytest.mark.parametrize("name", ["tiny_custom_voice", "odd"])
def test_training(name: str) -> None:
    wanted = load_file(parity_kit.FIXTURES / f"{name}.train.safetensors")
    tts = Qwen3TTS.from_pretrained(parity_kit.checkpoint(name))
    compared = parity.compare(parity.run_training(tts, wanted), wanted)
    assert not failures(compared)
    assert {one.name for one in compared} == {"l0", "l1", "grad", "cp_logits"}


@pytest.mark.parametrize("kind", ["base", "custom_voice", "voice_design"])
def test_the_whole_kit(shared: Path, kind: str) -> None:
    model = shared / "parity" / f"tiny_{kind}"
    wanted = load_file(f"{model}.ref.safetensors")
    tts = Qwen3TTS.from_pretrained(model)
    assert not failures(parity.compare(parity.run(tts, wanted), wanted))
    train = Path(f"{model}.train.safetensors")
    if train.is_file():
        wanted = load_file(train)
        assert not failures(parity.compare(parity.run_training(tts, wanted), wanted))


def test_the_script_dumps_and_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, train = parity_kit.checkpoint("odd"), parity_kit.FIXTURES / "odd.train.safetensors"
    reference = {
        name: value
        for name, value in parity_kit.reference("odd").items()
        if name.startswith("stream.") and not name.startswith("stream.wav")
    }
    given, dumped = tmp_path / "ref.safetensors", tmp_path / "own.safetensors"
    save_file(reference, given)
    arguments = [str(model), str(given), "--train", str(train), "--dump", str(dumped)]
    assert parity.main(arguments) == 0
    own = load_file(dumped)
    assert {name.partition("@")[0] for name in reference} | set(load_file(train)) <= set(own)
    assert torch.equal(own["stream.codes.0"], reference["stream.codes.0"])

    wrong = {
        "stream.codes.0": reference["stream.codes.0"] + torch.tensor([0, 0, 1, 0, 0, 0]),
        "stream.cp_logits": own["stream.cp_logits"],
        "stream.extra": torch.ones(2),
    }
    save_file(reference | wrong, given)
    assert parity.main([str(model), str(given)]) == 1
    printed = capsys.readouterr().out
    assert "stream.codes.0: differs from the reference from frame 0, codebook 2 on; its best two scores" in printed
    assert "stream.extra: missing" in printed


def test_a_difference_is_no_agreement() -> None:
    wanted = {"a.logits": torch.tensor([0.0, -torch.inf]), "a.codes.0": torch.tensor([1, 2])}
    close = {"a.logits": torch.tensor([5e-5, -torch.inf]), "a.codes.0": torch.tensor([1, 2])}
    assert not failures(parity.compare(close, wanted))
    for far in (torch.tensor([2e-4, -torch.inf]), torch.tensor([0.0, 0.0]), torch.tensor([torch.nan, -torch.inf])):
        assert failures(parity.compare(close | {"a.logits": far}, wanted))
    assert failures(parity.compare(close | {"a.codes.0": torch.tensor([1, 3])}, wanted))
    assert failures(parity.compare(close | {"a.codes.0": torch.tensor([1])}, wanted))
