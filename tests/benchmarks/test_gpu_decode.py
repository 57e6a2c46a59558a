"""benchmarks/gpu_decode.py runs on a CPU at small shapes, and says what it left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers import parity_kit

gpu_decode = parity_kit.script("gpu_decode")


def test_small_shapes_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results.json"
    arguments = ["--device", "cpu", "--tiny", "--slots", "1", "3", "--frames", "6", "--runs", "1"]
    assert gpu_decode.main([*arguments, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "tiny shape" in printed and "skipped: CUDA graphs need a CUDA device" in printed
    modes = json.loads(output.read_text())["modes"]
    assert [mode["slots"] for mode in modes] == [1, 3] and not any(mode["graphs"] for mode in modes)
    for mode in modes:
        assert mode["real-time factor, codes"] > 0 and mode["real-time factor, sound"] > 0
        assert mode["first sound alone, ms"] > 0 and mode["first sound joining, ms"] > 0
        assert mode["kernels a frame"] == mode["launches a frame"] == 0


def test_the_shapes_are_the_true_ones() -> None:
    with torch.device("meta"):
        tts = gpu_decode.Qwen3TTS(
            gpu_decode.Qwen3TTSConfig.from_dict(
                {
                    "model_type": "qwen3_tts",
                    "tts_model_type": "voice_design",
                    "talker_config": gpu_decode.TRUE["talker"]
                    | gpu_decode.TRUE["text"]
                    | gpu_decode.CODES
                    | {"code_predictor_config": gpu_decode.TRUE["predictor"]},
                }
            )
        )
    sizes = {
        "talker": sum(weight.numel() for weight in tts.talker.transformer.parameters()),
        "predictor": sum(weight.numel() for weight in tts.code_predictor.parameters()),
        "text": tts.talker.text_embedding.weight.numel(),
    }
    assert {name: round(size / 1e6) for name, size in sizes.items()} == {"talker": 1409, "predictor": 175, "text": 311}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(SystemExit, match="no CUDA device is here"):
        gpu_decode.main(["--tiny"])
