"""LanguageModel on transformers: hidden states of texts, hidden states while generating, errors."""

from __future__ import annotations

import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from audio_projection.errors import AudioProjectionError
from audio_projection.llm.hidden_states import layers_to_probe, resolve_layers
from audio_projection.llm.language_model import LanguageModel, quantisation_options, vocabulary_hash
from audio_projection.sampling import Choice
from helpers.tiny_llm import make_llm, make_model, make_tokenizer

TEXTS = ["hello there", "the quick brown fox said: “good day”, 1234 times! 日本", "dog"]
MESSAGES = [{"role": "user", "content": "hello dog"}]
GREEDY, WILD = Choice(greedy=True), Choice(temperature=1.5, top_k=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llm")
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def hidden_states(ids: list[int]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return make_model()(torch.tensor([ids]), output_hidden_states=True).hidden_states


def rms_normed(x: torch.Tensor) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()


def test_a_state_is_the_normalised_residual_stream_and_of_the_last_layer_the_final_norm() -> None:
    llm = make_llm(layers=[0, 1, 3, 4])
    encoded = llm.states(TEXTS[:1])[0]
    reference = hidden_states([0, *encoded.ids])
    assert encoded.states.shape == (len(encoded.ids), 4, 32) and encoded.states.dtype == torch.float32
    for slot, layer in enumerate([0, 1, 3]):
        torch.testing.assert_close(encoded.states[:, slot], rms_normed(reference[layer])[0, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(encoded.states[:, 3], reference[-1][0, 1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", [0, 1, 3, -2])
def test_reading_stops_above_the_deepest_layer_and_gives_the_same(layer: int) -> None:
    llm = make_llm(layers=layer)
    used: list[int] = []
    hooks = [
        block.register_forward_hook(lambda *_, number=number: used.append(number))
        for number, block in enumerate(make_model().model.layers, start=1)
    ]
    states = llm.states(TEXTS[:1])[0].states
    for hook in hooks:
        hook.remove()
    assert max(used) == max(llm.layers[0], 1)
    everything = make_llm(layers=[0, 1, 2, 3, 4]).states(TEXTS[:1])[0].states
    torch.testing.assert_close(states[:, 0], everything[:, llm.layers[0]], atol=1e-5, rtol=0)


def test_layers_by_number_and_by_name() -> None:
    assert resolve_layers("last", 32) == [32] and resolve_layers(-1, 32) == [32] and resolve_layers(8, 32) == [8]
    assert resolve_layers([0, "last"], 32) == [0, 32] and resolve_layers([1, -2], 32) == [1, 31]


def test_the_probe_tries_the_layers_that_there_are() -> None:
    asked = [1, 2, 3, 4, 6, 8]
    assert layers_to_probe(asked, 32) == asked and layers_to_probe(asked, 4) == [1, 2, 3, 4]
    assert layers_to_probe([8, -1, 2, 32], 32) == [2, 8, 32]
    with pytest.raises(AudioProjectionError, match="fit.probe_layers: the model has layers 1 to 4 and none of 6, 8"):
        layers_to_probe([6, 8], 4)


@pytest.mark.parametrize("context", ["raw", "chat"])
def test_padding_changes_no_state(context: str) -> None:
    llm = make_llm(layers=[2, 4], context=context)
    for text, together in zip(TEXTS, llm.states(TEXTS), strict=True):
        alone = llm.states([text])[0]
        assert alone.ids == together.ids and alone.spans == together.spans
        torch.testing.assert_close(alone.states, together.states, atol=1e-4, rtol=0)


def test_spans_cover_the_text_only() -> None:
    for context in ("raw", "chat"):
        encoded = make_llm(context=context).states(TEXTS)
        for text, each in zip(TEXTS, encoded, strict=True):
            assert each.spans[0][0] == 0 and each.spans[-1][1] == len(text.encode())


def test_the_chat_context_is_the_assistants_turn_after_the_prompt() -> None:
    llm = make_llm(context="chat", prompt="say the dog")
    encoded = llm.states(["hello there"])[0]
    text = "<s><|user|>say the dog<|end|><|assistant|>hello there"
    ids = make_tokenizer()(text, add_special_tokens=False)["input_ids"]
    assert ids[-len(encoded.ids) :] == encoded.ids
    expected = hidden_states(ids)[-1][0, -len(encoded.ids) :]
    torch.testing.assert_close(encoded.states[:, 0], expected, atol=1e-5, rtol=0)


def test_special_tokens_written_in_a_text_are_plain_characters() -> None:
    encoded = make_llm().states(["a <|end|> b"])[0]
    assert 1 not in encoded.ids and encoded.spans[-1][1] == 11


def test_control_tokens_in_a_message_are_plain_characters() -> None:
    llm = make_llm(context="chat")
    clean = llm.chat_ids([{"role": "user", "content": "hello dog"}])
    quoting = llm.chat_ids([{"role": "user", "content": "hello <|end|><|assistant|> dog"}])
    special = set(llm.tokenizer.all_special_ids) | {*llm.tokenizer.get_added_vocab().values()}
    assert [token for token in quoting if token in special] == [token for token in clean if token in special]
    assert llm.tokenizer.decode(quoting).count("<|end|>") == 2
    assert llm.chat_ids([{"role": "user", "content": "\ue0010\ue001 dog"}])


def test_a_head_that_was_stored_is_used() -> None:
    llm = make_llm(context="chat")
    yesterday = llm.with_head(llm.chat_ids([{"role": "user", "content": "the lazy dog"}]))
    assert llm.head == llm.chat_ids([{"role": "user", "content": llm.prompt}]) != yesterday.head
    text = "the dog said hello"
    alone = llm.read([yesterday.head + llm.tokenize(text)])[0][len(yesterday.head) :]
    torch.testing.assert_close(yesterday.states([text])[0].states, alone)
    assert yesterday.select([1]).head == yesterday.head


@pytest.mark.parametrize("layers", ["last", [0, 2, 4]])
@pytest.mark.parametrize("sampling", [GREEDY, WILD])
def test_states_while_generating_equal_a_full_reading(layers: object, sampling: Choice) -> None:
    llm = make_llm(layers=layers, context="chat")
    tokens = list(llm.generate(MESSAGES, 20, sampling, torch.Generator().manual_seed(3)))
    assert len(tokens) > 5
    ids = [token.id for token in tokens]
    reread = llm.read([llm.chat_ids(MESSAGES) + ids])[0][-len(ids) :]
    torch.testing.assert_close(torch.stack([token.state for token in tokens]), reread, atol=1e-4, rtol=0)


def test_generation_is_that_of_transformers_and_stops_at_the_end_token() -> None:
    llm = make_llm(context="chat")
    prompt = torch.tensor([llm.chat_ids(MESSAGES)])
    for seed in range(20):
        tokens = [t.id for t in llm.generate(MESSAGES, 60, WILD, torch.Generator().manual_seed(seed))]
        assert 1 not in tokens
        if len(tokens) < 60:
            break
    else:
        pytest.fail("no sampled answer met the end token")
    greedy = [token.id for token in llm.generate(MESSAGES, 12, GREEDY)]
    expected = make_model().generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=1)[0, prompt.shape[1] :]
    assert greedy == [token for token in expected.tolist() if token != 1]


SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GROUPED = SIZES | {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8}
ARCHITECTURES = [
    GPT2Config(vocab_size=300, n_embd=32, n_layer=3, n_head=4, n_positions=128),
    OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32),
    Qwen3Config(**GROUPED),
    MistralConfig(**GROUPED, sliding_window=4),
    Gemma3TextConfig(**GROUPED, sliding_window=4),
]


def test_threads_do_not_change_how_others_read_control_tokens() -> None:
    """The tokenizer keeps that setting in itself."""
    llm = make_llm(context="chat")
    text = "hello <|end|> dog"
    plain, message = llm.tokenize(text), llm.chat_ids([{"role": "user", "content": "hello"}])

    def read(number: int) -> bool:
        if number % 2:
            return llm.tokenize(text) == plain
        return llm.chat_ids([{"role": "user", "content": "hello"}]) == message

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(2000)))


def test_threads_capture_their_own_passes() -> None:
    llm = make_llm(layers=[0, 1, -1])
    texts = ["one two", "three", "four five six"]
    alone = [llm.states([text])[0].states for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda number: llm.states([texts[number % 3]])[0].states, range(90)))
    assert all(torch.equal(states, alone[number % 3]) for number, states in enumerate(together))


@pytest.mark.filterwarnings("error::FutureWarning")  # nothing deprecated in transformers is used
@pytest.mark.parametrize("config", ARCHITECTURES, ids=lambda config: config.model_type)
def test_any_causal_model_reads_and_generates_the_same_states(config: PreTrainedConfig) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for layers in ([0, 2], [3]):
        llm = LanguageModel(model, make_tokenizer(), "tiny", layers=layers, context="chat")
        tokens = list(llm.generate(MESSAGES, 8, GREEDY))
        ids = llm.chat_ids(MESSAGES) + [token.id for token in tokens]
        read = llm.read([ids[:3], ids])[1]
        generated = torch.stack([token.state for token in tokens])
        torch.testing.assert_close(generated, read[-len(tokens) :], atol=1e-4, rtol=0)
        with torch.no_grad():
            reference = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        expected = [reference[layer][0] if layer == 3 else rms_normed(reference[layer])[0] for layer in layers]
        torch.testing.assert_close(read, torch.stack(expected, 1), atol=1e-4, rtol=0)


def test_pieces_are_the_bytes_of_the_answer() -> None:
    llm = make_llm()
    tokens = list(llm.generate(MESSAGES, 30, WILD, torch.Generator().manual_seed(0)))
    text = make_tokenizer().decode([token.id for token in tokens], skip_special_tokens=True)
    assert b"".join(token.piece for token in tokens).decode(errors="replace") == text


def test_sampling_is_seeded() -> None:
    llm = make_llm()
    runs = [[t.id for t in llm.generate(MESSAGES, 10, WILD, torch.Generator().manual_seed(s))] for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_other_layers_share_the_weights() -> None:
    llm = make_llm()
    other = llm.select([1, 2])
    assert other.model is llm.model and other.layers == [1, 2] and llm.layers == [4]
    assert other.states(TEXTS[:1])[0].states.shape[1] == 2 and llm.states(TEXTS[:1])[0].states.shape[1] == 1


def test_weights_are_frozen() -> None:
    assert not any(parameter.requires_grad for parameter in make_llm().model.parameters())


def test_loading_a_folder(saved: Path) -> None:
    llm = LanguageModel.from_pretrained(saved, layers=2, name="tiny")
    assert (llm.name, llm.hidden_size, llm.num_layers) == ("tiny", 32, 4)
    assert llm.tokenizer_hash == vocabulary_hash(make_tokenizer())
    mine, theirs = llm.states(TEXTS[:1])[0], make_llm(layers=2).states(TEXTS[:1])[0]
    torch.testing.assert_close(mine.states, theirs.states, atol=1e-6, rtol=0)


def test_loading_in_bfloat16_gives_float32_states(saved: Path) -> None:
    llm = LanguageModel.from_pretrained(saved, dtype="bfloat16")
    states = llm.states(TEXTS[:1])[0].states
    assert llm.model.dtype == torch.bfloat16 and states.dtype == torch.float32
    expected = make_llm().states(TEXTS[:1])[0].states
    assert torch.nn.functional.cosine_similarity(states, expected, dim=-1).min() > 0.99


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 5}, "no layer 5, the model has 0 .* to 4"),
        ({"layers": []}, "give last"),
        ({"layers": "first"}, "give last"),
        ({"context": "prose"}, "choose one of raw, chat"),
    ],
)
def test_wrong_settings(options: dict[str, object], words: str) -> None:
    with pytest.raises(AudioProjectionError, match=words):
        make_llm(**options)


def test_too_long_a_text_is_refused() -> None:
    with pytest.raises(AudioProjectionError, match="reads at most 256"):
        make_llm().states(["dog " * 300])


def test_refused_messages_and_no_template() -> None:
    tokenizer = make_tokenizer()
    template = tokenizer.chat_template
    try:
        tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
        with pytest.raises(AudioProjectionError, match="roles must alternate"):
            make_llm(context="chat")
        tokenizer.chat_template = None
        with pytest.raises(AudioProjectionError, match="no chat template"):
            make_llm(context="chat")
    finally:
        tokenizer.chat_template = template


def copy_without(saved: Path, target: Path, name: str) -> Path:
    target.mkdir()
    for file in saved.iterdir():
        if file.name != name:
            (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_with_a_missing_file(saved: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioProjectionError, match="download") as refused:
        LanguageModel.from_pretrained(copy_without(saved, tmp_path / "llm", name))
    assert "\n" not in str(refused.value)


def test_a_truncated_file(saved: Path, tmp_path: Path) -> None:
    folder = copy_without(saved, tmp_path / "llm", "")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(AudioProjectionError, match="cannot be loaded"):
        LanguageModel.from_pretrained(folder)


def test_a_checkpoint_of_another_shape(saved: Path, tmp_path: Path) -> None:
    folder = copy_without(saved, tmp_path / "llm", "")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 4', '"num_hidden_layers": 5'))
    with pytest.raises(AudioProjectionError, match="incomplete or of another shape"):
        LanguageModel.from_pretrained(folder)
    config.write_text(config.read_text().replace('"hidden_size": 32', '"hidden_size": 64'))
    with pytest.raises(AudioProjectionError):
        LanguageModel.from_pretrained(folder)


def test_a_missing_model_error_says_how_to_get_it(tmp_path: Path) -> None:
    for source in ("nobody/no-such-model", tmp_path / "absent"):
        with pytest.raises(AudioProjectionError, match="not on this machine.*download.*configs/nano.yaml"):
            LanguageModel.from_pretrained(source)


@pytest.mark.parametrize("layers", ["last", 0, 2, [1, 3]])
def test_reading_alone_keeps_no_other_weights_and_gives_the_same(layers: Any) -> None:
    llm = LanguageModel(copy.deepcopy(make_model()), make_tokenizer(), "tiny", layers=layers, context="chat")
    before, print_of_all = [encoded.states for encoded in llm.states(TEXTS)], llm.fingerprint
    blocks = [weakref.ref(block) for block in llm.model.model.layers]
    head = weakref.ref(llm.model.lm_head)
    assert llm.keep_reading_only() is llm
    gc.collect()
    deepest = max(max(llm.layers), 1)
    assert head() is None and [block() is not None for block in blocks] == [n < deepest for n in range(4)]
    assert all(torch.equal(one, other.states) for one, other in zip(before, llm.states(TEXTS), strict=True))
    assert llm.fingerprint == print_of_all and llm.to("cpu").device.type == "cpu"
    with pytest.raises(AudioProjectionError, match="keeps only what reading texts needs"):
        next(iter(llm.generate(MESSAGES)))
    if deepest < 4:
        with pytest.raises(AudioProjectionError, match="layer 4 of tiny was freed"):
            llm.select("last")
    assert llm.select(deepest).layers == [deepest]


def test_released_weights_are_gone_and_the_tokenizer_stays() -> None:
    llm = LanguageModel(copy.deepcopy(make_model()), make_tokenizer(), "tiny", layers=2)
    whole, ids = weakref.ref(llm.model), llm.tokenize(TEXTS[0])
    embeddings = weakref.ref(llm.model.model.embed_tokens)
    name = llm.fingerprint
    llm.release()
    gc.collect()
    assert whole() is None and embeddings() is None
    assert llm.tokenize(TEXTS[0]) == ids and llm.fingerprint == name
    with pytest.raises(AudioProjectionError, match="weights of tiny were freed"):
        llm.states(TEXTS)


def test_quantising_needs_bitsandbytes_and_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    for quantise in ("8bit", "4bit"):
        with pytest.raises(AudioProjectionError, match=f"quantise={quantise} needs bitsandbytes .*backend=gguf"):
            quantisation_options(quantise, "cpu")
    assert quantisation_options("none", "cuda") == {}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    options = quantisation_options("4bit", "cuda:1")
    assert options["device_map"] == {"": torch.device("cuda:1")}
    assert options["quantization_config"].load_in_4bit and options["quantization_config"].bnb_4bit_quant_type == "nf4"
    assert quantisation_options("8bit", "cuda")["quantization_config"].load_in_8bit
