"""Stage 7: the trained parts put together as an official Qwen3-TTS folder.

    python recipes/nano/folder.py work/ tts/

Writes config.json, generation_config.json, model.safetensors and speech_tokenizer/ beside the
tokenizer's files, float16, from the newest checkpoints of the other stages.
"""

import argparse
import json
from pathlib import Path

import decoder
import encoder
import talker
import torch
from checkpoint import load
from codebooks import FRAME, SAMPLE_RATE
from safetensors.torch import load_file, save_file
from tokenizer import ENTRIES, SPECIAL
from torch import Tensor, nn
from transformers import PretrainedConfig

from audio_projection.tts.codec_config import CodecConfig


def stack_config(config: PretrainedConfig) -> dict[str, object]:
    """The sizes of one Qwen3 stack under the official names."""
    names = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "attention_bias",
    )  # fmt: skip
    return {name: getattr(config, name) for name in names} | {
        "rope_theta": config.rope_parameters["rope_theta"],
        "use_sliding_window": False,
        "sliding_window": None,
        "use_cache": True,
        "num_code_groups": talker.GROUPS,
    }


def model_config(model: talker.Talker) -> dict[str, object]:
    """The official config.json."""
    hidden = model.model.config.hidden_size
    third = model.model.config.head_dim // 6
    predictor = stack_config(model.code_predictor.model.config) | {
        "model_type": "qwen3_tts_talker_code_predictor", "vocab_size": talker.ENTRIES, "rope_scaling": None,
    }  # fmt: skip
    talker_config = stack_config(model.model.config) | {
        "model_type": "qwen3_tts_talker", "vocab_size": talker.ENTRIES + 1024,
        "rope_scaling": {"interleaved": True, "mrope_section": [third] * 3, "rope_type": "default", "type": "default"},
        "text_hidden_size": hidden, "text_vocab_size": model.model.text_embedding.num_embeddings,
        "position_id_per_seconds": 13, "codec_pad_id": talker.PAD, "codec_bos_id": talker.BOS,
        "codec_eos_token_id": talker.EOS, "codec_think_id": talker.THINK, "codec_nothink_id": talker.NOTHINK,
        "codec_think_bos_id": talker.THINK_BOS, "codec_think_eos_id": talker.THINK_EOS,
        "codec_language_id": {"english": talker.ENGLISH}, "spk_id": {"rms": talker.RMS},
        "spk_is_dialect": {"rms": False}, "code_predictor_config": predictor,
    }  # fmt: skip
    ids = {text: ENTRIES + i for i, text in enumerate(SPECIAL)}
    return {
        "architectures": ["Qwen3TTSForConditionalGeneration"], "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz", "tts_model_size": "nano", "tts_model_type": "custom_voice",
        "im_start_token_id": ids["<|im_start|>"], "im_end_token_id": ids["<|im_end|>"],
        "assistant_token_id": talker.ASSISTANT, "tts_pad_token_id": ids["<tts_pad>"],
        "tts_bos_token_id": ids["<tts_text_bos>"], "tts_eos_token_id": ids["<tts_text_eod>"],
        "talker_config": talker_config,
    }  # fmt: skip


GENERATION = {
    "do_sample": False, "repetition_penalty": 1.0, "temperature": 0.5, "top_p": 1.0, "top_k": 10,
    "subtalker_dosample": False, "subtalker_temperature": 0.5, "subtalker_top_p": 1.0, "subtalker_top_k": 10,
    "max_new_tokens": 2048,
}  # fmt: skip


def half(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A module's tensors under a prefix, floating ones in float16."""
    return {
        prefix + name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in module.state_dict().items()
    }


def write(path: Path, values: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    books = load_file(arguments.work / "codebooks.safetensors")
    parts = {
        "talker": talker.Talker(),
        "decoder": decoder.build(books),
        "encoder": encoder.build(books),
    }
    for name, part in parts.items():
        print(f"{name}: step {load(arguments.work / f'{name}.safetensors', part, [])}")
    codec = CodecConfig(
        decoder=decoder.CONFIG, encoder=encoder.CONFIG, encoder_valid_num_quantizers=talker.GROUPS,
        input_sample_rate=SAMPLE_RATE, output_sample_rate=SAMPLE_RATE, encode_downsample_rate=FRAME,
    )  # fmt: skip
    assert codec.samples_per_frame == FRAME
    speech = arguments.folder / "speech_tokenizer"
    write(arguments.folder / "config.json", model_config(parts["talker"]))
    write(arguments.folder / "generation_config.json", GENERATION)
    write(speech / "config.json", codec.to_dict())
    features = {
        "feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1, "padding_side": "right",
        "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": SAMPLE_RATE,
    }  # fmt: skip
    write(speech / "preprocessor_config.json", features)
    with torch.no_grad():
        weights = half(parts["decoder"], "decoder.") | half(parts["encoder"], "encoder.")
        save_file(half(parts["talker"], "talker."), arguments.folder / "model.safetensors", {"format": "pt"})
        save_file(weights, speech / "model.safetensors", {"format": "pt"})
    size = sum(path.stat().st_size for path in arguments.folder.rglob("*") if path.is_file())
    print(f"{arguments.folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
