"""Speech by the unmodified official client: formats, events, names, limits, errors."""

from __future__ import annotations

import base64
import io
import json
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
import soxr

from audio_projection.config import ServerConfig
from audio_projection.inference import Voice
from audio_projection.server.audio_formats import RATE
from helpers.nano import SPEAKER
from helpers.serving import Running, serving, until

TEXT = "Good morning."
SEED = {"extra_body": {"seed": 1}}


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=running.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def spoken(voice: Voice) -> np.ndarray:
    """The same speech in process, at the server's rate."""
    samples = voice.speak(TEXT, seed=1).samples
    return soxr.resample(samples, voice.sample_rate, RATE)


def decoded(kind: str, data: bytes) -> np.ndarray:
    if kind == "pcm":
        return np.frombuffer(data, "<i2") / np.float32(32767)
    if kind in ("aac", "flac"):  # libsndfile cannot read a FLAC stream whose header leaves its length open
        av = pytest.importorskip("av", reason="PyAV is not installed (audio-projection[aac])")
        with av.open(io.BytesIO(data)) as file:
            frames = [frame.to_ndarray()[0] for frame in file.decode(audio=0)]
            if kind == "flac":
                frames = [frame / np.float32(32768) for frame in frames]
            assert file.streams.audio[0].rate == RATE
        return np.concatenate(frames)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert (file.samplerate, file.channels) == (RATE, 1)
        return np.concatenate(list(file.blocks(4096, dtype="float32")))


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The greatest correlation of two sounds over a shift of up to a tenth of a second."""
    size = min(len(one), len(other)) - RATE // 5
    reference = one[RATE // 10 : RATE // 10 + size]
    shifted = (other[shift : shift + size] for shift in range(0, RATE // 5, 4))
    return max(float(np.corrcoef(reference, each)[0, 1]) for each in shifted)


@pytest.mark.parametrize("kind", ["wav", "pcm", "flac", "mp3", "opus", "aac"])
def test_every_format_is_the_speech_of_the_voice(client: Any, spoken: np.ndarray, kind: str) -> None:
    if kind == "aac":
        pytest.importorskip("av", reason="PyAV is not installed (audio-projection[aac])")
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT, response_format=kind, **SEED)
    heard = decoded(kind, answer.content)
    if kind in ("wav", "pcm", "flac"):
        assert len(heard) == pytest.approx(len(spoken), abs=2)
        size = min(len(heard), len(spoken))
        assert np.abs(heard[:size] - spoken[:size]).max() < 2e-3
    else:
        assert abs(len(heard) - len(spoken)) < RATE // 8
        assert likeness(spoken, heard) > 0.95


def test_the_first_bytes_come_while_the_rest_is_made(client: Any, running: Running) -> None:
    text = "The river is long and very cold. " * 4
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=text, response_format="pcm", **SEED
    ) as answer:
        received = answer.iter_bytes(512)
        first = next(received)
        assert running.service.admission.speaking == 1
        assert len(first) + sum(map(len, received)) > 4 * RATE


def test_a_wav_leaves_its_length_open(client: Any) -> None:
    data = client.audio.speech.create(model="tts-1", voice="echo", input=TEXT, response_format="wav").content
    assert data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    assert struct.unpack("<I", data[4:8]) == struct.unpack("<I", data[40:44]) == (0xFFFFFFFF,)


def test_events_carry_the_same_sound(client: Any, spoken: np.ndarray) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="nova", input=TEXT, response_format="pcm", stream_format="sse", **SEED
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    sound = decoded("pcm", b"".join(base64.b64decode(event["audio"]) for event in events[:-1]))
    size = min(len(sound), len(spoken))
    assert np.abs(sound[:size] - spoken[:size]).max() < 2e-3
    done = events[-1]
    assert done["type"] == "speech.audio.done"
    usage = done["usage"]
    assert usage["output_tokens"] == round(len(spoken) / RATE * 12.5)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] and usage["input_tokens"] > 2


def test_a_voice_of_the_tts_is_taken_by_its_name(client: Any, voice: Voice) -> None:
    (name,) = voice.tts.config.talker.speakers
    by_name, by_id, default = (
        client.audio.speech.create(model="linear", voice=each, input=TEXT, response_format="pcm", **SEED).content
        for each in (name.upper(), {"id": name}, "default")
    )
    assert by_name == by_id == default


@pytest.mark.parametrize(
    ("changed", "status", "param", "words"),
    [
        ({"voice": "nobody"}, 400, "voice", ["default", SPEAKER]),
        ({"model": "nothing"}, 404, "model", ["linear"]),
        ({"input": " ... "}, 400, None, ["letter or digit"]),
        ({"input": ""}, 400, None, ["letter or digit"]),
        ({"input": "a\0b"}, 400, None, ["NUL"]),
        ({"input": "a " * 3000}, 400, "input", ["6000", "4096"]),
        ({"speed": 1.5}, 400, "speed", ["pace"]),
        ({"instructions": "Whisper."}, 400, "instructions", ["no instructions"]),
        ({"response_format": "wma"}, 400, "response_format", ["mp3"]),
        ({"stream_format": "tape"}, 400, "stream_format", ["sse"]),
        ({"extra_body": {"language": "klingon"}}, 400, None, ["klingon", "english"]),
        ({"extra_body": {"seed": -1}}, 400, "seed", ["seed"]),
        ({"extra_body": {"pitch": 2}}, 400, "pitch", ["pitch"]),
    ],
)
def test_what_is_refused_says_why(
    client: Any, changed: dict[str, Any], status: int, param: str | None, words: list[str]
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.audio.speech.create(**{"model": "tts-1", "voice": "alloy", "input": TEXT} | changed)
    error = caught.value
    assert error.status_code == status and error.body["param"] == param
    assert error.body["type"] == "invalid_request_error"
    assert all(word in error.body["message"] for word in words)
    assert "Traceback" not in error.body["message"] and "/" not in error.body["message"].replace("and/or", "")


def test_lone_surrogates_are_a_clients_error(running: Running) -> None:
    body = b'{"input": "a\\ud800b", "voice": "\\udfff"}'
    request = urllib.request.Request(f"{running.url}/audio/speech", body, {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)
    assert caught.value.code == 400 and json.loads(caught.value.read())["error"]["message"]


def test_models_and_voices_are_listed(client: Any, running: Running) -> None:
    assert [model.id for model in client.models.list()] == ["linear"]
    assert client.models.retrieve("linear").id == "linear"
    listed = client.get("/audio/voices", cast_to=object)
    assert listed["voices"] == ["default", SPEAKER] and "english" in listed["languages"]


def test_a_full_queue_is_answered_with_retry_after(voice: Voice) -> None:
    with serving({"linear": voice}, ServerConfig(port=0, streams=1, queue=0)) as server:
        client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
        arguments: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": "A long sentence. " * 10}
        with client.audio.speech.with_streaming_response.create(**arguments) as answer:
            assert answer.status_code == 200
            with pytest.raises(openai.RateLimitError) as caught:
                client.audio.speech.create(**arguments)
            assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
        until(lambda: server.service.admission.speaking == 0)
        assert client.audio.speech.create(**arguments | {"input": TEXT}).content


def test_a_client_that_goes_away_frees_its_slot(client: Any, running: Running, voice: Voice) -> None:
    gone = counted(running, "audio_projection_clients_gone_total")
    for _ in range(3):
        with client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input="This is a sentence that goes on for a while. " * 20
        ) as answer:
            next(answer.iter_bytes(512))
    until(lambda: running.service.admission.speaking == 0 and voice._current_engine().active == 0, seconds=3)
    assert counted(running, "audio_projection_clients_gone_total") == gone + 3


def test_speech_beyond_the_limit_of_seconds_breaks_off(voice: Voice) -> None:
    with serving({"linear": voice}, ServerConfig(port=0, seconds=1)) as server:
        client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
        arguments: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": "The river is long and very cold."}
        with client.audio.speech.with_streaming_response.create(
            **arguments, response_format="pcm", stream_format="sse"
        ) as answer:
            last = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line][-1]
        assert last["type"] == "error" and "longer than 1 s" in last["error"]["message"]
        with pytest.raises(Exception, match="peer closed|incomplete|Connection error"):
            client.audio.speech.create(**arguments, response_format="pcm")


def counted(running: Running, name: str) -> float:
    """One number of /metrics."""
    lines = running.service.metrics.text().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split(" ")[0].split("{")[0] == name)


def test_metrics_tell_what_was_done(client: Any, running: Running, spoken: np.ndarray) -> None:
    before = counted(running, "audio_projection_sound_seconds_total")
    client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT, **SEED)
    assert counted(running, "audio_projection_sound_seconds_total") - before == pytest.approx(
        len(spoken) / RATE, abs=0.01
    )
    with urllib.request.urlopen(f"{running.address}/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    for name in (
        "first_sound_seconds_bucket",
        "streams_limit",
        "waiting",
        "utterance_seconds_total",
        "underruns_total",
    ):
        assert f"audio_projection_{name}" in metrics


def test_many_at_once_are_spoken_as_they_are_alone(client: Any, voice: Voice) -> None:
    """Texts and answers, more than there are slots: none gets anything of another's."""
    texts = ["Good morning.", "The river is long.", "She was not afraid.", "He had to wait for the train."]

    def ask(number: int) -> bytes:
        if number % 2:
            audio = client.chat.completions.create(
                model="gpt-audio",
                messages=[{"role": "user", "content": texts[number % 4]}],
                modalities=["text", "audio"],
                audio={"voice": "alloy", "format": "pcm16"},
                seed=number,
            )
            return base64.b64decode(audio.choices[0].message.audio.data)
        return client.audio.speech.create(
            model="tts-1", voice="alloy", input=texts[number % 4], response_format="pcm", extra_body={"seed": number}
        ).content

    alone = [ask(number) for number in range(6)]
    with ThreadPoolExecutor(6) as threads:
        for _ in range(3):
            assert list(threads.map(ask, range(6))) == alone
