"""Spoken conversations over a WebSocket by the unmodified official client."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import openai
import pytest
import soxr
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from audio_projection.config import ServerConfig
from audio_projection.inference import Voice
from audio_projection.server.audio_formats import RATE
from helpers.nano import SPEAKER
from helpers.serving import Running, serving, until

QUESTION = "Tell me about the river."
ANSWER_EVENTS = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]


@pytest.fixture
def connection(running: Running) -> Iterator[Any]:
    with opened(running, seed=1) as connection:
        yield connection


@contextmanager
def opened(running: Running, **session: Any) -> Iterator[Any]:
    """A session of the official client with these settings."""
    client = openai.OpenAI(base_url=running.url, api_key="none", max_retries=0)
    with client.realtime.connect(model="gpt-realtime") as connection:
        assert connection.recv().type == "session.created"
        connection.session.update(session={"type": "realtime", **session})
        assert connection.recv().type == "session.updated"
        yield connection


def say(connection: Any, text: str, role: str = "user") -> str:
    """Adds a message; gives its id."""
    kind = "output_text" if role == "assistant" else "input_text"
    connection.conversation.item.create(
        item={"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
    )
    added, done = connection.recv(), connection.recv()
    assert (added.type, done.type) == ("conversation.item.added", "conversation.item.done")
    return added.item.id


def events_until(connection: Any, kind: str) -> list[Any]:
    events = [connection.recv()]
    while events[-1].type != kind:
        assert events[-1].type != "error", events[-1]
        events.append(connection.recv())
    return events


def answered(connection: Any) -> list[Any]:
    connection.response.create()
    return events_until(connection, "response.done")


def sound(events: list[Any]) -> bytes:
    return b"".join(base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta")


def transcript(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_audio_transcript.delta")


def kept(connection: Any, item_id: str) -> str:
    """What the server has of an answer in its conversation."""
    connection.conversation.item.retrieve(item_id=item_id)
    return connection.recv().item.content[0].transcript


def test_an_answer_is_what_the_session_of_the_voice_says(connection: Any, voice: Voice) -> None:
    say(connection, QUESTION)
    events = answered(connection)
    with voice.session(seed=1) as session:
        chunks = list(session.say(QUESTION))
        first = session.messages[-1]["content"]
        expected = soxr.resample(np.concatenate(chunks), voice.sample_rate, RATE)
        assert transcript(events) == first
        heard = np.frombuffer(sound(events), "<i2") / np.float32(32767)
        assert len(heard) == pytest.approx(len(expected), abs=2)
        size = min(len(heard), len(expected))
        assert np.abs(heard[:size] - expected[:size]).max() < 2e-3
        say(connection, "And then?")
        list(session.say("And then?"))
        assert transcript(answered(connection)) == session.messages[-1]["content"]
    others = [event.type for event in events if not event.type.endswith(".delta")]
    assert others == ANSWER_EVENTS
    done = events[-1].response
    assert done.status == "completed" and done.output[0].content[0].transcript == first


def test_the_instructions_and_earlier_messages_are_read(connection: Any, voice: Voice) -> None:
    connection.session.update(session={"type": "realtime", "instructions": "Answer.", "max_output_tokens": 20})
    updated = connection.recv()
    assert updated.session.instructions == "Answer." and updated.session.max_output_tokens == 20
    say(connection, "Who are you?")
    say(connection, "A voice.", role="assistant")
    say(connection, QUESTION)
    read = [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "A voice."},
        {"role": "user", "content": QUESTION},
    ]
    spoken = transcript(answered(connection))
    with voice.session(read, seed=1) as session:
        list(session.answer())
        whole = session.messages[-1]["content"]
    assert spoken == whole


def test_cancel_ends_the_answer_and_keeps_what_was_sent(connection: Any, running: Running) -> None:
    say(connection, QUESTION)
    connection.response.create()
    events_until(connection, "response.output_audio.delta")
    connection.response.cancel()
    done = events_until(connection, "response.done")[-1].response
    assert done.status == "cancelled" and done.status_details.reason == "client_cancelled"
    assert done.output[0].status == "incomplete"
    until(lambda: running.service.admission.speaking == 0, seconds=3)
    say(connection, QUESTION)
    assert answered(connection)[-1].response.status == "completed"


def test_truncate_takes_what_was_not_heard_out_of_the_conversation(connection: Any, voice: Voice) -> None:
    say(connection, QUESTION)
    events = answered(connection)
    item, said = events[-1].response.output[0].id, transcript(events)
    half = len(sound(events)) * 1000 // (2 * RATE) // 2
    connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=half)
    truncated = connection.recv()
    assert (truncated.type, truncated.item_id, truncated.audio_end_ms) == ("conversation.item.truncated", item, half)
    heard = kept(connection, item)
    assert heard and len(heard) < len(said) and said.startswith(heard)
    say(connection, "And then?")
    spoken = transcript(answered(connection))
    with voice.session(seed=1) as session:
        list(session.say(QUESTION))
        assert session.truncate(half / 1000) == heard
        list(session.say("And then?"))
        assert spoken == session.messages[-1]["content"]


def test_truncate_while_it_is_spoken_cancels_first(connection: Any) -> None:
    say(connection, QUESTION)
    connection.response.create()
    item = events_until(connection, "response.output_audio.delta")[-1].item_id
    connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=10)
    assert events_until(connection, "response.done")[-1].response.status == "cancelled"
    assert connection.recv().type == "conversation.item.truncated"


def test_items_are_placed_retrieved_and_deleted(connection: Any) -> None:
    first = say(connection, "one")
    connection.conversation.item.create(
        item={"type": "message", "role": "user", "id": "mine", "content": [{"type": "input_text", "text": "zero"}]},
        previous_item_id="root",
    )
    added = connection.recv()
    assert added.item.id == "mine" and added.previous_item_id is None
    assert connection.recv().type == "conversation.item.done"
    connection.conversation.item.delete(item_id=first)
    assert connection.recv().type == "conversation.item.deleted"
    connection.conversation.item.retrieve(item_id=first)
    assert connection.recv().error.code == "item_not_found"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"type": "input_audio_buffer.append", "audio": ""}, "input_audio_buffer.append"),
        ({"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}}, "audio"),
        (
            {"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"voice": "nobody"}}}},
            SPEAKER,
        ),
        ({"type": "session.update", "session": {"type": "realtime", "language": "klingon"}}, "klingon"),
        ({"type": "session.update", "session": {"type": "realtime", "tools": [{}]}}, "tools"),
        ({"type": "session.update", "session": {"type": "realtime", "model": "other"}}, "model"),
        ({"type": "response.cancel"}, "no such answer"),
        ({"type": "response.create", "response": {"conversation": "none"}}, "conversation"),
        ({"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 5}, "no item"),
        ({"type": "conversation.item.delete"}, "item_id"),
        ({"type": 5}, "type"),
        ({}, "type"),
        ([], "dictionary"),
    ],
)
def test_wrong_events_are_answered_with_an_error(connection: Any, event: Any, words: str) -> None:
    named = event | {"event_id": "mine"} if isinstance(event, dict) else event
    connection._connection.send(json.dumps(named))  # the client itself sends no wrong ones
    answer = connection.recv()
    assert answer.type == "error" and words in answer.error.message
    assert answer.error.event_id == ("mine" if isinstance(event, dict) else None)
    say(connection, "The session goes on.")


def test_an_answer_to_nothing_fails_in_words(connection: Any) -> None:
    events = answered(connection)
    done = events[-1].response
    assert done.status == "failed" and "nothing to answer" in done.status_details.error.message


def test_one_answer_at_a_time(connection: Any) -> None:
    say(connection, QUESTION)
    connection.response.create()
    connection.response.create()
    events = [connection.recv() for _ in range(6)]
    assert [event.error.code for event in events if event.type == "error"] == [
        "conversation_already_has_active_response"
    ]


def test_a_client_that_goes_away_frees_its_slot(running: Running, voice: Voice) -> None:
    with opened(running) as connection:
        say(connection, QUESTION)
        connection.response.create()
        events_until(connection, "response.output_audio.delta")
    until(lambda: running.service.admission.speaking == 0 and voice._current_engine().active == 0, seconds=3)


def test_frames_that_are_no_event_do_no_harm(running: Running) -> None:
    with connect(f"ws{running.url[4:]}/realtime") as socket:
        socket.recv()
        for frame in ("{", "[" * 50_000, "null", '"x"'):
            socket.send(frame)
            assert json.loads(socket.recv())["type"] == "error"
        socket.send("x" * 600_000)
        with pytest.raises(ConnectionClosed):
            socket.recv()
    with connect(f"ws{running.url[4:]}/realtime") as socket:
        socket.recv()
        socket.send(b"\0\1")
        assert json.loads(socket.recv())["type"] == "error"


def test_who_may_open_a_session(voice: Voice) -> None:
    key = "a-key-that-is-long-enough"
    with serving({"linear": voice}, ServerConfig(port=0, sessions=1), [key]) as server:
        url = f"ws{server.url[4:]}/realtime"
        for arguments in ({}, {"subprotocols": ["realtime", "openai-insecure-api-key.wrong"]}):
            with pytest.raises(InvalidStatus) as caught:
                connect(url, **arguments)
            assert caught.value.response.status_code == 401
        with pytest.raises(InvalidStatus) as caught:
            connect(url, additional_headers={"Authorization": f"Bearer {key}"}, origin="https://evil.example")
        assert caught.value.response.status_code == 403
        with connect(url, subprotocols=["realtime", f"openai-insecure-api-key.{key}"]) as socket:
            assert socket.subprotocol == "realtime"
            with pytest.raises(InvalidStatus) as caught:
                connect(url, additional_headers={"Authorization": f"Bearer {key}"})
            assert caught.value.response.status_code == 429
