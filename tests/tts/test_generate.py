"""Autoregressive decoding: batches, live text, sampling, the length guard; teacher forcing equals decoding."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.tts import Choice, Decoder, Qwen3TTS, Sampling, clone_prefill, decode, generate, stream
from audio_projection.tts.config import TransformerConfig
from audio_projection.tts.decode_step import FrameStepper
from audio_projection.tts.engine.utterance import LengthGuard
from audio_projection.tts.layers import KVCache
from audio_projection.tts.prompt import special_embeddings, text_prompt, training_sequence
from audio_projection.tts.transformer import Transformer
from helpers import parity_kit

LAYOUTS = ["streaming", "nonstreaming"]
LONG, SHORT = "hello there the quick brown fox", "lazy dog"
GREEDY = Sampling.greedy()


@pytest.fixture(scope="module")
def tts() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(parity_kit.checkpoint("tiny_custom_voice"))


@pytest.fixture(scope="module")
def odd() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(parity_kit.checkpoint("odd"))


def utterance(
    tts: Qwen3TTS, text: str, speaker: str | None = "ada", language: str = "english"
) -> tuple[Tensor, Tensor]:
    return tts.prefix(speaker, language), tts.text_embeddings(torch.tensor(tts.tokenize(text)[0]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_gives_what_each_gives_alone(odd: Qwen3TTS, layout: str) -> None:
    prompts = [utterance(odd, LONG, "eve"), utterance(odd, SHORT, "dan", "auto"), utterance(odd, "the fox", None)]
    together = generate(odd, prompts, layout, GREEDY, max_frames=12)
    for prompt, codes in zip(prompts, together, strict=True):
        assert codes.shape == (12, 6)
        assert torch.equal(codes, generate(odd, [prompt], layout, GREEDY, max_frames=12)[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stream_gives_what_the_whole_gives(odd: Qwen3TTS, layout: str) -> None:
    prefix, embeddings = utterance(odd, LONG, "eve")
    frames = list(stream(odd, prefix, iter(embeddings), layout, GREEDY, max_frames=14))
    assert torch.equal(torch.stack(frames), generate(odd, [(prefix, embeddings)], layout, GREEDY, max_frames=14)[0])


def test_nothing_follows_the_end_of_speech() -> None:
    tts = Qwen3TTS.from_pretrained(parity_kit.checkpoint("tiny_voice_design"))
    prompt = (tts.prefix(None, "english", "the user"), utterance(tts, LONG, None)[1])
    codes = generate(tts, [prompt], sampling=GREEDY)[0]
    assert 0 < len(codes) < LengthGuard(tts, None).limit(len(prompt[1]))
    assert codes.max() < tts.config.predictor.vocab_size
    assert torch.equal(torch.stack(list(stream(tts, *prompt, sampling=GREEDY))), codes)


def test_a_stream_takes_one_embedding_a_frame_and_never_reads_ahead(odd: Qwen3TTS) -> None:
    prefix, embeddings = utterance(odd, LONG, "eve")
    pulled = 0

    def counted() -> Iterator[Tensor]:
        nonlocal pulled
        for embedding in embeddings:
            pulled += 1
            yield embedding

    for frame, _ in enumerate(stream(odd, prefix, counted(), sampling=GREEDY, max_frames=len(embeddings) + 2)):
        assert pulled == min(frame + 1, len(embeddings))


def test_a_slow_text_stalls_the_stream(odd: Qwen3TTS) -> None:
    """Frames do not depend on the pace of the text: the stream waits instead of padding."""
    prefix, embeddings = utterance(odd, LONG, "eve")
    text: queue.Queue[Tensor | None] = queue.Queue()
    frames: list[Tensor] = []
    limit = len(embeddings) + 3

    def listen() -> None:
        for frame in stream(odd, prefix, iter(text.get, None), sampling=GREEDY, max_frames=limit):
            frames.append(frame)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    for embedding in embeddings[:3]:
        text.put(embedding)
    deadline = time.monotonic() + 60
    while len(frames) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(frames) == 3 and listener.is_alive()
    for late in [*embeddings[3:], None]:
        text.put(late)
    listener.join(60)
    assert torch.equal(torch.stack(frames), generate(odd, [(prefix, embeddings)], sampling=GREEDY, max_frames=limit)[0])


def test_projected_embeddings_replace_text_embeddings(odd: Qwen3TTS) -> None:
    """Embeddings that require gradients are decoded as well; the codes belong to no graph and to no inference mode."""
    prefix, embeddings = utterance(odd, SHORT, "eve")
    projected = (embeddings.clone().requires_grad_() * 1.0,)
    codes = generate(odd, [(prefix, projected[0])], sampling=GREEDY, max_frames=4)[0]
    assert torch.equal(codes, generate(odd, [(prefix, embeddings)], sampling=GREEDY, max_frames=4)[0])
    frame = next(stream(odd, prefix, projected[0], sampling=GREEDY, max_frames=1))
    assert odd.frame_embedding(frame).shape == (32,) and not frame.is_inference() and not codes.is_inference()


@pytest.mark.skipif(torch.__version__ < (2, 13), reason="torch.multinomial drew otherwise before torch 2.13")
def test_sampling_gives_the_codes_of_the_official_package(tts: Qwen3TTS) -> None:
    sampled = load_file(parity_kit.FIXTURES / "tiny_custom_voice.sampled.safetensors")
    prompts = [text_prompt(tts, *utterance(tts, *one), "streaming") for one in ((LONG,), (SHORT, "bo", "auto"))]
    nucleus = Sampling(
        Choice(temperature=1.3, top_k=0, top_p=0.8),
        Choice(temperature=1.0, top_k=7, top_p=0.6),
        repetition_penalty=1.05,
    )
    for name, sampling in (("sampled", None), ("nucleus", nucleus)):
        decoder = Decoder(tts, prompts, sampling or tts.sampling, torch.Generator().manual_seed(11))
        pad, frames = special_embeddings(tts).pad, []
        for step in range(16):
            texts = [prompt.text_embeddings for prompt in prompts]
            frames.append(decoder.step(torch.stack([text[step] if step < len(text) else pad for text in texts])))
        codes, ended = (torch.stack(each, 1) for each in zip(*frames, strict=True))
        for index in range(2):
            length = int(ended[index].int().argmax()) if bool(ended[index].any()) else 16
            assert torch.equal(codes[index, :length], sampled[f"{name}.codes.{index}"]), (name, index)


def test_a_seed_makes_sampling_repeatable(odd: Qwen3TTS) -> None:
    prompt = [utterance(odd, SHORT, "eve")]

    def sampled(seed: int) -> Tensor:
        return generate(odd, prompt, seed=seed, max_frames=6)[0]

    first = sampled(1)
    torch.manual_seed(99)  # the global state plays no part
    assert torch.equal(first, sampled(1)) and not torch.equal(first, sampled(2))


def test_the_guard_ends_what_does_not_end(
    odd: Qwen3TTS, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LengthGuard, "SECONDS", 0.4)
    monkeypatch.setattr(LengthGuard, "SECONDS_PER_TOKEN", 0.08)
    prefix, embeddings = utterance(odd, SHORT, "eve")
    endless = generate(odd, [(prefix, embeddings), utterance(odd, LONG, "eve")], sampling=GREEDY)
    assert [len(codes) for codes in endless] == [5 + len(embeddings), 5 + len(utterance(odd, LONG, "eve")[1])]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "no end of speech" in caplog.records[0].getMessage()
    caplog.clear()
    assert len(list(stream(odd, prefix, embeddings, sampling=GREEDY))) == 5 + len(embeddings)
    assert len(caplog.records) == 1
    caplog.clear()
    assert len(generate(odd, [(prefix, embeddings)], sampling=GREEDY, max_frames=3)[0]) == 3
    assert not caplog.records  # no warning about a limit that the caller set


def test_the_guard_leaves_slow_speech_alone(odd: Qwen3TTS) -> None:
    guard = LengthGuard(odd, None)
    for tokens in (1, 5, 40, 200):
        seconds = guard.limit(tokens) / odd.frame_rate
        assert seconds > 3 * 0.4 * tokens and seconds > 6
    assert guard.limit(10**6) == 8191  # generation_config.json: max_new_tokens
    with pytest.raises(AudioProjectionError, match="max_frames is 0"):
        LengthGuard(odd, 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_teacher_forcing_sees_what_decoding_sees(odd: Qwen3TTS, layout: str) -> None:
    prefix, embeddings = utterance(odd, LONG, "dan", "auto")
    decoder, frames = Decoder(odd, [text_prompt(odd, prefix, embeddings, layout)], GREEDY), []
    coming = [*text_prompt(odd, prefix, embeddings, layout).text_embeddings, *[special_embeddings(odd).pad] * 20][:13]
    hidden = []
    for embedding in coming[:-1]:
        frames.append(decoder.step(embedding[None])[0][0])
        hidden.append(decoder.hidden[0])
    decoder.advance(coming[-1][None])
    hidden.append(decoder.hidden[0])
    codes = torch.stack(frames).clone()
    sequence = training_sequence(odd, prefix, embeddings, codes, layout)
    states = odd.talker(sequence.embeds[None])[0, sequence.first :]
    assert states.shape[0] == len(codes) + 1  # the last one predicts the end
    torch.testing.assert_close(states, torch.stack(hidden).clone(), atol=2e-5, rtol=1e-4)
    logits = odd.code_predictor(states[:-1], codes)
    assert torch.equal(logits.argmax(-1), codes[:, 1:])


def test_training_reaches_the_text_embeddings_and_leaves_padding_alone(odd: Qwen3TTS) -> None:
    prefix, embeddings = utterance(odd, LONG, "eve")
    embeddings = embeddings.clone().requires_grad_()
    codes = torch.randint(0, 64, (3, 6), generator=torch.Generator().manual_seed(0))
    short = training_sequence(odd, prefix, embeddings, codes, "streaming")
    whole = training_sequence(odd, prefix, embeddings, codes, "nonstreaming")
    size = len(short.embeds)
    padded = torch.stack((torch.cat((short.embeds, torch.ones(len(whole.embeds) - size, 32))), whole.embeds))
    states = odd.talker(padded, torch.tensor([size, len(whole.embeds)]))
    assert not states[0, size:].any()
    torch.testing.assert_close(states[0, :size], odd.talker(short.embeds[None])[0])
    (gradient,) = torch.autograd.grad(states[0].square().sum(), embeddings, retain_graph=True)
    assert gradient[:4].abs().sum(1).min() > 0 and not gradient[4:].any()  # 3 frames and the end use 4 embeddings
    (gradient,) = torch.autograd.grad(states[1].square().sum(), embeddings)
    assert gradient.abs().sum(1).min() > 0


def test_refused_input(tts: Qwen3TTS) -> None:
    prefix, embeddings = utterance(tts, SHORT)
    with pytest.raises(AudioProjectionError, match="unknown speaker 'eva'; choose one of ada, bo"):
        tts.prefix("eva")
    with pytest.raises(AudioProjectionError, match="unknown language 'klingon'; choose one of auto, english, chinese"):
        tts.prefix("ADA", "klingon")
    with pytest.raises(AudioProjectionError, match=r"voice vector has shape \(3,\), this checkpoint needs \(64,\)"):
        tts.prefix(torch.zeros(3))
    with pytest.raises(AudioProjectionError, match="unknown layout 'live'"):
        generate(tts, [(prefix, embeddings)], "live")
    with pytest.raises(AudioProjectionError, match="no text"):
        next(stream(tts, prefix, iter(())))
    with pytest.raises(AudioProjectionError, match="at least 1"):
        next(stream(tts, prefix, iter(()), "nonstreaming"))
    with pytest.raises(AudioProjectionError, match="a text embedding has shape"):
        next(stream(tts, prefix, embeddings[:, :5]))
    with pytest.raises(AudioProjectionError, match="reference codes have shape"):
        clone_prefill(tts, prefix, embeddings, embeddings, torch.zeros(4, 3, dtype=torch.int64), "streaming")
    assert decode(tts, []) == []


def test_a_dialect_belongs_to_its_speaker(odd: Qwen3TTS) -> None:
    """Automatic and Chinese become the dialect; any other language stays (official: Qwen3TTS generate)."""
    plain, dialect = odd.prefix("eve", "Auto"), odd.prefix("dan", "Auto")
    assert len(dialect) == len(plain) + 1  # a language tag was put in
    assert torch.equal(odd.prefix("dan", "Chinese"), dialect)
    assert not torch.equal(odd.prefix("dan", "English"), dialect)
    assert "x_dialect" not in odd.config.language_names


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("starts", [[0, 0, 0], [0, 2, 1]])
def test_steps_equal_the_whole_pass(window: int | None, starts: list[int]) -> None:
    """Grouped heads, windows, sequences of different lengths, a cache that has to grow twice."""
    config = TransformerConfig(24, 20, 2, 6, 2, 8, attention_bias=True, windows=(window, None))
    generator = torch.Generator().manual_seed(0)
    model = Transformer(config).requires_grad_(False)
    for weight in model.parameters():
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    inputs = torch.randn(3, 70, 24, generator=generator)
    with torch.inference_mode():
        stepper = model.begin(1, 5, inputs)
        first = stepper.prefill(0, [inputs[slot, :2] for slot in range(3)])
        rest = stepper.prefill(0, [inputs[slot, 2 : 4 - start] for slot, start in enumerate(starts)])
        states = [[*first[slot], *rest[slot, : 2 - start]] for slot, start in enumerate(starts)]
        for position in range(4, 70):
            stepper.prepare(3)
            given = torch.stack([inputs[slot, position - start] for slot, start in enumerate(starts)])
            for slot, state in enumerate(stepper.step(given)):
                states[slot].append(state)
            stepper.advance(3)
    whole = model(inputs)
    for slot, start in enumerate(starts):
        stepped = torch.stack(states[slot]).clone()
        torch.testing.assert_close(stepped, whole[slot, : 70 - start], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 1, 3])
def test_frames_equal_the_whole_pass(window: int | None) -> None:
    config = TransformerConfig(24, 20, 2, 6, 2, 8, windows=(window, None))
    generator = torch.Generator().manual_seed(0)
    model = Transformer(config).requires_grad_(False)
    for weight in model.parameters():
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    inputs = torch.randn(3, 7, 24, generator=generator)
    whole = model(inputs)
    with torch.inference_mode():
        stepper = FrameStepper(model, KVCache(config, 1, 7, inputs))
        for count in (3, 1, 2):  # used again, also after it has grown
            begun = stepper.begin(inputs[:count, 0], inputs[:count, 1])
            states = torch.stack([begun, *(stepper.step(inputs[:count, position]) for position in range(2, 7))], 1)
            torch.testing.assert_close(states.clone(), whole[:count, 1:], atol=1e-5, rtol=1e-5)
