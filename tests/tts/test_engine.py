"""The engine: utterances join, wait, leave and are cancelled at any frame, and each gets what it would get alone."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import NANO_FOLDER
from audio_projection.sampling import Choice, Sampling, derived_seed, exponential_noise
from audio_projection.tts import Decoder, Qwen3TTS
from audio_projection.tts.decode_step import bucket
from audio_projection.tts.engine.engine import Engine
from audio_projection.tts.engine.graphs import DirectCalls
from audio_projection.tts.engine.slots import PREFILL_PIECE
from audio_projection.tts.engine.text import FedText, PulledText, WholeText
from audio_projection.tts.engine.utterance import Request, Utterance
from audio_projection.tts.prompt import Prompt, open_prompt, special_embeddings, text_prompt
from helpers import parity_kit

GREEDY = Sampling.greedy(1.0)
WORDS = [
    "the",
    "river",
    "was",
    "wide",
    "and",
    "cold",
    "in",
    "may",
    "so",
    "we",
    "went",
    "home",
    "by",
    "the",
    "old",
    "road",
    "over",
    "a",
    "hill",
    "with",
    "her",
    "friend",
]
CHUNKS = (1, 2, 4, 8, 12)


@pytest.fixture(scope="module")
def nano() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(NANO_FOLDER / "tts")


@pytest.fixture(scope="module")
def odd() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(parity_kit.checkpoint("odd"))


def prompt_of(tts: Qwen3TTS, text: str, layout: str = "nonstreaming") -> Prompt:
    speaker = next(iter(tts.config.talker.speakers))
    return text_prompt(tts, tts.prefix(speaker), tts.text_embeddings(torch.tensor(tts.tokenize(text)[0])), layout)


def request(
    tts: Qwen3TTS, text: str, number: int = 0, chunks: tuple[int, ...] | None = None, limit: int = 30
) -> Request:
    prompt = prompt_of(tts, text, ("nonstreaming", "streaming")[number % 2])
    return Request(prompt, WholeText(tts, prompt), derived_seed(5, number), limit, chunks)


def sentences(count: int, seed: int = 0, words: tuple[int, int] = (3, 12)) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(*words))) for _ in range(count)]


def alone(tts: Qwen3TTS, wanted: Request, sampling: Sampling = GREEDY) -> Tensor:
    """What an utterance is in an engine of its own: (T, G), or (S,) with chunks."""
    parts = list(Engine(tts, sampling, slots=1).submit(wanted))
    return torch.stack(parts) if wanted.chunks is None else torch.cat(parts)


def whole(utterance: Utterance) -> Tensor:
    parts = list(utterance)
    return torch.stack(parts) if utterance.request.chunks is None else torch.cat(parts)


def test_buckets_hold_what_they_must_and_little_more() -> None:
    sizes = [bucket(length) for length in range(1, 5000)]
    assert all(length <= size for length, size in enumerate(sizes, 1)) and sizes == sorted(sizes)
    assert all(size <= 1.51 * length for length, size in enumerate(sizes, 1) if length > 128)
    assert len(set(sizes)) < 20


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(Choice(temperature=0.7), Choice(temperature=0.6), 1.1)])
def test_fifty_utterances_that_join_at_random_frames(nano: Qwen3TTS, sampling: Sampling) -> None:
    """In eight slots, each has the codes that it has alone; sampled ones too, whatever its slot and neighbours."""
    draw = random.Random(1)
    count = 50 if sampling is GREEDY else 16
    requests = [request(nano, text, number) for number, text in enumerate(sentences(count))]
    engine, utterances, most = Engine(nano, sampling, slots=8), [], 0
    while len(utterances) < count or engine.active:
        for _ in range(draw.choice((0, 0, 0, 1, 1, 3)) if len(utterances) < count else 0):
            if len(utterances) < count:
                utterances.append(engine.submit(requests[len(utterances)]))
        engine.step()
        most = max(most, engine.active)
    assert most == 8
    for number, utterance in enumerate(utterances):
        again = request(nano, sentences(count)[number], number)
        assert torch.equal(whole(utterance), alone(nano, again, sampling)), number


def test_logits_on_given_codes_do_not_depend_on_slots_or_shapes(odd: Qwen3TTS) -> None:
    """Teacher-forced: the same texts and codes through one slot of its own position (dynamic shapes), through static
    shapes of one slot, and through five slots whose utterances began at other times and change places."""
    texts, pad = sentences(5, 3, (4, 9)), special_embeddings(odd).pad
    prompts = [prompt_of(odd, text) for text in texts]
    codes = torch.randint(0, 64, (5, 80, odd.config.code_groups), generator=torch.Generator().manual_seed(0))

    def decoded(decoder: Decoder, slots: list[int], frames: list[int]) -> Tensor:
        logits = []
        for frame, utterance in zip(frames, slots, strict=True):
            if frame:
                decoder.start(slots.index(utterance), odd.frame_embedding(codes[utterance, frame - 1]))
        decoder.advance(pad.repeat(len(slots), 1))
        logits.append(decoder.logits.clone())
        return logits[0]

    with torch.inference_mode():
        single, static = [], []
        for number, prompt in enumerate(prompts):
            dynamic, fixed = Decoder(odd, [prompt], GREEDY), Decoder(odd, [prompt], GREEDY)
            fixed.talker._static = True
            single.append(torch.cat([decoded(dynamic, [number], [frame]) for frame in range(80)]))
            static.append(torch.cat([decoded(fixed, [number], [frame]) for frame in range(80)]))
        draw, decoder = random.Random(2), Decoder(odd, (), GREEDY)
        order: list[int] = []
        frames, found = dict.fromkeys(range(5), 0), {number: [] for number in range(5)}
        while min(frames.values()) < 80:
            missing = [number for number in range(5) if number not in order and not frames[number]]
            if missing and draw.random() < 0.2:
                slot = decoder.open(0)
                decoder.prefill(slot, [prompts[missing[0]].embeds])
                decoder.start(slot, prompts[missing[0]].last)
                order.append(missing[0])
            if len(order) > 1 and draw.random() < 0.3:
                first, second = draw.sample(range(len(order)), 2)
                decoder.swap(first, second)
                order[first], order[second] = order[second], order[first]
            going = order[: draw.randint(0, len(order))]  # the others wait
            if going:
                for number, row in zip(going, decoded(decoder, going, [frames[one] for one in going]), strict=True):
                    found[number].append(row)
                    frames[number] += 1
            for number in [one for one in order if frames[one] == 80]:
                slot = order.index(number)
                decoder.close(slot)
                order[slot] = order[-1]
                order.pop()
    for number in range(5):
        torch.testing.assert_close(static[number].clone(), single[number].clone(), atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.stack(found[number]), single[number].clone(), atol=1e-5, rtol=0)


def test_cancelling_at_any_frame_changes_nothing_for_the_neighbours(nano: Qwen3TTS) -> None:
    draw = random.Random(4)
    texts = sentences(24, 9)
    engine, kept, cancelled, pending = Engine(nano, GREEDY, slots=4), {}, 0, list(enumerate(texts))
    doomed: list[Utterance] = []
    while pending or engine.active:
        if pending and draw.random() < 0.5:
            number, text = pending.pop(0)
            utterance = engine.submit(request(nano, text, number, CHUNKS))
            if number % 2:
                doomed.append(utterance)
            else:
                kept[number] = utterance
        engine.step()
        if doomed and draw.random() < 0.3:
            one = doomed.pop(draw.randrange(len(doomed)))
            before, running = engine.active, one in engine._in_slots.utterances
            one.cancel()
            assert engine.active == before - running and list(one) == []
            cancelled += 1
        if not pending and engine.active == sum(one in engine._in_slots.utterances for one in doomed):
            for one in doomed:
                one.cancel()
    assert cancelled >= 8 and engine.active == 0
    for number, utterance in kept.items():
        expected = alone(nano, request(nano, texts[number], number, CHUNKS))
        assert torch.equal(whole(utterance), expected)


def test_two_hundred_cancels_lose_no_slot_and_no_memory(odd: Qwen3TTS) -> None:
    draw, engine = random.Random(0), Engine(odd, GREEDY, slots=4)
    texts, held = sentences(200, 2, (2, 4)), []
    for number, text in enumerate(texts):
        utterance = engine.submit(request(odd, text, number, CHUNKS, limit=20))
        for _ in range(draw.randint(0, 5)):
            engine.step()
        utterance.cancel()
        held.append(weakref.ref(utterance))
        utterance.cancel()  # a second time is no error
    del utterance
    assert engine.active == 0 and not engine._waiting and not engine._in_slots._unread
    gc.collect()
    assert not [one for one in held if one() is not None]
    assert engine._in_slots.decoder is None  # keys and values are freed while nobody speaks
    assert torch.equal(
        whole(engine.submit(request(odd, texts[0], limit=8))), alone(odd, request(odd, texts[0], limit=8))
    )


def test_chunks_grow_and_equal_the_whole(nano: Qwen3TTS) -> None:
    text = "the river was wide and cold in may so we went home by the old road"
    codes = alone(nano, request(nano, text, limit=45))
    engine = Engine(nano, GREEDY, slots=3)
    others = [engine.submit(request(nano, one, number, (3,))) for number, one in enumerate(sentences(2))]
    chunks = list(engine.submit(request(nano, text, 0, CHUNKS, limit=45)))
    sizes = [len(chunk) // nano.samples_per_frame for chunk in chunks]
    assert sizes[:-1] == [1, 2, 4, 8, *[12] * (len(sizes) - 5)] and sum(sizes) == len(codes)
    torch.testing.assert_close(torch.cat(chunks), nano.codec.decode(codes), atol=1e-5, rtol=0)
    assert all(len(list(one)) > 1 for one in others)


def test_a_long_prompt_is_read_in_pieces_between_the_frames_of_others(odd: Qwen3TTS) -> None:
    engine = Engine(odd, GREEDY, slots=2)
    talking = engine.submit(request(odd, "the fox", limit=12))
    engine.step()
    long = " ".join(sentences(1, 0, (150, 150)))
    joining = engine.submit(request(odd, long, limit=4))
    pieces = -(-len(joining.request.prompt.embeds) // PREFILL_PIECE)
    assert pieces >= 2
    for step in range(1, pieces + 1):
        assert not joining.started
        engine.step()
        assert talking.frames == step + 1  # each step was a frame for the one that is being spoken
    assert joining.started
    assert torch.equal(whole(joining), alone(odd, request(odd, long, limit=4)))


def test_late_text_stalls_one_utterance_and_no_other(odd: Qwen3TTS) -> None:
    embeddings = odd.text_embeddings(torch.tensor(odd.tokenize("hello there the quick brown fox")[0]))
    prefix = odd.prefix("eve")
    engine = Engine(odd, GREEDY, slots=2)
    text = FedText(odd, size=2)
    slow = engine.submit(Request(open_prompt(odd, prefix), text, max_frames=len(embeddings) + 4))
    quick = engine.submit(request(odd, "lazy dog", limit=30))
    for embedding in embeddings[:2]:
        assert text.put(embedding)
    full = threading.Thread(target=lambda: text.put(embeddings[2]), daemon=True)
    full.start()
    time.sleep(0.05)
    assert full.is_alive()  # the queue is bounded
    for _ in range(30):
        engine.step()
    full.join(10)
    assert slow.frames == 3 and quick.over and quick.frames == 30
    assert not engine.step()  # nothing can be done until there is text
    got: list[Tensor] = []
    listener = threading.Thread(target=lambda: got.extend(slow), daemon=True)
    listener.start()
    for embedding in embeddings[3:]:
        text.put(embedding)
    text.finish()
    listener.join(30)
    pulled = Request(open_prompt(odd, prefix), PulledText(odd, iter(embeddings)), max_frames=len(embeddings) + 4)
    assert torch.equal(torch.stack(got), alone(odd, pulled))
    assert slow.timing.stalled > 0


def test_a_producer_that_fails_or_is_no_longer_needed(odd: Qwen3TTS) -> None:
    engine, text = Engine(odd, GREEDY, slots=2), FedText(odd)
    utterance = engine.submit(Request(open_prompt(odd, odd.prefix("eve")), text, max_frames=9))
    other = engine.submit(request(odd, "lazy dog", limit=5))
    text.finish(RuntimeError("the language model has stopped"))
    with pytest.raises(RuntimeError, match="has stopped"):
        next(utterance)
    assert len(list(other)) == 5 and engine.active == 0

    closed: list[bool] = []

    def pulled() -> Iterator[Tensor]:
        try:
            while True:
                yield special_embeddings(odd).pad
        finally:
            closed.append(True)

    utterance = engine.submit(Request(open_prompt(odd, odd.prefix("eve")), PulledText(odd, pulled())))
    next(utterance)
    utterance.cancel()
    assert closed == [True]
    fed = FedText(odd, size=1)
    utterance = engine.submit(Request(open_prompt(odd, odd.prefix("eve")), fed))
    assert fed.put(special_embeddings(odd).pad)
    utterance.cancel()
    assert not fed.put(special_embeddings(odd).pad)


def test_the_parts_of_the_time_add_up(nano: Qwen3TTS) -> None:
    engine = Engine(nano, GREEDY, slots=2)
    utterances = [engine.submit(request(nano, text, number, CHUNKS)) for number, text in enumerate(sentences(4, 6))]
    for utterance in utterances:
        assert list(utterance)
    for utterance in utterances:
        timing = utterance.timing
        assert sum(timing.parts().values()) == pytest.approx(timing.total, rel=0.05)
        assert 0 < timing.first_sound < timing.total
        assert timing.frames > 0 and timing.codec > 0 and timing.prefill > 0
    assert utterances[3].timing.queue > utterances[0].timing.frames / 2  # it waited for a slot


def test_noise_depends_on_seed_and_step_alone() -> None:
    seeds, steps = torch.tensor([3, 4, 3, 2**62]), torch.tensor([0, 0, 1, 0])
    noise = exponential_noise(seeds, steps, 0, 5000)
    assert torch.equal(noise[2:3], exponential_noise(torch.tensor([3]), torch.tensor([1]), 0, 5000))
    assert torch.equal(noise[:, 1000:], exponential_noise(seeds, steps, 1000, 4000))
    assert noise.dtype == torch.float32 and noise.min() > 0 and noise.isfinite().all()
    assert len(noise.unique()) > 0.99 * noise.numel()
    # exponential: mean 1, variance 1, and rows that have nothing to do with each other
    assert noise.mean(1).sub(1).abs().max() < 0.06 and noise.var(1).sub(1).abs().max() < 0.15
    assert torch.corrcoef(noise).fill_diagonal_(0).abs().max() < 0.06
    assert len({derived_seed(seed, number) for seed in range(20) for number in range(20)}) == 400


def test_sampling_by_noise_has_the_distribution_of_multinomial() -> None:
    """Pearson's chi-square over 20,000 draws of each, against the probabilities; the bound holds 99.99 % of samples."""
    choice = Choice(temperature=0.8, top_k=12, top_p=0.95)
    scores = torch.randn(1, 40, generator=torch.Generator().manual_seed(0)) * 2
    warped = choice.warp(scores)
    expected = torch.softmax(warped, -1)[0] * 20_000
    rows = warped.expand(20_000, -1)
    noise = exponential_noise(torch.full((20_000,), 7), torch.arange(20_000), 0, 40)
    drawn = {
        "noise": choice.race(rows, noise),
        "multinomial": choice.pick(rows, torch.Generator().manual_seed(0)),
    }
    possible = expected > 0
    for name, ids in drawn.items():
        counts = torch.bincount(ids, minlength=40)
        assert not counts[~possible].any(), name
        statistic = ((counts - expected)[possible].square() / expected[possible]).sum().item()
        degrees = int(possible.sum()) - 1
        assert statistic < degrees + 4 * (2 * degrees) ** 0.5 + 8, (name, statistic)


def test_refused(odd: Qwen3TTS) -> None:
    with pytest.raises(AudioProjectionError, match="0 slots"):
        Engine(odd, slots=0)
    with pytest.raises(AudioProjectionError, match=r"engine.graphs needs a CUDA device, the TTS is on cpu"):
        Engine(odd, graphs=True)
    engine = Engine(odd)
    for chunks in ((), (0,), (3, -1)):
        with pytest.raises(AudioProjectionError, match="chunks must have at least 1 frame"):
            engine.submit(request(odd, "lazy dog", chunks=chunks))
    with pytest.raises(AudioProjectionError, match="max_frames is 0"):
        engine.submit(request(odd, "lazy dog", limit=0))
    assert isinstance(Decoder(odd, (), GREEDY).calls, DirectCalls)
