"""LLM from a GGUF file: hidden states, tokens and answers equal those of transformers on the same weights."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("gguf", reason="the gguf package is not installed (audio-projection[gguf])")
pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")

from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from audio_projection.data import cached_states
from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.gguf.language_model import GGUFLanguageModel, RunSettings
from audio_projection.gguf.llm_file import check_llm, write_llm
from audio_projection.gguf.reader import read_gguf
from audio_projection.gguf.tokenizer import read_tokenizer, vocabulary_keys
from audio_projection.gguf.writer import write_gguf
from audio_projection.llm.language_model import LanguageModel, vocabulary_hash
from audio_projection.llm.prefix_cache import PrefixCache
from audio_projection.sampling import Choice
from helpers.gguf_files import damaged, llm_file, unsealed
from helpers.real_tokenizers import real_tokenizer
from helpers.tiny_llm import make_tokenizer

FOLDER = NANO_FOLDER / "llm"
TEXTS = ["Good morning.", "The quick brown fox said: “good day”, 1234 times! 日本", "dog"]
MESSAGES = [{"role": "user", "content": "Tell me about the river."}]
GREEDY = Choice(greedy=True)
LAYERS = [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def nano_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llm(FOLDER, tmp_path_factory.mktemp("a place é") / "nano файл.gguf", "nano", "F32").path


@pytest.fixture(scope="module")
def reference() -> LanguageModel:
    return LanguageModel.from_pretrained(FOLDER, dtype="float32", layers=LAYERS, context="chat")


def difference(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((mine - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("layer", [*LAYERS, LAYERS, [4, 1]], ids=str)
def test_states_of_every_layer_are_those_of_transformers(
    nano_file: Path, reference: LanguageModel, layer: int | list[int]
) -> None:
    llm = GGUFLanguageModel(nano_file, layers=layer, context="chat")
    pairs = list(zip(llm.states(TEXTS), reference.select(layer).states(TEXTS), strict=True))
    for mine, theirs in pairs:
        assert mine.ids == theirs.ids and mine.spans == theirs.spans
        assert mine.states.shape == theirs.states.shape and mine.states.dtype == torch.float32
        assert difference(mine.states, theirs.states) < 1e-5
    print(f"F32, layer {layer}: {max(difference(mine.states, theirs.states) for mine, theirs in pairs):.1e}")


@pytest.mark.parametrize(("wanted", "most"), [("F16", 1e-2), ("Q8_0", 5e-2)])
def test_states_of_smaller_files(tmp_path: Path, reference: LanguageModel, wanted: str, most: float) -> None:
    llm = GGUFLanguageModel(write_llm(FOLDER, tmp_path / "llm.gguf", "nano", wanted).path, layers=[1], context="chat")
    mine, theirs = (torch.cat([text.states for text in each.states(TEXTS)]) for each in (llm, reference.select(1)))
    print(f"{wanted}, layer 1: {difference(mine, theirs):.1e}")
    assert difference(mine, theirs) < most


def test_the_interface_is_that_of_the_other_back_end(nano_file: Path, reference: LanguageModel) -> None:
    llm = GGUFLanguageModel(nano_file, layers="last", context="chat", prompt="Say it.")
    assert (llm.name, llm.hidden_size, llm.num_layers) == ("nano", reference.hidden_size, reference.num_layers)
    assert llm.tokenizer_hash == reference.tokenizer_hash and llm.sampling == reference.sampling
    assert llm.layers == [4] and llm.select([1, 2]).layers == [1, 2] and llm.select(1).weights is llm.weights
    assert llm.chat_ids(MESSAGES) == reference.chat_ids(MESSAGES) and llm._end_ids() == reference._end_ids()
    assert (llm.context, llm.prompt, llm.device) == ("chat", "Say it.", torch.device("cpu"))


@pytest.mark.parametrize("layers", ["last", 1, [0, 2, 4]], ids=str)
def test_token_and_state_come_from_the_same_decode(nano_file: Path, reference: LanguageModel, layers: object) -> None:
    """Greedy answers equal the other back end's, and each state equals that of reading the answer again."""
    llm = GGUFLanguageModel(nano_file, layers=layers, context="chat")  # type: ignore[arg-type]
    mine, theirs = (list(each.generate(MESSAGES, 24, GREEDY)) for each in (llm, reference))
    assert [token.id for token in mine] == [token.id for token in theirs] and len(mine) > 4
    assert [token.piece for token in mine] == [token.piece for token in theirs]
    reread = llm.read([llm.chat_ids(MESSAGES) + [token.id for token in mine]])[0][-len(mine) :]
    assert difference(torch.stack([token.state for token in mine]), reread) < 1e-5


def test_two_answers_at_once_and_reading_between(nano_file: Path) -> None:
    llm = GGUFLanguageModel(nano_file, context="chat")
    alone = [token.id for token in llm.generate(MESSAGES, 12, GREEDY)]
    first, second = llm.generate(MESSAGES, 12, GREEDY), llm.generate(MESSAGES, 12, GREEDY)
    mixed: list[int] = []
    for token, other in zip(first, second, strict=True):
        assert token.id == other.id and torch.equal(token.state, other.state)
        llm.states(["Something else."])
        mixed.append(token.id)
    assert mixed == alone


def test_threads_read_one_after_another(nano_file: Path) -> None:
    llm = GGUFLanguageModel(nano_file, layers=[1, 4], context="chat")
    alone = [encoded.states for text in TEXTS for encoded in llm.states([text])]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda number: llm.states([TEXTS[number % 3]])[0].states, range(60)))
    assert all(torch.equal(states, alone[number % 3]) for number, states in enumerate(together))


INTERRUPTED = """
import os, signal, sys, threading
from audio_projection.gguf import llama_cpp_runtime
from audio_projection.gguf.language_model import GGUFLanguageModel

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
llm = GGUFLanguageModel(sys.argv[1], layers=[2])
ids = llm.tokenize("Good morning, the dog said to the cat.") * 4
llm.read([ids])
over = threading.Event()


def interrupt():
    seconds = 0.5
    while not over.wait(seconds):
        os.kill(os.getpid(), signal.SIGINT)
        seconds = 5  # a second interrupt while the first is handled would fail the test on a busy machine


threading.Thread(target=interrupt).start()
try:
    while True:
        llm.read([ids])
except KeyboardInterrupt:
    over.set()
    assert sys.unraisablehook is sys.__unraisablehook__
    print("interrupted, then", len(llm.read([ids])))
"""


def test_an_interrupt_in_the_tap_is_not_lost(nano_file: Path) -> None:
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED, nano_file], capture_output=True, text=True, timeout=90
        )
        assert (done.stdout, done.stderr) == ("interrupted, then 1\n", "")


def test_the_weights_outlive_a_context_that_is_garbage_with_them(nano_file: Path) -> None:
    llm = GGUFLanguageModel(nano_file)
    llm.states(["Hello."])
    context, weights = llm._reading, weakref.ref(llm.weights)
    assert context is not None
    freed: list[bool] = []
    weakref.finalize(context, lambda: freed.append(weights() is not None))
    llm.itself, context.llm = llm, llm  # type: ignore[attr-defined]
    del llm, context
    gc.collect()
    assert freed == [True] and weights() is None


def test_no_bos_token_where_the_file_forbids_it(tmp_path: Path) -> None:
    file = read_gguf(llm_file(tmp_path))
    assert read_tokenizer(file).bos_token is not None
    forbidden = replace(file, metadata=file.metadata | {"tokenizer.ggml.add_bos_token": False})
    assert read_tokenizer(forbidden).bos_token is None


def test_end_of_answer_ids_are_found_by_name_too(tmp_path: Path) -> None:
    """Llama 3.1 has three, a file names one of them by its role."""
    llm = GGUFLanguageModel(llm_file(tmp_path), context="raw")
    eos = llm.file.metadata["tokenizer.ggml.eos_token_id"]
    assert eos in llm._end_ids() and all(llm.weights.ends_answer(end) for end in llm._end_ids())


def test_weights_that_are_nan_are_refused(tmp_path: Path) -> None:
    file = read_gguf(llm_file(tmp_path))
    data = bytearray(file.path.read_bytes())
    info = file.tensors["blk.0.ffn_down.weight"]
    data[info.start : info.start + info.size] = b"\xff" * info.size  # NaN
    file.path.write_bytes(data)
    llm = GGUFLanguageModel(file.path)
    with pytest.raises(AudioProjectionError, match="computes no finite numbers"):
        llm.states(["hello there"])


def test_sampling_is_seeded_and_that_of_the_other_back_end(nano_file: Path, reference: LanguageModel) -> None:
    llm = GGUFLanguageModel(nano_file, context="chat")
    runs = [
        [token.id for token in each.generate(MESSAGES, 12, None, torch.Generator().manual_seed(seed))]
        for each, seed in [(llm, 1), (llm, 1), (reference, 1), (llm, 2)]
    ]
    assert runs[0] == runs[1] == runs[2] != runs[3]


def test_contexts_grow_and_end(nano_file: Path, reference: LanguageModel) -> None:
    text = "the dog said " * 90
    llm = GGUFLanguageModel(nano_file, layers=[1, 4], context="chat")
    assert difference(llm.states([text])[0].states, reference.select([1, 4]).states([text])[0].states) < 1e-5
    answer = list(llm.generate([{"role": "user", "content": text}], 200, Choice(temperature=3.0)))
    assert len(llm.chat_ids([{"role": "user", "content": text}])) + len(answer) <= 512
    short = GGUFLanguageModel(nano_file, settings=RunSettings(context=64))
    with pytest.raises(AudioProjectionError, match="gguf.context allows 64"):
        short.states([text])


@pytest.mark.parametrize("memory", ["mmap", "copy"])
def test_memory_modes(nano_file: Path, memory: str) -> None:
    llm = GGUFLanguageModel(nano_file, settings=RunSettings(threads=1, memory=memory))
    assert llm.states(TEXTS[:1])[0].states.isfinite().all()
    with pytest.raises(AudioProjectionError, match="choose one of mmap, copy, lock"):
        RunSettings(memory="disk")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory by file is reported on Linux only")
def test_a_mapped_file_takes_the_memory_of_what_is_used(nano_file: Path, tmp_path: Path) -> None:
    path = Path(shutil.copyfile(nano_file, tmp_path / "a name with spaces, é.gguf"))
    size, llm = path.stat().st_size, GGUFLanguageModel(path, layers=1)
    assert resident_bytes(path) < 0.05 * size, "nothing has been used yet"
    llm.states(["The old dog slept beside the warm stove."])
    first = resident_bytes(path)
    assert 0.05 * size < first < 0.6 * size, "embeddings and the first layer"
    llm.select([4]).states(["The old dog slept beside the warm stove."])
    assert resident_bytes(path) > 1.5 * first


def resident_bytes(path: Path) -> int:
    """Resident bytes of a mapped file in this process."""
    resident, here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            here = line.endswith(str(path))
        elif here and line.startswith("Rss:"):
            resident += 1024 * int(line.split()[1])
    return resident


def test_cached_states_belong_to_one_file(nano_file: Path, tmp_path: Path) -> None:
    llm = GGUFLanguageModel(nano_file, layers=[1])
    copied = Path(shutil.copy(nano_file, tmp_path / "copy.gguf"))
    assert cached_states.conditions(llm, "none") == cached_states.conditions(
        GGUFLanguageModel(copied, layers=[1]), "none"
    )
    changed = bytearray(copied.read_bytes())
    changed[-1] ^= 1
    copied.write_bytes(changed)
    assert GGUFLanguageModel(copied, layers=[1]).fingerprint != llm.fingerprint
    (kept,), text = cached_states.compute(llm, TEXTS[:1]), TEXTS[0]
    states = cached_states.CachedStates(kept, cached_states.conditions(llm, "none"))
    cached_states.check([states], llm, "none")
    assert difference(cached_states.restore(llm, text, states).states, llm.states([text])[0].states) < 1e-2


def test_llama_3s_rope_scaling(tmp_path: Path) -> None:
    """The frequencies of Llama 3.1, at a toy size: without them the states differ in the first digit."""
    torch.manual_seed(0)
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        rope_parameters=scaling,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "llm")
    make_tokenizer().save_pretrained(tmp_path / "llm")
    file = write_llm(tmp_path / "llm", tmp_path / "llm.gguf", "tiny", "F32")
    assert file.tensors["rope_freqs.weight"].shape == (16,) and "output.weight" not in file.tensors
    llm, reference = GGUFLanguageModel(file.path, layers=[1, 2]), LanguageModel.from_pretrained(tmp_path / "llm")
    text = "the dog said hello and the fox jumps over the lazy dog " * 4
    mine, theirs = llm.states([text])[0], reference.select([1, 2]).states([text])[0]
    assert len(mine.ids) > 64 and difference(mine.states, theirs.states) < 1e-5


def tokenizers_agree(mine: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase, texts: list[str]) -> None:
    assert vocabulary_hash(mine) == vocabulary_hash(theirs)
    for text in texts:
        for options in ({"split_special_tokens": True}, {}):
            ids = theirs(text, add_special_tokens=False, **options)["input_ids"]
            assert mine(text, add_special_tokens=False, **options)["input_ids"] == ids, text


HARD = ["It's 1984,  isn't it?\n\nYes… <|eot_id|>", "Grüße, 世界 🙂 12345", "  a\tb\r\n c", "e\u0301 o\u0308", "x" * 50]


def test_ids_are_those_of_the_real_llama_3_tokenizer(tmp_path: Path, shared: Path, repository: Path) -> None:
    """A file of the vocabulary alone, read back; and llama.cpp's own tokenizer agrees on the held-out sentences."""
    real = real_tokenizer(shared, "llama3")
    keys = vocabulary_keys(real.backend_tokenizer, len(real) + 8)
    file = write_gguf(tmp_path / "vocabulary.gguf", "llama", keys, [], "F32")
    lines = (repository / "benchmarks" / "heldout.txt").read_text(encoding="utf-8").splitlines()
    tokenizers_agree(read_tokenizer(read_gguf(file.path)), real, [*lines[:100], *HARD])
    assert llama_cpp_ids(file.path, lines[0]) == real(lines[0], add_special_tokens=False)["input_ids"]


def llama_cpp_ids(path: Path, text: str) -> list[int]:
    import ctypes

    from llama_cpp import llama_cpp as library

    from audio_projection.gguf.llama_cpp_runtime import quiet_library

    quiet_library()
    parameters = library.llama_model_default_params()
    parameters.vocab_only = True
    model = library.llama_model_load_from_file(str(path).encode(), parameters)
    ids = (ctypes.c_int32 * 200)()
    written = text.encode()
    count = library.llama_tokenize(library.llama_model_get_vocab(model), written, len(written), ids, 200, False, False)
    library.llama_model_free(model)
    return list(ids[:count])


def test_ids_are_those_of_the_bundled_tokenizer(nano_file: Path, repository: Path) -> None:
    lines = (repository / "benchmarks" / "heldout.txt").read_text(encoding="utf-8").splitlines()
    tokenizers_agree(read_tokenizer(read_gguf(nano_file)), AutoTokenizer.from_pretrained(FOLDER), [*lines, *HARD])


def test_special_tokens_in_front_of_the_others(tmp_path: Path) -> None:
    tokenizers_agree(read_tokenizer(read_gguf(llm_file(tmp_path))), make_tokenizer(), ["hello <|end|> there", *HARD])


def test_what_passes_the_checks_never_ends_the_process(tmp_path: Path, repository: Path) -> None:
    """500 mutations of a file without a seal; those that pass the checks are loaded and run in another process."""
    whole = unsealed(llm_file(tmp_path))
    header = min(info.start for info in read_gguf(whole).tensors.values())
    passed = tmp_path / "passed"
    passed.mkdir()
    refused = 0
    for number, mutation in enumerate(damaged(whole.read_bytes(), header, 500, seed=9)):
        path = passed / f"{number}.gguf"
        path.write_bytes(mutation)
        try:
            read_tokenizer(check_llm(path))
        except AudioProjectionError:
            path.unlink()
            refused += 1
    assert refused > 400
    command = [sys.executable, __file__, *map(str, sorted(passed.iterdir()))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(repository / name) for name in ("src", "tests"))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"{len(list(passed.iterdir()))} files"


def test_other_architectures_are_left_to_llama_cpps_converter(tmp_path: Path) -> None:
    from transformers import Qwen3Config

    Qwen3Config(hidden_size=32, num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(AudioProjectionError, match="convert_hf_to_gguf.py and give it with --llm"):
        write_llm(tmp_path, tmp_path / "x.gguf", "x")


def test_the_embedding_table_is_that_of_the_checkpoint(nano_file: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    table = torch.from_numpy(read_gguf(nano_file).array("token_embd.weight"))
    assert torch.equal(table, model.get_input_embeddings().weight.detach())


if __name__ == "__main__":
    torch.set_num_threads(1)
    for argument in sys.argv[1:]:
        print(argument, flush=True)
        try:
            GGUFLanguageModel(argument, layers=[0, 1, 4]).states(["hello there"])
        except AudioProjectionError as error:
            print(error)
    print(f"{len(sys.argv) - 1} files")


def test_a_next_turn_reads_only_what_is_new(nano_file: Path) -> None:
    """With the keys and values that llama.cpp keeps, the answer is that of reading everything."""
    llm, cache = GGUFLanguageModel(nano_file, context="chat"), PrefixCache()
    first = list(llm.generate(MESSAGES, 12, GREEDY, None, cache))
    said = b"".join(token.piece for token in first).decode()
    turns = [*MESSAGES, {"role": "assistant", "content": said}, {"role": "user", "content": "And then?"}]
    fresh = [token.id for token in llm.generate(turns, 12, GREEDY)]
    assert [token.id for token in llm.generate(turns, 12, GREEDY, None, cache)] == fresh
    assert cache.reused >= len(llm.chat_ids(MESSAGES))
    assert [token.id for token in llm.generate(MESSAGES, 12, GREEDY, None, cache)] == [token.id for token in first]
    assert cache.reused == len(llm.chat_ids(MESSAGES)) - 1
