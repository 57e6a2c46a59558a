"""Loading official checkpoint folders: strict, sharded, in half precision; writing their tensors; the tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.tts import Qwen3TTS, Sampling, generate
from audio_projection.tts.config import Qwen3TTSConfig
from audio_projection.tts.layers import Rotary, rotate
from audio_projection.tts.tokenizer import TextTokenizer
from audio_projection.tts.weights import official_state_dict
from helpers import parity_kit

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def tts() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(parity_kit.checkpoint("tiny_custom_voice"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return parity_kit.assemble("tiny_custom_voice", tmp_path)


def edit(path: Path, change: Callable[[dict], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def split(folder: Path) -> list[Path]:
    """Splits the weights into two shards with an index."""
    weights = load_file(folder / WEIGHTS)
    names = sorted(weights)
    parts = {f"model-0000{i}-of-00002.safetensors": names[i - 1 :: 2] for i in (1, 2)}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, folder / file)
    places = {name: file for file, own in parts.items() for name in own}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / WEIGHTS).unlink()
    return [folder / file for file in parts]


def test_shards_equal_the_single_file(folder: Path, tts: Qwen3TTS) -> None:
    split(folder)
    sharded = Qwen3TTS.from_pretrained(folder).state_dict()
    assert sharded.keys() == tts.state_dict().keys()
    assert all(torch.equal(value, sharded[name]) for name, value in tts.state_dict().items())


def test_the_index_decides_which_shard_gives_a_tensor(folder: Path, tts: Qwen3TTS) -> None:
    shards = split(folder)
    one, two = load_file(shards[0]), load_file(shards[1])
    save_file({**one, **{name: torch.zeros_like(value) for name, value in two.items()}}, shards[0])
    save_file({**two, **{name: torch.zeros(1) for name in one}, "left.over": torch.zeros(1)}, shards[1])
    sharded = Qwen3TTS.from_pretrained(folder).state_dict()
    assert all(torch.equal(value, sharded[name]) for name, value in tts.state_dict().items())


def test_a_named_voice_model_that_kept_its_speaker_encoder(
    folder: Path, tts: Qwen3TTS, caplog: pytest.LogCaptureFixture
) -> None:
    base = load_file(parity_kit.checkpoint("tiny_base") / WEIGHTS)
    extra = {name: value for name, value in base.items() if name.startswith("speaker_encoder.")}
    edit_weights(folder, lambda weights: weights.update(extra))
    with caplog.at_level("INFO"):
        loaded = Qwen3TTS.from_pretrained(folder)
    assert loaded.speaker_encoder is None and "its speaker encoder is not used" in caplog.text
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in tts.state_dict().items())


@pytest.mark.parametrize("name", ["tiny_base", "odd"])
def test_official_tensors_come_back(name: str) -> None:
    checkpoint = parity_kit.checkpoint(name)
    written, given = official_state_dict(Qwen3TTS.from_pretrained(checkpoint)), load_file(checkpoint / WEIGHTS)
    assert written.keys() == given.keys()
    assert all(torch.equal(value, written[key]) for key, value in given.items())


def test_a_loaded_model_is_frozen(tts: Qwen3TTS) -> None:
    assert not tts.training and not any(weight.requires_grad for weight in tts.parameters())
    assert (tts.sample_rate, tts.samples_per_frame, tts.frame_rate) == (24000, 1920, 12.5)
    assert tts.sampling == Sampling() and tts.name == "tiny_custom_voice"


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing tensor": (
        lambda f: edit_weights(f, lambda w: w.pop("talker.codec_head.weight")),
        r"1 of \d+ tensors are missing: talker.codec_head.weight",
    ),
    "wrong shape": (
        lambda f: edit_weights(f, lambda w: w.update({"talker.model.norm.weight": torch.ones(63)})),
        r"wrong shape: talker.model.norm.weight is \[63\], config.json needs \[64\]",
    ),
    "wrong shape of a fused part": (
        lambda f: edit_weights(
            f, lambda w: w.update({"talker.model.layers.1.self_attn.k_proj.weight": torch.ones(50, 64)})
        ),
        r"layers.1.self_attn.k_proj.weight is \[50, 64\], config.json needs \[48, 64\]",
    ),
    "unknown tensor": (
        lambda f: edit_weights(f, lambda w: w.update({"talker.model.layers.2.norm": torch.ones(3)})),
        "1 tensors that this config.json has no use for: talker.model.layers.2.norm",
    ),
    "other config": (
        lambda f: edit(f / "config.json", lambda c: c["talker_config"].update(num_hidden_layers=3)),
        r"11 of \d+ tensors are missing: talker.model.layers.2.input_layernorm.weight",
    ),
    "truncated": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:500_000]),
        "model.safetensors is truncated or no safetensors file",
    ),
    "empty file": (lambda f: (f / WEIGHTS).write_bytes(b""), "model.safetensors is truncated or no safetensors file"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no model.safetensors"),
    "missing shard": (lambda f: split(f)[1].unlink(), "model-00002-of-00002.safetensors is missing, a shard"),
    "tensor not in its shard": (
        lambda f: save_file({"x": torch.ones(1)}, split(f)[0]),
        r"model-00001-of-00002.safetensors lacks talker\..* and \d+ more",
    ),
    "foreign": (
        lambda f: (f / "config.json").write_text('{"model_type": "llama"}'),
        "describes a model of type 'llama', not a Qwen3-TTS",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing, so .* is not a Qwen3-TTS folder"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "config.json is not valid JSON"),
    "unknown kind": (
        lambda f: edit(f / "config.json", lambda c: c.update(tts_model_type="x")),
        "must be one of custom",
    ),
    "no size": (
        lambda f: edit(f / "config.json", lambda c: c["talker_config"].update(num_hidden_layers="2")),
        "talker_config: num_hidden_layers is '2', must be a whole number",
    ),
    "no section": (
        lambda f: edit(f / "config.json", lambda c: c["talker_config"].pop("code_predictor_config")),
        "section 'code_predictor_config' is missing",
    ),
    "groups disagree": (
        lambda f: edit(f / "config.json", lambda c: c["talker_config"].update(num_code_groups=8)),
        "num_code_groups is 8 in talker_config and 16 in code_predictor_config",
    ),
    "scaled rope": (
        lambda f: edit(f / "config.json", lambda c: c["talker_config"]["rope_scaling"].update(rope_type="yarn")),
        "rope type 'yarn' is not supported",
    ),
    "id beyond the vocabulary": (
        lambda f: edit(f / "config.json", lambda c: c["talker_config"]["spk_id"].update(ada=1088)),
        "spk_id 'ada' is 1088, outside the vocabulary of 1088",
    ),
    "no vocabulary": (lambda f: (f / "vocab.json").unlink(), "vocab.json is missing"),
    "no merges": (lambda f: (f / "merges.txt").unlink(), "merges.txt is missing"),
    "damaged merges": (lambda f: (f / "merges.txt").write_text("a b c\n"), "merges.txt is damaged"),
    "another tokenizer": (
        lambda f: edit(f / "tokenizer_config.json", lambda c: c.update(added_tokens_decoder={})),
        "the tokenizer makes .* tokens of .*, Qwen3-TTS needs 3",
    ),
    "no generation settings": (lambda f: (f / "generation_config.json").unlink(), "generation_config.json is missing"),
    "another codec": (
        lambda f: shutil.copytree(
            parity_kit.checkpoint("odd") / "speech_tokenizer", f / "speech_tokenizer", dirs_exist_ok=True
        ),
        "config.json has 16 code groups, speech_tokenizer 6",
    ),
    "no codec": (
        lambda f: (f / "speech_tokenizer" / "config.json").unlink(),
        "speech_tokenizer.config.json is missing",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(folder: Path, case: str) -> None:
    damage, message = REFUSED[case]
    damage(folder)
    with pytest.raises(AudioProjectionError, match=message) as refused:
        Qwen3TTS.from_pretrained(folder)
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AudioProjectionError, match="is no folder"):
        Qwen3TTS.from_pretrained(tmp_path / "nowhere")


def test_a_tied_head_may_be_left_out(folder: Path, tts: Qwen3TTS) -> None:
    edit_weights(folder, lambda w: w.pop("talker.codec_head.weight"))
    edit(folder / "config.json", lambda c: c["talker_config"].update(tie_word_embeddings=True))
    tied = Qwen3TTS.from_pretrained(folder)
    assert torch.equal(tied.talker.codec_head.weight, tts.talker.codec_embedding.weight)


def test_half_precision_keeps_the_rotary_positions(tts: Qwen3TTS) -> None:
    half = Qwen3TTS.from_pretrained(parity_kit.checkpoint("tiny_custom_voice"), dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(1, 900, 64, generator=generator)
    with torch.no_grad():
        exact, rounded = tts.talker(embeds), half.talker(embeds.bfloat16()).float()
    for cos, sin in (half.talker.transformer.rotary.table(900, torch.device("cpu")),):
        assert cos.dtype == sin.dtype == torch.float32
    error = (exact - rounded).norm(dim=-1) / exact.norm(dim=-1)
    assert error[:, 500:].mean() < 1.5 * error[:, :300].mean() < 0.05  # rounded angles are worse the further on
    prefix, embeddings = half.prefix("ada"), half.text_embeddings(torch.tensor(half.tokenize("lazy dog")[0]))
    codes, same = (
        generate(half, [(prefix, given)], sampling=Sampling.greedy(), max_frames=3)[0]
        for given in (embeddings, embeddings.float())
    )
    assert torch.equal(codes, same)


def test_rotation_in_half_precision_uses_exact_angles() -> None:
    rotary = Rotary(8, 10000.0)
    cos, sin = rotary.table(5000, torch.device("cpu"))
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    rotated = rotate(x, cos[4999], sin[4999])
    angles = 4999.0 / 10000.0 ** (torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    first, second = x.double().chunk(2, -1)
    exact = torch.cat((first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()), -1)
    assert rotated.dtype == torch.bfloat16
    torch.testing.assert_close(rotated.double(), exact, atol=0.02, rtol=0.01)


def test_random_models_train_and_are_seeded(tts: Qwen3TTS) -> None:
    config = Qwen3TTSConfig.from_folder(parity_kit.checkpoint("odd"))
    model, same, other = (Qwen3TTS.from_config(config, seed) for seed in (1, 1, 2))
    state = official_state_dict(model)
    assert all(torch.equal(value, state[name]) for name, value in official_state_dict(same).items())
    assert not torch.equal(state["talker.codec_head.weight"], official_state_dict(other)["talker.codec_head.weight"])
    codes = torch.zeros(2, 6, dtype=torch.int64)
    hidden = model.talker(model.frame_embedding(codes)[None])[0]
    loss = model.talker.logits(hidden).logsumexp(-1).sum() + model.code_predictor(hidden, codes).logsumexp(-1).sum()
    loss.backward()
    idle = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert idle and all(name.startswith("talker.text_") for name in idle)
    with pytest.raises(AudioProjectionError, match="without a tokenizer"):
        model.tokenize("a")
    with pytest.raises(AudioProjectionError, match="without a codec"):
        _ = model.sample_rate


def test_a_written_folder_is_loaded_again(tmp_path: Path, folder: Path) -> None:
    model = Qwen3TTS.from_config(Qwen3TTSConfig.from_folder(folder), seed=5)
    save_file(official_state_dict(model), folder / WEIGHTS)
    loaded = Qwen3TTS.from_pretrained(folder)
    codes = torch.arange(16)[None]
    assert torch.equal(loaded.frame_embedding(codes), model.frame_embedding(codes))
    hidden = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.code_predictor(hidden, codes), model.code_predictor(hidden, codes))


TEXTS = [
    "",
    "hello there, the quick brown fox",
    "thére — naïve “quotes” 日本語 한국어 🙂👩‍🚀 \t\n  42",
    "e\u0301 o\u0308\u0304 \u1112\u1161\u11ab \u212b \u0958",  # not in NFC: letters with marks, Hangul, Angstrom
    "a<|im_end|>b",
]


def check_spans(tokenizer: TextTokenizer, text: str) -> None:
    ids, spans = tokenizer.encode(text)
    assert len(ids) == len(spans)
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert not spans or (spans[0][0], spans[-1][1]) == (0, len(text.encode()))
    assert all(start <= end for start, end in spans)


@pytest.mark.parametrize("text", TEXTS)
def test_spans_partition_the_bytes(tts: Qwen3TTS, text: str) -> None:
    check_spans(tts.tokenizer, text)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=12))
def test_spans_partition_the_bytes_of_any_text(tts: Qwen3TTS, text: str) -> None:
    check_spans(tts.tokenizer, text)


def test_spans_are_those_of_the_tokens(tts: Qwen3TTS) -> None:
    text = "the dog sät 🙂"
    ids, spans = tts.tokenize(text)
    assert [text.encode()[start:end] for start, end in spans][:2] == [b"the", b" dog"]
    assert all(tts.tokenizer.text([number]) == "the" for number in ids[:1])
    assert [span[1] - span[0] for span in spans[-4:]] == [1, 1, 1, 1]  # this small vocabulary spells emoji in bytes
    assert tts.tokenize("e\u0301.")[1] == [(0, 1), (1, 3), (3, 4)]  # one composed letter, 2 bytes for 3


def test_the_template_holds_the_bare_ids(tts: Qwen3TTS) -> None:
    """The ids that the official package cuts out of its template are those of the bare text."""
    for text in ("hello there", "the 'dog'  jumps!", "über\tfox"):
        whole = tts.tokenizer.ids(f"<|im_start|>assistant\n{text}<|im_end|>\n<|im_start|>assistant\n")
        assert whole[:3] == tts.role_ids and whole[3:-5] == tts.tokenize(text)[0]


def test_the_hash_names_the_tokenizer(folder: Path, tts: Qwen3TTS) -> None:
    assert TextTokenizer.from_folder(folder).hash == tts.tokenizer_hash
    tts.tokenizer.backend.save(str(folder / "tokenizer.json"))
    (folder / "vocab.json").unlink()
    assert TextTokenizer.from_folder(folder).hash == tts.tokenizer_hash
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(AudioProjectionError, match="tokenizer.json cannot be read"):
        TextTokenizer.from_folder(folder)


def test_the_real_tokenizer(shared: Path, tmp_path: Path) -> None:
    """From Qwen's vocabulary and merges alone: the ids of its own tokenizer.json."""
    folder = shared / "data" / "tokenizers" / "qwen2"
    real = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for file in parity_kit.TOKENIZER_FILES:
        shutil.copyfile(folder / file, tmp_path / file)
    own = TextTokenizer.from_folder(tmp_path)
    for text in ("It's 1234 o'clock,  isn't it?\n\nYes.", "Grüße aus 東京 🙂", " leading", *TEXTS[1:3]):
        assert own.ids(text) == real.encode(text, add_special_tokens=False).ids
        check_spans(own, text)
