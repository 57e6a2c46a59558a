"""Stage: the trained parts put together as an official Qwen3-TTS folder.

    python recipes/nano/folder.py work

Writes config.json, generation_config.json, model.safetensors and speech_tokenizer/ beside the tokenizer's files in
`work/tts`, float16, from the newest checkpoints of the other stages, and characters.json, what the spoken sentences
are written with.
"""

import argparse
import json
from pathlib import Path

import decoder
import encoder
import torch
from checkpoint import load
from codebooks import ENTRIES, FRAME, GROUPS
from safetensors.torch import load_file, save_file
from talker_model import (
    BOS,
    ENGLISH,
    EOS,
    EPSILON,
    NOTHINK,
    PAD,
    PREDICTOR,
    ROPE_THETA,
    SPEAKER,
    TALKER,
    TEXT_WIDTH,
    THINK,
    THINK_BOS,
    THINK_EOS,
    VOCABULARY,
    Sizes,
    Talker,
    with_lessons,
)
from teacher import SAMPLE_RATE
from text_ids import TextIds
from torch import Tensor, nn

from audio_projection.text.characters import learned_characters, write_characters
from audio_projection.tts.codec.config import CodecConfig

VOICE = "heart"
"""The teacher's name for its voice."""


def stack_config(sizes: Sizes) -> dict[str, object]:
    """The sizes of one Qwen3 stack under the official names."""
    return {
        "hidden_size": sizes.hidden, "intermediate_size": sizes.intermediate, "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.kv_heads, "head_dim": sizes.head,
        "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": EPSILON, "attention_bias": False,
        "rope_theta": ROPE_THETA, "use_sliding_window": False, "sliding_window": None, "use_cache": True,
        "num_code_groups": GROUPS,
    }  # fmt: skip


def model_config(ids: TextIds) -> dict[str, object]:
    """The official config.json."""
    third = TALKER.head // 6
    sections = [TALKER.head // 2 - 2 * third, third, third]
    predictor = stack_config(PREDICTOR) | {
        "model_type": "qwen3_tts_talker_code_predictor", "vocab_size": ENTRIES, "rope_scaling": None,
    }  # fmt: skip
    talker_config = stack_config(TALKER) | {
        "model_type": "qwen3_tts_talker", "vocab_size": VOCABULARY,
        "rope_scaling": {"interleaved": True, "mrope_section": sections, "rope_type": "default", "type": "default"},
        "text_hidden_size": TEXT_WIDTH, "text_vocab_size": ids.vocabulary, "position_id_per_seconds": 13,
        "codec_pad_id": PAD, "codec_bos_id": BOS, "codec_eos_token_id": EOS, "codec_think_id": THINK,
        "codec_nothink_id": NOTHINK, "codec_think_bos_id": THINK_BOS, "codec_think_eos_id": THINK_EOS,
        "codec_language_id": {"english": ENGLISH}, "spk_id": {VOICE: SPEAKER}, "spk_is_dialect": {VOICE: False},
        "code_predictor_config": predictor,
    }  # fmt: skip
    return {
        "architectures": ["Qwen3TTSForConditionalGeneration"], "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz", "tts_model_size": "nano", "tts_model_type": "custom_voice",
        "im_start_token_id": ids.im_start, "im_end_token_id": ids.im_end, "assistant_token_id": ids.assistant,
        "tts_pad_token_id": ids.pad, "tts_bos_token_id": ids.bos, "tts_eos_token_id": ids.eos,
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
    work = parser.parse_args().work
    folder, books = work / "tts", load_file(work / "codebooks.safetensors")
    ids = TextIds.from_folder(folder)
    parts = {
        "talker": with_lessons(Talker(ids), load_file(work / "text_table.safetensors")["source"]),
        "decoder": decoder.with_critics(decoder.build(books)),
        "encoder": encoder.build(books),
    }
    for name, part in parts.items():
        step = load(work / f"{name}.safetensors", part, [])
        if not step:
            parser.error(f"{work} has no trained {name}: run {name}.py first")
        print(f"{name}: step {step}")
    codec = CodecConfig(
        decoder=decoder.CONFIG, encoder=encoder.CONFIG, encoder_valid_num_quantizers=GROUPS,
        input_sample_rate=SAMPLE_RATE, output_sample_rate=SAMPLE_RATE, encode_downsample_rate=FRAME,
    )  # fmt: skip
    assert codec.samples_per_frame == FRAME
    speech = folder / "speech_tokenizer"
    write(folder / "config.json", model_config(ids))
    write(folder / "generation_config.json", GENERATION)
    write(speech / "config.json", codec.to_dict())
    features = {
        "feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1, "padding_side": "right",
        "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": SAMPLE_RATE,
    }  # fmt: skip
    write(speech / "preprocessor_config.json", features)
    write_characters(folder, learned_characters([(work / "sentences.txt").read_text(encoding="utf-8")]))
    with torch.no_grad():
        weights = half(parts["decoder"]["decoder"], "decoder.") | half(parts["encoder"], "encoder.")
        save_file(half(parts["talker"]["talker"], "talker."), folder / "model.safetensors", {"format": "pt"})
        save_file(weights, speech / "model.safetensors", {"format": "pt"})
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
