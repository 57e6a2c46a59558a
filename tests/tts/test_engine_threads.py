"""Many threads on one engine: they submit, listen and cancel at will, and one slow listener holds up nobody else."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.sampling import Choice, Sampling, derived_seed
from audio_projection.tts import Qwen3TTS
from audio_projection.tts.engine.engine import Engine
from audio_projection.tts.engine.sound import Sound
from audio_projection.tts.engine.text import FedText, WholeText
from audio_projection.tts.engine.utterance import Request
from audio_projection.tts.prompt import open_prompt, special_embeddings, text_prompt
from helpers import parity_kit
from helpers.paths import REPOSITORY

GREEDY = Sampling.greedy(1.0)
CHUNKS = (1, 2, 4)
TEXTS = ("hello there the quick brown fox", "lazy dog", "the brown dog", "there the lazy fox", "quick quick dog")


@pytest.fixture(scope="module")
def odd() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(parity_kit.checkpoint("odd"))


def request(
    tts: Qwen3TTS,
    number: int = 0,
    frames: int = 20,
    chunks: Sequence[int] | None = CHUNKS,
    sampling: Sampling | None = None,
    ahead: int | None = None,
) -> Request:
    speaker = next(iter(tts.config.talker.speakers))
    embeddings = tts.text_embeddings(torch.tensor(tts.tokenize(TEXTS[number % len(TEXTS)])[0]))
    prompt = text_prompt(tts, tts.prefix(speaker), embeddings, "streaming")
    text = WholeText(tts, prompt)
    return Request(prompt, text, derived_seed(5, number), frames, chunks, sampling=sampling, ahead=ahead)


def alone(tts: Qwen3TTS, wanted: Request) -> Tensor:
    return torch.cat(list(Engine(tts, GREEDY, slots=1).submit(wanted)))


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Runs work(0) ... work(count - 1) at once; an exception of any is raised, and one that hangs is an error."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads)


def test_twelve_threads_submit_listen_and_cancel(odd: Qwen3TTS) -> None:
    """More utterances than slots; a third of them are cancelled somewhere by their own thread or by another."""
    engine, found, expected = Engine(odd, GREEDY, slots=4), {}, {}
    for number in range(5):
        expected[number] = alone(odd, request(odd, number))

    def work(thread: int) -> None:
        draw = random.Random(thread)
        for turn in range(4):
            number = thread + 12 * turn
            utterance = engine.submit(request(odd, number, ahead=draw.choice((None, 1, 2))))
            if number % 3 == 0:
                for _ in range(draw.randint(0, 4)):
                    next(utterance, None)
                if number % 2:
                    utterance.cancel()
                else:
                    canceller = threading.Thread(target=utterance.cancel)
                    canceller.start()
                    for _ in utterance:
                        pass
                    canceller.join()
                assert list(utterance) == []
            else:
                found[number] = torch.cat(list(utterance))

    in_threads(12, work)
    assert len(found) == 32
    for number, samples in found.items():
        torch.testing.assert_close(samples, expected[number % 5], atol=1e-5, rtol=0)
    engine.step()  # what another thread cancelled last
    assert engine.active == engine.waiting == 0 and engine.free == 4 and not engine._heard and not engine._listeners


def test_a_slow_listener_stalls_its_own_slot_only(odd: Qwen3TTS) -> None:
    engine = Engine(odd, GREEDY, slots=2)
    slow = engine.submit(request(odd, 0, frames=40, ahead=2))
    quick = engine.submit(request(odd, 1, frames=60))
    assert torch.cat(list(quick)).shape == (60 * odd.samples_per_frame,)
    assert len(slow.chunks) == 2 and slow.frames == 1 + 2 and engine.active == 1
    assert not engine.step()  # only its listener can go on
    next(slow)
    assert engine.step()
    rest = torch.cat(list(slow))
    expected = alone(odd, request(odd, 0, frames=40))
    torch.testing.assert_close(rest, expected[odd.samples_per_frame :], atol=1e-5, rtol=0)
    assert slow.timing.unheard > 0
    assert sum(slow.timing.parts().values()) == pytest.approx(slow.timing.total, rel=0.05)


def test_a_thread_without_text_is_woken_and_others_are_heard_meanwhile(odd: Qwen3TTS) -> None:
    engine, text = Engine(odd, GREEDY, slots=2), FedText(odd)
    late = engine.submit(Request(open_prompt(odd, odd.prefix("eve")), text, max_frames=6, chunks=(1,)))
    heard: list[int] = []
    listener = threading.Thread(target=lambda: heard.append(len(list(late))), daemon=True)
    listener.start()  # it has the turn and waits for its text
    time.sleep(0.1)
    assert len(torch.cat(list(engine.submit(request(odd, 1, frames=8))))) == 8 * odd.samples_per_frame
    for _ in range(3):
        text.put(special_embeddings(odd).pad)
    text.finish()
    listener.join(60)
    assert heard == [6]


def test_cancelling_wakes_the_listener(odd: Qwen3TTS) -> None:
    engine = Engine(odd, GREEDY, slots=1)
    utterance = engine.submit(Request(open_prompt(odd, odd.prefix("eve")), FedText(odd), chunks=(1,)))
    ended = threading.Event()

    def listen() -> None:
        assert list(utterance) == []
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    time.sleep(0.1)
    utterance.cancel()
    assert ended.wait(30)
    engine.step()
    assert engine.active == 0


def test_free_slots_and_waiting_requests_are_counted(odd: Qwen3TTS) -> None:
    engine = Engine(odd, GREEDY, slots=2)
    assert (engine.free, engine.waiting, engine.active) == (2, 0, 0)
    utterances = [engine.submit(request(odd, number)) for number in range(3)]
    assert (engine.free, engine.waiting, engine.active) == (0, 1, 0)
    engine.step()
    assert (engine.free, engine.waiting, engine.active) == (0, 1, 2)
    utterances[2].cancel()
    utterances[0].cancel()
    assert (engine.free, engine.waiting, engine.active) == (1, 0, 1)


def test_each_request_samples_its_own_way(odd: Qwen3TTS) -> None:
    """Greedy, and by several temperatures, top-k, top-p and penalties beside one another: each as alone."""
    ways = [
        None,
        Sampling(Choice(temperature=0.7, top_k=5), Choice(temperature=1.3, top_k=0), 1.0),
        Sampling(Choice(temperature=1.0, top_k=0, top_p=0.6), Choice(greedy=True), 1.3),
        Sampling(Choice(top_k=50), Choice(top_p=0.8), 1.05),
        Sampling.greedy(2.0),
    ]
    engine = Engine(odd, GREEDY, slots=3)
    requests = [request(odd, number, chunks=None, sampling=way) for number, way in enumerate(ways)]
    spoken = {number: torch.stack(list(utterance)) for number, utterance in engine.run(requests)}
    for number, way in enumerate(ways):
        single = Engine(odd, way or GREEDY, slots=1).submit(request(odd, number, chunks=None))
        assert torch.equal(spoken[number], torch.stack(list(single))), number
    assert len({str(codes.tolist()) for codes in spoken.values()}) == 5


def test_an_interrupted_step_ends_all_and_the_engine_goes_on(odd: Qwen3TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(odd, GREEDY, slots=2)
    mine, other = (engine.submit(request(odd, number)) for number in range(2))
    next(mine)

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine._in_slots, "frame", interrupted)
        with pytest.raises(KeyboardInterrupt):
            for _ in mine:
                pass
    with pytest.raises(AudioProjectionError, match="decoding was interrupted by KeyboardInterrupt"):
        while True:
            next(other)
    assert engine.active == 0
    torch.testing.assert_close(
        torch.cat(list(engine.submit(request(odd, 1)))), alone(odd, request(odd, 1)), atol=1e-5, rtol=0
    )


def test_the_example_of_the_docs() -> None:
    page = (REPOSITORY / "docs" / "engine.md").read_text(encoding="utf-8")
    heard: list[Tensor] = []
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    exec(compile(example, "docs/engine.md", "exec"), {"play": heard.append})
    assert sum(map(len, heard)) > 5000 and torch.cat(heard).abs().max() > 0.01


def test_refused(odd: Qwen3TTS) -> None:
    with pytest.raises(AudioProjectionError, match="0 finished chunks may wait"):
        Engine(odd).submit(request(odd, ahead=0))


def test_soonest_needed_chunks_come_first(odd: Qwen3TTS) -> None:
    """Of chunks that are due at once: those of utterances without sound in the order of their requests, then by the end
    of what was given. Those as long may be decoded together."""
    engine, frame = Engine(odd, GREEDY), torch.zeros(odd.config.code_groups, dtype=torch.int64)
    utterances = [
        engine.submit(request(odd, number, chunks=size)) for number, size in enumerate([(2,), (2,), (3,), (9,)])
    ]
    sound = Sound(odd.codec)
    for utterance in utterances:
        utterance.codes = [frame] * 9
    utterances[0].delivered(8)
    utterances[1].delivered(4)
    first, second, third, fourth = utterances
    assert sound.next_group(utterances) == [third]
    assert sound.next_group([first, second, fourth]) == [fourth]
    assert sound.next_group([first, second]) == [second]
    sound._together = True
    assert sound.next_group([first, second, fourth]) == [fourth]
    assert sound.next_group([first, second]) == [second, first]
    assert [len(samples) // odd.samples_per_frame for samples in sound.decode([second, first])] == [2, 2]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc to read the memory in use")
def test_two_hundred_cancels_beside_neighbours(odd: Qwen3TTS) -> None:
    """Cancelled at random frames, by the listener or another thread: memory stays within 3 %, no slot is lost, and what
    the neighbours say is what they say alone."""
    engine, draw = Engine(odd, GREEDY, slots=4), random.Random(3)
    expected = [alone(odd, request(odd, number, frames=60)) for number in range(2)]

    def cancelled(count: int) -> None:
        neighbours, said = [engine.submit(request(odd, number, frames=60)) for number in range(2)], [[], []]
        for number in range(count):
            utterance = engine.submit(request(odd, number + 2, frames=60))
            for _ in range(draw.randint(0, 6)):
                engine.step()
            if draw.random() < 0.5:
                next(utterance, None)
            canceller = threading.Thread(target=utterance.cancel)
            canceller.start()
            canceller.join()
            assert list(utterance) == []
            for place, neighbour in enumerate(neighbours):
                said[place] += neighbour.chunks
                neighbour.chunks.clear()
                if neighbour.over:
                    torch.testing.assert_close(torch.cat(said[place]), expected[place], atol=1e-5, rtol=0)
                    neighbours[place], said[place] = engine.submit(request(odd, place, frames=60)), []
        for neighbour in neighbours:
            neighbour.cancel()
        assert engine.active == engine.waiting == 0 and engine.free == 4

    cancelled(100)  # the allocator takes what it needs
    before = resident_bytes()
    cancelled(200)
    assert resident_bytes() < 1.03 * before
