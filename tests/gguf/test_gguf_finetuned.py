"""A talker that was fine-tuned with a projector, exported with it: its logits, and that the two stay together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("gguf", reason="the gguf package is not installed (audio-projection[gguf])")
pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")
pytest.importorskip("peft", reason="peft is not installed (audio-projection[finetune])")

from audio_projection.config import Config, load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.export import Export
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.gguf.decoder_stack import load_gguf_tts
from audio_projection.gguf.reader import read_gguf
from audio_projection.gguf.talker_file import FINETUNED
from audio_projection.inference import Voice
from audio_projection.tts import Qwen3TTS
from audio_projection.tts.finetune import FullFinetuning, LoraFinetuning, load_finetuned
from audio_projection.tts.prompt import text_prompt
from helpers.nano import SPEAKER

KINDS = ("lora", "full")
TEXT = "the river was wide and the king stood on the other side"


def tuned_projector(folder: Path, kind: str) -> Path:
    """nano's projector beside a talker whose layers were moved at random, saved as training saves it."""
    shutil.copytree(NANO_FOLDER / "projectors" / "linear", folder)
    record = json.loads((folder / "projector.json").read_text(encoding="utf-8"))
    (folder / "projector.json").write_text(json.dumps(record | {"finetune": kind}), encoding="utf-8")
    tts = Qwen3TTS.from_pretrained(NANO_FOLDER / "tts")
    finetuning = LoraFinetuning(tts, 4, 8.0, seed=0) if kind == "lora" else FullFinetuning(tts)
    moved = {name: value for name, value in tts.talker.named_parameters() if value.requires_grad}
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in moved.values():
            value.add_(torch.randn(value.shape, generator=generator), alpha=0.02)
    finetuning.save(folder, moved)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def tuned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the projector's folder, its export as F32)."""
    place = tmp_path_factory.mktemp(request.param)
    projector = tuned_projector(place / "projector", request.param)
    assert list(Export(load_config("nano"), str(projector), "F32", "F32").everything(place / "out"))
    return projector, place / "out"


def logits(tts: Qwen3TTS, codes: Tensor) -> Tensor:
    """Logits (T, vocabulary) of codebook 0, teacher-forced with frames of codes (T, G), through the decoding loop."""
    embeddings = tts.text_embeddings(torch.tensor(tts.tokenize(TEXT)[0]))
    prompt = text_prompt(tts, tts.prefix(SPEAKER, "english"), embeddings, "nonstreaming")
    talker, last, found = tts.talker.transformer.begin(1, 64, prompt.embeds), prompt.last, []
    talker.prefill(0, [prompt.embeds])
    for frame in codes:
        talker.prepare(1)
        hidden = talker.step(last[None])
        talker.advance(1)
        found.append(tts.talker.logits(hidden)[0])
        last = tts.frame_embedding(frame[None])[0]
    return torch.stack(found)


def gguf_tts(folder: Path) -> Qwen3TTS:
    return load_gguf_tts(folder / "tts", folder / "talker.gguf", folder / "predictor.gguf")


@torch.inference_mode()
def test_the_exported_logits_are_those_of_the_merged_talker(tuned: tuple[Path, Path]) -> None:
    projector, out = tuned
    own, merged = (Qwen3TTS.from_pretrained(NANO_FOLDER / "tts") for _ in range(2))
    load_finetuned(merged, json.loads((projector / "projector.json").read_text())["finetune"], projector)
    codes = torch.randint(0, 64, (40, own.config.code_groups), generator=torch.Generator().manual_seed(0))
    untuned, expected, found = (logits(tts, codes) for tts in (own, merged, gguf_tts(out)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    assert (untuned - expected).abs().max() > 100 * (found - expected).abs().max()


def test_the_exported_voice_says_what_the_tuned_one_says(tuned: tuple[Path, Path]) -> None:
    projector, out = tuned
    tuned_voice = Voice.from_config("nano", projector=str(projector))
    exported = Voice.from_config(out / "config.yaml")
    one, other = (voice.speak("Good morning.", seed=1) for voice in (tuned_voice, exported))
    assert len(one.samples) == len(other.samples)
    torch.testing.assert_close(torch.from_numpy(one.samples), torch.from_numpy(other.samples), rtol=0, atol=2e-3)


def test_projector_and_talker_stay_together(tuned: tuple[Path, Path], tmp_path: Path) -> None:
    projector, out = tuned
    assert len(read_gguf(out / "talker.gguf").metadata[FINETUNED]) == 16
    with pytest.raises(AudioProjectionError, match=r"talker.gguf holds a talker .* wrote together"):
        Voice.from_config(out / "config.yaml", projector="shipped/linear")
    with pytest.raises(AudioProjectionError, match=r"a talker that talker.gguf does not hold"):
        Voice.from_config(out / "config.yaml", projector=str(projector))
    with pytest.raises(AudioProjectionError, match=r"which was exported with it: use tts.backend=gguf, or the folder"):
        Voice.from_config("nano", projector=str(out / "projector.gguf"))
    plain = tmp_path / "plain"
    list(Export(Config(), "shipped/linear", "F32", "F32").everything(plain))
    assert FINETUNED not in read_gguf(plain / "talker.gguf").metadata
    with pytest.raises(AudioProjectionError, match=r"a talker that talker.gguf does not hold"):
        Voice.from_config(plain / "config.yaml", projector=str(out / "projector.gguf"))


def test_quantised_files_know_their_talker_too(tuned: tuple[Path, Path], tmp_path: Path) -> None:
    list(Export(load_config("nano"), str(tuned[0]), "Q4_K_M", "Q8_0").everything(tmp_path))
    assert len(Voice.from_config(tmp_path / "config.yaml").speak("Good morning.").samples) > 2_000
