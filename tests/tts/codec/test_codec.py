"""The codec: parity with the official package's outputs, streaming against batch, and input that is refused."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.tts.codec.codec import Codec
from audio_projection.tts.codec.config import CodecConfig, CodecDecoderConfig
from audio_projection.tts.codec.decoder import CodecDecoder
from helpers.paths import FIXTURES

FIXTURE = FIXTURES / "codec_16k"
MADE = runpy.run_path(str(FIXTURE / "make.py"))


@pytest.fixture(scope="module")
def codec() -> Codec:
    """16 kHz, 8 code groups."""
    return Codec.from_pretrained(FIXTURE)


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return load_file(FIXTURE / "reference.safetensors")


def furthest(made: Tensor, expected: Tensor) -> float:
    assert made.shape == expected.shape
    return (made - expected).abs().max().item()


# --- parity with the official package ---


def test_long_recording_has_the_official_codes(codec: Codec, reference: dict[str, Tensor]) -> None:
    """14 s with a sliding window of 20 positions in the configuration, which the official encoder ignores."""
    made = codec.encode(MADE["noise"](), MADE["RATE"])
    assert made.unique().numel() > 10
    assert torch.equal(made, reference["alone"])


def test_batch_is_padded_and_cut_as_the_official_one(codec: Codec, reference: dict[str, Tensor]) -> None:
    samples = MADE["noise"]()
    long, short = codec.encode_batch([samples, samples[: MADE["SHORT"]]], MADE["RATE"])
    assert torch.equal(long, reference["alone"])
    assert torch.equal(short, reference["short"])


def test_other_rate_is_resampled_as_the_official_one(codec: Codec, reference: dict[str, Tensor]) -> None:
    assert torch.equal(codec.encode(MADE["noise"]()[: MADE["SHORT"]], 44100), reference["resampled"])


def test_chunked_decode_gives_the_official_samples(codec: Codec, reference: dict[str, Tensor]) -> None:
    """Beyond 300 frames the official decoder has 25 frames of context, the streaming one all that the network sees."""
    first = MADE["KEPT"] * codec.samples_per_frame
    border = (300 - MADE["KEPT"]) * codec.samples_per_frame
    chunked, whole = (decode(MADE["codes"]())[first:] for decode in (codec.chunked_decode, codec.decode))
    assert furthest(chunked, reference["wave"]) < 1e-5
    assert furthest(whole[:border], reference["wave"][:border]) < 1e-5
    assert furthest(whole[border:], reference["wave"][border:]) > 1e-4


@pytest.fixture(scope="module")
def kit(shared: Path) -> tuple[Codec, dict[str, Tensor]]:
    """The codec of all checkpoints of the parity kit, and one checkpoint's official outputs."""
    folder = shared / "parity"
    codec = Codec.from_pretrained(folder / "tiny_base" / "speech_tokenizer")
    return codec, load_file(folder / "tiny_base.ref.safetensors")


def test_parity_kit(kit: tuple[Codec, dict[str, Tensor]]) -> None:
    codec, reference = kit
    recordings = [reference["enc.in"][0], reference["enc.in"][1, :40000]]
    for number, codes in enumerate(codec.encode_batch(recordings, 24000)):
        assert torch.equal(codes, reference[f"enc.codes.{number}"])
    assert furthest(codec.chunked_decode(reference["dec.codes"])[0], reference["dec.wav"]) < 1e-4
    assert furthest(codec.decode(reference["xvec.codes.0"]), reference["xvec.wav.0"]) < 1e-4


def test_cloned_speech_of_the_parity_kit(kit: tuple[Codec, dict[str, Tensor]]) -> None:
    """The reference recording's codes are decoded before the generated ones; its share of the samples is cut off."""
    codec, reference = kit
    before = codec.encode(reference["ref.wav"], 24000)
    codes = torch.cat((before, reference["nonstream.codes.0"]))
    samples = codec.chunked_decode(codes)
    cut = int(len(before) / len(codes) * len(samples))
    assert furthest(samples[cut:], reference["nonstream.wav.0"]) < 1e-4


def test_chunks_equal_the_whole_where_rounding_is_amplified(kit: tuple[Codec, dict[str, Tensor]]) -> None:
    codec, reference = kit
    codes = reference["dec.codes"][0, :120]
    whole = codec.decode(codes)
    for chunk in (1, 7):
        stream = codec.stream()
        parts = [stream.decode(part[None])[0] for part in codes.split(chunk)]
        assert furthest(torch.cat(parts), whole) < 1e-5


# --- streaming ---

configurations = st.builds(
    CodecDecoderConfig,
    num_quantizers=st.integers(2, 8),
    codebook_size=st.just(16),
    codebook_dim=st.sampled_from((8, 12)),
    latent_dim=st.sampled_from((8, 10)),
    hidden_size=st.just(12),
    intermediate_size=st.just(16),
    num_hidden_layers=st.integers(1, 2),
    num_attention_heads=st.just(4),
    num_key_value_heads=st.sampled_from((1, 2, 4)),
    head_dim=st.sampled_from((4, 6, None)).map(lambda size: size or 4),
    attention_bias=st.booleans(),
    sliding_window=st.integers(1, 12),
    layer_scale_initial_scale=st.just(0.7),
    decoder_dim=st.sampled_from((16, 33)),
    upsample_rates=st.sampled_from(((8, 5, 4, 2), (5, 3), (2, 1), (4,))),
    upsampling_ratios=st.sampled_from(((2, 2), (2,), (3, 1))),
)


@settings(max_examples=25, deadline=None)
@given(configurations, st.lists(st.integers(0, 6), min_size=1, max_size=7), st.integers(0, 2**31))
def test_any_chunks_equal_the_whole(config: CodecDecoderConfig, chunks: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    decoder = CodecDecoder(config).eval()
    codes = torch.randint(0, config.codebook_size, (2, sum(chunks) + 1, config.num_quantizers))
    with torch.no_grad():
        whole = decoder(codes)
        state: dict[torch.nn.Module, Tensor] = {}
        made = torch.cat([decoder(part, state) for part in codes.split([*filter(None, chunks), 1], 1)], 1)
    assert whole.shape == (2, codes.shape[1] * config.samples_per_frame)
    assert furthest(made, whole) < 1e-5


def test_a_chunk_without_its_context_differs(codec: Codec) -> None:
    codes = MADE["codes"]()[:8]
    assert furthest(codec.decode(codes)[4 * 1280 :], codec.decode(codes[4:])) > 1e-2


def test_state_does_not_grow(codec: Codec) -> None:
    sizes = []
    state: dict[torch.nn.Module, Tensor] = {}
    for part in MADE["codes"]()[None, :140].split(20, 1):
        codec.decoder(part, state)
        sizes.append(sum(value.untyped_storage().nbytes() for value in state.values()))
    assert sizes[-1] == sizes[-2] == sizes[-3]


def test_no_frames_are_no_samples(codec: Codec) -> None:
    empty = torch.zeros(0, 8, dtype=torch.long)
    assert codec.decode(empty).shape == (0,)
    assert codec.decode(empty.expand(3, 0, 8)).shape == (3, 0)
    assert codec.chunked_decode(empty).shape == (0,)


def test_utterances_of_a_batch_do_not_mix(codec: Codec) -> None:
    codes = MADE["codes"]().view(3, 110, 8)
    assert furthest(codec.decode(codes)[1], codec.decode(codes[1])) < 1e-5


# --- building, training, saving ---


def test_trains(codec: Codec) -> None:
    """Gradients reach the latents and every parameter that decoding uses; the codebooks are not parameters."""
    decoder = CodecDecoder(codec.config.decoder)
    latents = decoder.quantizer(MADE["codes"]()[None, :6]).detach().requires_grad_()
    decoder.synthesize(latents).square().mean().backward()
    assert latents.grad is not None and latents.grad.abs().sum() > 0
    without = [name for name, value in decoder.named_parameters() if value.grad is None]
    assert without and all(name.startswith("quantizer.") for name in without)
    assert not any("codebook" in name for name, _ in decoder.named_parameters())


def test_encoder_latents_are_differentiable(codec: Codec) -> None:
    trained = Codec(codec.config).encoder
    trained.latents(torch.randn(1, 4000)).square().mean().backward()
    gradients = {name for name, value in trained.named_parameters() if value.grad is not None}
    assert {"encoder.layers.0.conv.weight", "downsample.conv.weight"} <= gradients


def test_loaded_codec_is_frozen(codec: Codec) -> None:
    for part in (codec, codec.decoder, codec.encoder):
        assert not part.training and not any(value.requires_grad for value in part.parameters())


DECODES = """
import sys, torch
from audio_projection.tts.codec.codec import Codec
codec = Codec.from_pretrained(sys.argv[1])
codec.decode(torch.zeros(3, codec.code_groups, dtype=torch.int64))
assert not [name for name in ("transformers", "torch._dynamo") if name in sys.modules]
assert not [name for name, _ in codec.named_parameters() if name.startswith("encoder.")]
assert any(name.startswith("encoder.") for name in codec.state_dict())
assert next(iter(codec.state_dict())).startswith("encoder."), "fingerprints of stored pairs would change"
"""


def test_decoding_needs_no_encoder() -> None:
    """Decoding loads neither the encoder's weights, nor transformers, nor PyTorch's compiler, which import slowly."""
    done = subprocess.run([sys.executable, "-c", DECODES, str(FIXTURE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_saving_gives_the_same_folder(codec: Codec, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path / "é out")
    for name in ("config.json", "preprocessor_config.json"):
        assert json.loads((tmp_path / "é out" / name).read_text()) == json.loads((FIXTURE / name).read_text())
    saved, original = (load_file(folder / "model.safetensors") for folder in (tmp_path / "é out", FIXTURE))
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[name], original[name]) and saved[name].dtype == torch.float32 for name in saved)


def test_real_configuration_gives_the_published_sizes(shared: Path) -> None:
    path = shared / "data" / "configs" / "speech_tokenizer_config.json"
    config = CodecConfig.from_dict(json.loads(path.read_text()))
    with torch.device("meta"):
        codec = Codec(config)
    assert config.samples_per_frame == 1920
    millions = {name: sum(value.numel() for value in getattr(codec, name).state_dict().values()) / 1e6 for name in
                ("encoder", "decoder")}  # fmt: skip
    assert 113 < millions["decoder"] < 115.5 and 55 < millions["encoder"] < 58


# --- recordings ---


def test_rate_of_the_preprocessor_counts(tmp_path: Path) -> None:
    """As in the official package, whose encoder resamples to the rate in preprocessor_config.json."""
    folder = tmp_path / "codec"
    shutil.copytree(FIXTURE, folder)
    (folder / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    assert Codec.from_pretrained(folder).encode(np.zeros(16000), 16000).shape == (7, 8)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (10, 1), (1279, 1), (1280, 1), (1281, 2), (12345, 10)])
def test_any_length_is_encoded(codec: Codec, samples: int, frames: int) -> None:
    codes = codec.encode(np.zeros(samples, np.float32), 16000)
    assert codes.shape == (frames, 8) and codes.dtype == torch.int64 and codes.is_contiguous()


def test_other_rates_are_resampled(codec: Codec) -> None:
    assert codec.encode(np.zeros(44100), 44100).shape == (13, 8)
    assert codec.encode(np.zeros(1), 192000).shape == (1, 8)
    slow = torch.sin(torch.arange(16000) / 30)
    fast = torch.sin(torch.arange(48000) / 90)
    assert (codec.encode(slow, 16000) == codec.encode(fast, 48000)).float().mean() > 0.8


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(0, np.float32), 16000, "empty"),
        (np.zeros((2, 100), np.float32), 16000, "mono"),
        (np.array([0.0, np.nan]), 16000, "finite"),
        (np.zeros(100, np.int16), 16000, "floating point"),
        (np.zeros(100), 0, "sample rate 0"),
    ],
)
def test_refused_recordings(codec: Codec, samples: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(AudioProjectionError, match=message):
        codec.encode(samples, rate)


@pytest.mark.parametrize(
    "codes",
    [
        torch.zeros(4, 7).long(),
        torch.zeros(8).long(),
        torch.full((4, 8), 32),
        torch.full((4, 8), -1),
        torch.zeros(4, 8),
    ],
)
def test_refused_codes(codec: Codec, codes: Tensor) -> None:
    with pytest.raises(AudioProjectionError, match="codes"):
        codec.decode(codes)


# --- damaged folders ---


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return apply


def settings_(**changes: object) -> Callable[[Path], None]:
    """Changed keys of config.json; `section__key` for those of its sections."""

    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        for name, value in changes.items():
            section, _, key = name.rpartition("__")
            (config[section] if section else config)[key] = value
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])


NAME = "decoder.pre_conv.conv.bias"
ENCODING = "encoder.downsample.conv.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (tensors(lambda state: state.pop(NAME)), NAME),
        (tensors(lambda state: state.update({NAME: torch.zeros(3)})), rf"{NAME} is \[3\]"),
        (tensors(lambda state: state.update(foreign=torch.zeros(3))), "foreign"),
        (tensors(lambda state: state.pop(ENCODING)), ENCODING),
        (tensors(lambda state: state.update({"encoder.foreign": torch.zeros(3)})), "encoder.foreign"),
        (truncate, "truncated"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "JSON"),
        (settings_(decoder_config=None), "decoder_config"),
        (settings_(decoder_config__hidden_act="loud"), "loud"),
        (settings_(decoder_config__hidden_size="wide"), "hidden_size"),
        (settings_(decoder_config__head_dim=9), "even"),
        (settings_(decoder_config__num_key_value_heads=3), "key heads"),
        (settings_(decoder_config__upsample_rates=[8, 5, 4]), "decode_upsample_rate"),
        (settings_(decoder_config__upsample_rates="8543"), "list"),
        (settings_(decoder_config__rope_scaling={"type": "yarn"}), "rope_scaling"),
        (settings_(encoder_config__codebook_size="many"), "encoder_config"),
        (settings_(encoder_config__hidden_act="loud"), "loud"),
        (settings_(encoder_config__num_attention_heads=5), "config.json: encoder_config"),
        (settings_(encoder_valid_num_quantizers=40), "encoder_valid_num_quantizers"),
    ],
)
def test_refused_folders(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    folder = tmp_path / "speech_tokenizer"
    shutil.copytree(FIXTURE, folder)
    damage(folder)
    with pytest.raises(AudioProjectionError, match=message) as error:
        _ = Codec.from_pretrained(folder).encoder
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_streams_decoded_together_equal_each_alone(codec: Codec) -> None:
    """Streams that begin at different times, beyond the window of attention, decoded in groups that change."""
    generator = torch.Generator().manual_seed(1)
    high = codec.config.decoder.codebook_size
    codes = torch.randint(high, (3, 4 * codec.config.decoder.sliding_window, codec.code_groups), generator=generator)
    streams, decoded, parts = [codec.stream() for _ in range(3)], [0, 0, 0], [[], [], []]
    for turn in range(200):
        group = [number for number in range(3) if (turn + number) % (number + 2) and turn >= 7 * number]
        size = 1 + turn % 4
        group = [number for number in group if decoded[number] + size <= codes.shape[1]]
        if not group:
            continue
        chunk = torch.stack([codes[number, decoded[number] : decoded[number] + size] for number in group])
        samples = codec.decode_together([streams[number] for number in group], chunk)
        for number, wave in zip(group, samples, strict=True):
            parts[number].append(wave)
            decoded[number] += size
    for number, frames in enumerate(decoded):
        assert frames > 2 * codec.config.decoder.sliding_window
        assert furthest(torch.cat(parts[number]), codec.decode(codes[number, :frames])) < 1e-5
