"""Streams: the LLM's thread and the talker, cancelling, errors, async iteration, the end of the program."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_projection.errors import AudioProjectionError
from audio_projection.inference import Voice, pipeline
from audio_projection.inference.producers import WRITTEN_AHEAD
from audio_projection.llm import language_model
from helpers.answers import QUESTION, scripted
from helpers.paths import REPOSITORY
from helpers.voices import make_voice

ANSWER = "the quick brown fox jumps over the lazy dog and said good day and hello there"
SENTENCES = "Hello dog. The quick brown fox said hello! The lazy dog said good day. The fox. "


def chatting(layout: str = "streaming", **defaults: Any) -> Voice:
    return make_voice(context="chat", layout=layout, **{"max_frames": 40, "chunks": (1,)} | defaults)


def until(condition: Callable[[], bool]) -> None:
    """Waits until the condition is true."""
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, "it did not become true in a minute"
        time.sleep(0.01)


def llm_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "audio-projection-llm"]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    until(lambda: not llm_threads())


@pytest.mark.parametrize("layout", ["streaming", "nonstreaming"])
def test_a_slow_llm_makes_the_talker_wait_and_changes_no_sample(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting(layout)
    scripted(voice, monkeypatch, ANSWER)
    expected = voice.chat(QUESTION, seed=1)
    scripted(voice, monkeypatch, ANSWER, before=lambda number: number == 12 and time.sleep(1.0))
    answer = voice.chat_stream(QUESTION, seed=1)
    np.testing.assert_array_equal(np.concatenate(list(answer)), expected.samples)
    assert answer.text == expected.text == ANSWER
    waited = sum(timing.stalled for timing in answer.timings) if layout == "streaming" else answer.timing.llm_tokens
    assert waited > 0.1


def test_the_llm_writes_ahead_and_no_further_than_the_queue_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting(longest=2_000, max_frames=400)
    written = scripted(voice, monkeypatch, " ".join([ANSWER] * 7))
    answer = voice.chat_stream(QUESTION)
    next(answer), next(answer)
    until(lambda: len(written) > WRITTEN_AHEAD)
    time.sleep(0.3)
    tokens = len(voice.llm.tokenize(ANSWER)) * 7
    assert WRITTEN_AHEAD < len(written) < WRITTEN_AHEAD + 24 < tokens  # and the word that is not complete
    answer.close()


def test_sentences_are_written_ahead_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting("nonstreaming", max_frames=4)
    written = scripted(voice, monkeypatch, SENTENCES * 6)
    answer = voice.chat_stream(QUESTION)
    next(answer)
    sentence = len(voice.llm.tokenize(SENTENCES)) / 4
    until(lambda: len(written) > 2 * sentence)
    time.sleep(0.2)
    assert len(written) < 8 * sentence
    assert len(list(answer)) == 4 * 24 - 1


def test_an_error_of_the_llm_reaches_the_listener_once(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting()

    def fail(number: int) -> None:
        if number == 20:
            raise AudioProjectionError("the language model broke off")

    scripted(voice, monkeypatch, ANSWER, before=fail)
    answer = voice.chat_stream(QUESTION)
    chunks = []
    with pytest.raises(AudioProjectionError, match="the language model broke off"):
        for chunk in answer:
            chunks.append(chunk)
    assert chunks and list(answer) == [] and voice._current_engine().active == 0


def test_an_error_before_the_first_word(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting()
    scripted(voice, monkeypatch, ANSWER, before=lambda number: 1 / 0)
    answer = voice.chat_stream(QUESTION)
    with pytest.raises(ZeroDivisionError):
        next(answer)
    assert list(answer) == []


@pytest.mark.parametrize("layout", ["streaming", "nonstreaming"])
def test_cancelling_frees_the_slot_the_thread_and_the_cache(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    voice, kept = chatting(layout, max_new_tokens=200), []
    step = voice.llm._step

    def watched(values: Any, ids: list[int]) -> Any:
        found = step(values, ids)
        kept.append(weakref.ref(found[0]))
        return found

    monkeypatch.setattr(voice.llm, "_step", watched)
    monkeypatch.setattr(voice.llm, "_end_ids", lambda: set())
    answer = voice.chat_stream(QUESTION, seed=1)
    next(answer)
    answer.cancel()
    assert voice._current_engine().active == 0 and list(answer) == []
    until(lambda: not llm_threads())
    gc.collect()
    assert kept and not any(cache() for cache in kept)


def test_cancelling_from_another_thread_ends_a_listener_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    voice, late = chatting(), threading.Event()
    scripted(voice, monkeypatch, ANSWER, before=lambda number: number < 9 or late.wait(60))
    answer, chunks = voice.chat_stream(QUESTION), []
    listener = threading.Thread(target=lambda: chunks.extend(answer))
    listener.start()
    until(lambda: bool(chunks))
    time.sleep(0.1)
    assert listener.is_alive()
    answer.cancel()
    listener.join(10)
    assert not listener.is_alive() and voice._current_engine().active == 0
    late.set()


def test_cancelling_gives_up_reading_a_long_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    voice, going, read = chatting(), threading.Event(), []
    step = voice.llm._step

    def watched(values: Any, ids: list[int]) -> Any:
        read.append(len(ids))
        assert len(read) < 3 or going.wait(60)
        return step(values, ids)

    monkeypatch.setattr(language_model, "PREFILL_PIECE", 8)
    monkeypatch.setattr(voice.llm, "_step", watched)
    answer = voice.chat_stream([{"role": "user", "content": " ".join([ANSWER] * 4)}])
    listener = threading.Thread(target=lambda: list(answer))
    listener.start()
    until(lambda: len(read) == 3)
    answer.cancel()
    listener.join(10)
    assert not listener.is_alive()
    going.set()
    until(lambda: not llm_threads())
    assert read == [8, 8, 8]


def test_cancelling_before_the_first_chunk_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting()
    answer, speech = voice.chat_stream(QUESTION), voice.stream(ANSWER)
    answer.cancel()
    speech.cancel()
    assert list(answer) == [] == list(speech)
    until(lambda: not llm_threads())


def test_the_neighbours_are_not_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting()
    expected = [chunk.tobytes() for chunk in voice.stream(ANSWER, seed=3)]
    scripted(voice, monkeypatch, SENTENCES)
    neighbour, chunks = voice.stream(ANSWER, seed=3), []
    for number in range(len(expected)):
        answer = voice.chat_stream(QUESTION, seed=number)
        next(answer)
        chunks.append(next(neighbour).tobytes())
        answer.cancel()
    assert chunks == expected


@pytest.mark.parametrize(("ahead", "at_once"), [(-1e9, 2), (1e9, 1)])
def test_the_next_sentence_is_begun_where_one_is_ahead_of_its_playback(
    ahead: float, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which changes no sample: the chunks come in order, each sentence's as it is alone."""
    monkeypatch.setattr(pipeline, "AHEAD", ahead)
    voice = make_voice(max_frames=20, chunks=(1,))
    sentences = ["Hello dog.", "The quick brown fox said hello!", "Good day.", "The dog."]
    alone = [speech.samples for speech in voice.speak_all(sentences)]
    stream, chunks, together = voice.stream(" ".join(sentences)), [], []
    for chunk in stream:
        chunks.append(chunk)
        together.append(voice._current_engine().active)
    np.testing.assert_array_equal(np.concatenate(chunks), np.concatenate(alone))
    assert max(together) == at_once and len(stream.timings) == 4


def test_words_lie_where_their_sentence_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting(max_frames=10)
    scripted(voice, monkeypatch, SENTENCES)
    answer = voice.chat_stream(QUESTION)
    heard = []
    for _ in answer:
        heard.append(answer.heard)
    words = answer.words
    assert " ".join(word.text for word in words) == answer.heard == answer.text == SENTENCES.strip()
    assert all(first.end <= second.start + 1e-9 for first, second in zip(words, words[1:], strict=False))
    assert all(before == after[: len(before)] for before, after in zip(heard, heard[1:], strict=False))
    seconds = 10 * voice.tts.samples_per_frame / voice.sample_rate
    assert 0 <= words[0].start < words[1].end <= seconds <= words[2].start + 1e-9  # "Hello dog." is two words
    assert answer.heard_until(seconds) == "Hello dog." and answer.heard_until(0) == ""
    assert answer.heard_until(words[3].end) == "Hello dog. The quick" and answer.seconds == pytest.approx(4 * seconds)


def test_async_iteration_gives_the_same_chunks_and_leaves_the_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting()
    scripted(voice, monkeypatch, SENTENCES, before=lambda number: time.sleep(0.01))
    expected = {"chat": list(voice.chat_stream(QUESTION, seed=1)), "text": list(voice.stream(ANSWER, seed=1))}

    async def listen(stream: Any) -> list[np.ndarray]:
        return [chunk async for chunk in stream]

    async def both() -> tuple[list[Any], int]:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.005)

        heart = asyncio.create_task(beat())
        streams = (voice.chat_stream(QUESTION, seed=1), voice.stream(ANSWER, seed=1))
        found = await asyncio.gather(*map(listen, streams))
        heart.cancel()
        return found, beats

    (chat, text), beats = asyncio.run(both())
    for found, wanted in ((chat, expected["chat"]), (text, expected["text"])):
        np.testing.assert_array_equal(np.concatenate(found), np.concatenate(wanted))
    assert beats > 20


def test_closing_or_cancelling_an_async_listener_cancels_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    voice, late = chatting(), threading.Event()
    scripted(voice, monkeypatch, ANSWER, before=lambda number: number < 9 or late.wait(60))

    async def closed() -> None:
        async with contextlib.aclosing(voice.chat_stream(QUESTION)) as answer:
            await anext(answer)
        assert [chunk async for chunk in answer] == []

    async def cancelled() -> None:
        answer = voice.chat_stream(QUESTION)
        await anext(answer)

        async def listen() -> None:
            async for _ in answer:
                pass

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(listen(), 0.3)
        assert [chunk async for chunk in answer] == []

    for way in (closed, cancelled):
        asyncio.run(way())
        until(lambda: voice._current_engine().active == 0)
    late.set()


def test_many_listeners_come_and_go() -> None:
    """Texts, answers and sessions, eight at a time, which end or are given up in every way: no slot is lost."""
    voice = make_voice(context="chat", layout="streaming", max_frames=12, chunks=(1, 2), max_new_tokens=40)

    def begin(number: int) -> Any:
        if number % 3 == 0:
            return voice.chat_stream(QUESTION, seed=number)
        return voice.stream(SENTENCES, seed=number) if number % 3 == 1 else voice.session(seed=number).say("hello")

    async def listen(number: int) -> int:
        stream, taken = begin(number), 0
        async for _ in stream:
            taken += 1
            if taken == (1, 2, 3, 5, 100)[number % 5]:
                if number % 2:
                    await stream.aclose()
                break
        return taken

    async def everybody() -> list[int | BaseException]:
        room = asyncio.Semaphore(8)

        async def one(number: int) -> int:
            async with room:
                return await (asyncio.wait_for(listen(number), 0.05) if number % 7 == 6 else listen(number))

        return await asyncio.gather(*map(one, range(30)), return_exceptions=True)

    taken = asyncio.run(everybody())
    assert all(isinstance(each, int | asyncio.TimeoutError) for each in taken)
    assert sum(isinstance(each, int) and each > 0 for each in taken) >= 26
    gc.collect()
    until(lambda: voice._current_engine().active == voice._current_engine().waiting == 0)


def test_errors_reach_an_async_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting()
    scripted(voice, monkeypatch, ANSWER, before=lambda number: 1 / 0)

    async def listen() -> None:
        async for _ in voice.chat_stream(QUESTION):
            pass

    with pytest.raises(ZeroDivisionError):
        asyncio.run(listen())


@pytest.mark.parametrize("chat", [True, False])
def test_the_parts_of_the_time_add_up(chat: bool) -> None:
    """With nano, to a listener who does nothing else: what is not accounted for is less than a twentieth."""
    voice = Voice.from_config("configs/nano.yaml", ["threads=1"])
    asked = [{"role": "user", "content": "Tell me about the river."}]
    shares = []
    for seed in range(3):  # the best of three: the machine may be busy with something else
        stream = voice.chat_stream(asked, seed=seed) if chat else voice.stream("Good morning. How are you?", seed=seed)
        began = time.perf_counter()
        first = began + [time.perf_counter() - began for _ in stream][0]
        total, timing = time.perf_counter() - began, stream.timing
        parts = timing.parts()
        assert all(seconds >= 0 for name, seconds in parts.items() if name != "other")
        assert sum(parts.values()) == pytest.approx(timing.total) == pytest.approx(total, rel=0.05)
        assert timing.first_sound == pytest.approx(first - began, rel=0.05)
        needed = {"llm_prefill", "talker_prefill", "frames", "codec"} | ({"llm_tokens"} if chat else set())
        assert all(parts[name] > 0 for name in needed)
        assert (timing.tokens > 0) == (timing.per_token > 0) == chat
        shares.append(abs(parts["other"]) / timing.total)
    assert min(shares) < 0.05


PROGRAM = """
import sys
from audio_projection import Voice

voice = Voice.from_config(sys.argv[1], ["threads=1"])
question = [{"role": "user", "content": "Tell me about the river."}]
streams = [voice.chat_stream(question, seed=1), voice.stream("Good morning. How are you?", seed=1)]
session = voice.session(seed=1)
streams.append(session.say("Tell me about the king."))
for stream in streams:
    for _ in range(int(sys.argv[2])):
        next(stream)
if sys.argv[3] == "error":
    raise SystemExit(3)
"""


def ends_quietly(config: str, chunks: int, way: str = "end") -> None:
    """A program that drops streams after some chunks ends at once, without a word and with its own exit code."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, "-X", "dev", "-W", "ignore", "-c", PROGRAM, config, str(chunks), way]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (3 if way == "error" else 0, "")


@pytest.mark.parametrize(("chunks", "way"), [(0, "end"), (1, "end"), (2, "error")])
def test_streams_that_are_dropped_leave_no_complaint_at_the_end(chunks: int, way: str) -> None:
    ends_quietly("configs/nano.yaml", chunks, way)


@pytest.mark.parametrize("chunks", [0, 2])
def test_nor_with_llama_cpp(chunks: int, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the gguf package is not installed (audio-projection[gguf])")
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (audio-projection[gguf])")
    command = [sys.executable, "-m", "audio_projection", "export", "gguf", "--config", "configs/nano.yaml"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    exported = tmp_path / "exported"
    subprocess.run([*command, "--all", str(exported)], check=True, cwd=REPOSITORY, env=environment, timeout=200)
    ends_quietly(str(exported / "config.yaml"), chunks)
