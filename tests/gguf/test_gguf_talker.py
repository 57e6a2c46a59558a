"""Talker and code predictor from GGUF files: the codes of the torch path, and the agreement of quantised files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

pytest.importorskip("gguf", reason="the gguf package is not installed (audio-projection[gguf])")
pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.export import Export
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.gguf.decoder_stack import load_gguf_tts
from audio_projection.gguf.quantise import quantise, unexpected_types
from audio_projection.gguf.reader import read_gguf
from audio_projection.gguf.talker_file import Checkpoint, write_predictor, write_talker
from audio_projection.tts import Qwen3TTS, Sampling, generate
from audio_projection.tts.engine.engine import Engine
from audio_projection.tts.engine.text import WholeText
from audio_projection.tts.engine.utterance import Request
from audio_projection.tts.generate import stream
from audio_projection.tts.prompt import special_embeddings, text_prompt
from helpers.gguf_files import projector_file, tiny_projector
from helpers.nano import SPEAKER

FOLDER = NANO_FOLDER / "tts"
TEXT, SHORT = "the river was wide and the king stood on the other side", "good morning"


@pytest.fixture(scope="module")
def torch_tts() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """F32 files of nano, and the rest of its folder."""
    folder = tmp_path_factory.mktemp("exported é")
    for line in Export(Config(), "linear", "F32", "F32").everything(folder):
        assert str(folder) in line
    return folder


@pytest.fixture(scope="module")
def gguf_tts(exported: Path) -> Qwen3TTS:
    return load_gguf_tts(exported / "tts", exported / "talker.gguf", exported / "predictor.gguf")


def embeddings_of(tts: Qwen3TTS, text: str) -> Tensor:
    return tts.text_embeddings(torch.tensor(tts.tokenize(text)[0]))


@pytest.mark.parametrize("layout", ["streaming", "nonstreaming"])
def test_f32_gives_the_codes_of_torch(torch_tts: Qwen3TTS, gguf_tts: Qwen3TTS, layout: str) -> None:
    """Greedy, a batch of two whose prompts differ in length, as the torch path decodes them one by one."""
    codes = {}
    for name, tts in {"torch": torch_tts, "gguf": gguf_tts}.items():
        prompts = [(tts.prefix(SPEAKER, "english"), embeddings_of(tts, text)) for text in (TEXT, SHORT)]
        codes[name] = generate(tts, prompts, layout, Sampling.greedy(), max_frames=40)
    for mine, theirs in zip(codes["gguf"], codes["torch"], strict=True):
        assert len(mine) > 5 and torch.equal(mine, theirs)


def test_streaming_one_utterance_and_growing_memory(torch_tts: Qwen3TTS, gguf_tts: Qwen3TTS) -> None:
    """Beyond the 256 positions of a new context; the same seed samples the same codes."""
    codes = []
    for tts in (torch_tts, gguf_tts):
        embeddings = embeddings_of(tts, " ".join([TEXT] * 12))
        frames = stream(tts, tts.prefix(SPEAKER, "english"), embeddings, "streaming", None, 3, 270)
        codes.append(torch.stack(list(frames)))
    assert len(codes[0]) > 100 and torch.equal(*codes)


def test_utterances_join_while_others_are_spoken(gguf_tts: Qwen3TTS) -> None:
    """Each has the codes that it has alone."""
    prefix, texts = gguf_tts.prefix(SPEAKER, "english"), (TEXT, SHORT, TEXT[10:], SHORT)

    def request(number: int) -> Request:
        prompt = text_prompt(gguf_tts, prefix, embeddings_of(gguf_tts, texts[number]), "streaming")
        return Request(prompt, WholeText(gguf_tts, prompt), seed=number, max_frames=30)

    alone = [torch.stack(list(Engine(gguf_tts, slots=1).submit(request(number)))) for number in range(4)]
    engine, running = Engine(gguf_tts, slots=3), []
    for number in range(4):
        running.append(engine.submit(request(number)))
        for _ in range(3):
            engine.step()
    for utterance, codes in zip(running, alone, strict=True):
        assert torch.equal(torch.stack(list(utterance)), codes)


def argmaxes(tts: Qwen3TTS, embeddings: Tensor, codes: Tensor) -> Tensor:
    """Most likely codes (T, G) of talker and code predictor, teacher-forced with `codes` (T, G)."""
    prompt = text_prompt(tts, tts.prefix(SPEAKER, "english"), embeddings, "nonstreaming")
    talker = tts.talker.transformer.begin(1, 64, prompt.embeds)
    talker.prefill(0, [prompt.embeds])
    predictor, last, pad = tts.code_predictor, prompt.last, special_embeddings(tts).pad
    size, predicted = predictor.config.vocab_size, []
    for frame in codes:
        talker.prepare(1)
        hidden = talker.step((pad + last)[None])
        talker.advance(1)
        chosen = [tts.talker.logits(hidden)[0, :size].argmax()]
        steps = predictor.transformer.begin_frames(1, len(frame), hidden)
        embedded = tts.talker.codec_embedding(frame[:1])
        state = steps.begin(predictor.small_to_mtp_projection(hidden), predictor.small_to_mtp_projection(embedded))
        for group in range(len(frame) - 1):
            if group:
                state = steps.step(predictor.small_to_mtp_projection(embedded))
            chosen.append(functional.linear(state, predictor.lm_head[group])[0].argmax())
            embedded = predictor.codec_embedding[group, frame[group + 1]][None]
        predicted.append(torch.stack(chosen))
        last = tts.frame_embedding(frame[None])[0]
    return torch.stack(predicted)


@pytest.fixture(scope="module")
def spoken(torch_tts: Qwen3TTS) -> tuple[Tensor, Tensor]:
    """(text embeddings, codes) of one sentence, by the torch path."""
    embeddings = embeddings_of(torch_tts, TEXT)
    prompts = [(torch_tts.prefix(SPEAKER, "english"), embeddings)]
    return embeddings, generate(torch_tts, prompts, "nonstreaming", Sampling.greedy(), max_frames=60)[0]


@pytest.mark.parametrize(("wanted", "least"), [("F32", 1.0), ("F16", 0.99), ("Q8_0", 0.95)])
def test_agreement_when_every_frame_before_is_given(
    torch_tts: Qwen3TTS, exported: Path, spoken: tuple[Tensor, Tensor], tmp_path: Path, wanted: str, least: float
) -> None:
    talker = write_talker(Checkpoint.from_folder(FOLDER), tmp_path / "talker.gguf", wanted).path
    predictor = write_predictor(Checkpoint.from_folder(FOLDER), tmp_path / "predictor.gguf", wanted).path
    with torch.inference_mode():
        mine = argmaxes(load_gguf_tts(exported / "tts", talker, predictor), *spoken)
        theirs = argmaxes(torch_tts, *spoken)
    agreement = float((mine == theirs).float().mean())
    print(f"{wanted}: {agreement:.4f} of {mine.numel()} argmaxes")
    assert mine.numel() > 150 and agreement >= least


def test_k_quants_say_what_each_tensor_became(exported: Path, spoken: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    file = quantise(exported / "talker.gguf", tmp_path / "talker é.gguf", "Q4_K_M", 1)
    kinds = {info.type for info in file.tensors.values() if len(info.shape) > 1}
    assert kinds == {"Q4_K", "Q6_K"} and not unexpected_types(file, "Q4_K_M")
    predictor = quantise(exported / "predictor.gguf", tmp_path / "predictor.gguf", "Q4_K_M", 1)
    tts = load_gguf_tts(exported / "tts", file.path, predictor.path)
    with torch.inference_mode():
        assert argmaxes(tts, *spoken).shape == spoken[1].shape


def test_rows_that_no_block_divides_are_reported(parity: Path, tmp_path: Path) -> None:
    file = write_predictor(Checkpoint.from_folder(parity / "tiny_base"), tmp_path / "predictor.gguf", "F16")
    small = quantise(file.path, tmp_path / "small.gguf", "Q4_K_M", 1)
    unexpected = unexpected_types(small, "Q4_K_M")
    assert unexpected and all("rows of" in line for line in unexpected)


@pytest.fixture
def parity(repository: Path) -> Path:
    return repository / "tests" / "fixtures" / "parity"


def test_the_predictors_down_projection_stays_exact(tmp_path: Path) -> None:
    file = write_predictor(Checkpoint.from_folder(FOLDER), tmp_path / "predictor.gguf", "F16")
    kinds = {info.name.split(".")[-2]: info.type for info in file.tensors.values() if len(info.shape) > 1}
    assert kinds["ffn_down"] == "F32" and kinds["ffn_up"] == "F16"


def test_files_of_another_tts_are_refused(exported: Path, parity: Path, tmp_path: Path) -> None:
    tts, talker, predictor = (exported / name for name in ("tts", "talker.gguf", "predictor.gguf"))
    with pytest.raises(AudioProjectionError, match="is no 'qwen3tts' file"):
        load_gguf_tts(tts, predictor, talker)
    with pytest.raises(AudioProjectionError, match="is no 'qwen3tts' file"):
        load_gguf_tts(tts, projector_file(tmp_path), predictor)
    other = write_predictor(Checkpoint.from_folder(parity / "tiny_base"), tmp_path / "other.gguf", "F32").path
    with pytest.raises(AudioProjectionError, match="belongs to another TTS"):
        load_gguf_tts(tts, talker, other)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(talker.read_bytes()[:-100_000])
    with pytest.raises(AudioProjectionError, match="damaged"):
        load_gguf_tts(tts, cut, predictor)


def test_the_talkers_layout_is_llama_cpps_own(exported: Path, torch_tts: Qwen3TTS) -> None:
    file, config = read_gguf(exported / "talker.gguf"), torch_tts.config
    assert file.architecture == "qwen3tts" and file.metadata["qwen3tts.rope.dimension_sections"] == [12, 10, 10, 0]
    table = torch.from_numpy(file.array("token_embd.weight"))
    texts = config.talker.text_vocab_size
    torch.testing.assert_close(
        table[:texts], torch_tts.text_embeddings(torch.arange(texts)).detach(), atol=1e-5, rtol=0
    )
    assert torch.equal(table[texts : texts + config.talker.vocab_size], torch_tts.talker.codec_embedding.weight)
    assert file.metadata["tokenizer.ggml.eos_token_id"] == texts + config.talker.codec_eos
    assert config.talker.codec_eos + texts not in file.metadata["tokenizer.ggml.suppress_tokens"]


def test_no_training_through_llama_cpp(gguf_tts: Qwen3TTS) -> None:
    with pytest.raises(AudioProjectionError, match="tts.backend=torch"):
        gguf_tts.talker(torch.zeros(1, 3, gguf_tts.config.hidden_size))


def test_another_llm_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    from helpers.gguf_files import llm_file

    export = Export(Config(), "linear", "F32", "F32", llm_file(tmp_path))
    with pytest.raises(AudioProjectionError, match="another tokenizer: the projector was trained with 'nano'"):
        list(export.everything(tmp_path / "out"))
    assert not (tmp_path / "out").exists() and tiny_projector().kind == "linear"
