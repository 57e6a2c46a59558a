"""Spoken answers by the unmodified official client, whole and streamed."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
import soxr

from audio_projection.inference import Speech, Voice
from audio_projection.server.audio_formats import RATE
from helpers.nano import SPEAKER
from helpers.serving import Running, until

QUESTION: list[Any] = [{"role": "user", "content": "Tell me about the river."}]
ASKED: dict[str, Any] = {"model": "gpt-audio", "messages": QUESTION, "modalities": ["text", "audio"], "seed": 1}


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=running.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def answer(voice: Voice) -> Speech:
    """The same answer in process."""
    return voice.chat(QUESTION, seed=1)


def test_an_answer_as_a_whole(client: Any, answer: Speech) -> None:
    done = client.chat.completions.create(**ASKED, audio={"voice": "alloy", "format": "wav"})
    (choice,) = done.choices
    assert (choice.finish_reason, choice.message.role, choice.message.content) == ("stop", "assistant", None)
    assert choice.message.audio.transcript == answer.text
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(choice.message.audio.data)), dtype="float32")
    expected = soxr.resample(answer.samples, answer.sample_rate, RATE)
    assert rate == RATE and len(samples) == pytest.approx(len(expected), abs=2)
    assert np.abs(samples[: len(expected)] - expected[: len(samples)]).max() < 2e-3
    details = done.usage.completion_tokens_details
    assert details.audio_tokens == round(len(expected) / RATE * 12.5)
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_an_answer_while_it_is_made(client: Any, answer: Speech) -> None:
    stream = client.chat.completions.create(
        **ASKED, audio={"voice": "alloy", "format": "pcm16"}, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    sounds = [chunk.model_dump(exclude_unset=True)["choices"][0]["delta"]["audio"] for chunk in chunks if chunk.choices]
    assert "".join(sound.get("transcript", "") for sound in sounds) == answer.text
    assert "data" in sounds[0] and len({chunk.id for chunk in chunks}) == 1
    data = b"".join(base64.b64decode(sound["data"]) for sound in sounds if "data" in sound)
    expected = soxr.resample(answer.samples, answer.sample_rate, RATE)
    assert len(data) // 2 == pytest.approx(len(expected), abs=2)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert not chunks[-1].choices and chunks[-1].usage.completion_tokens > 0


def test_the_conversation_and_the_options_reach_the_model(client: Any, voice: Voice) -> None:
    messages = [
        {"role": "developer", "content": "Answer."},
        {"role": "user", "content": [{"type": "text", "text": "Who are you?"}]},
        {"role": "assistant", "content": "A voice."},
        *QUESTION,
    ]
    read = [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "A voice."},
        *QUESTION,
    ]
    arguments = {**ASKED, "messages": messages, "audio": {"voice": SPEAKER, "format": "wav"}}
    spoken = voice.chat(read, seed=1).text

    def transcript(**changed: Any) -> str:
        return client.chat.completions.create(**arguments | changed).choices[0].message.audio.transcript

    assert transcript() == spoken
    greedy = {transcript(temperature=0, seed=seed) for seed in (1, 2)}
    assert len(greedy) == 1
    assert len(transcript(max_completion_tokens=12)) < len(spoken)


@pytest.mark.parametrize(
    ("changed", "param", "words"),
    [
        ({"modalities": ["text"]}, "modalities", "answers aloud"),
        ({"messages": []}, "messages", "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, None, "empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "assistant"),
        ({"messages": [{"role": "user", "content": "a " * 2100}]}, "messages", "4096"),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}, *QUESTION]}, "messages", "transcript"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, None, "text"),
        ({"audio": {"voice": "nobody", "format": "wav"}}, "voice", SPEAKER),
        ({"temperature": 3}, "temperature", "2"),
        ({"tools": []}, "tools", "tools"),
        ({"n": 2}, "n", "1"),
        ({"max_tokens": 0}, "max_tokens", "1"),
    ],
)
def test_what_is_refused_says_why(client: Any, changed: dict[str, Any], param: str | None, words: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{**ASKED, "audio": {"voice": "alloy", "format": "wav"}} | changed)
    assert words in caught.value.body["message"]
    assert param is None or caught.value.body["param"] == param


def test_a_client_that_goes_away_frees_its_slot(client: Any, running: Running, voice: Voice) -> None:
    stream = client.chat.completions.create(**ASKED, audio={"voice": "alloy", "format": "pcm16"}, stream=True)
    next(stream)
    stream.close()
    until(lambda: running.service.admission.speaking == 0 and voice._current_engine().active == 0, seconds=3)
