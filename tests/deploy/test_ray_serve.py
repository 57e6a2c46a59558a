"""Two replicas under Ray Serve: both speak, under load too, and a realtime session keeps its replica."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.paths import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.posix, pytest.mark.timeout(900)]
PORT = 8765


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    paths = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
    os.environ["PYTHONPATH"] = paths
    # on a busy small machine the processes of Ray start slowly
    for what in ("READY", "HEALTH"):
        os.environ[f"RAY_SERVE_PROXY_{what}_CHECK_TIMEOUT_S"] = "200"
    ray = pytest.importorskip("ray", reason="ray is not installed (audio-projection[ray])")
    serve = pytest.importorskip("ray.serve", reason="ray is not installed (audio-projection[ray])")
    sys.path.insert(0, str(REPOSITORY))
    from deploy.ray_serve import application

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(application({"config": "nano", "replicas": "2"}), route_prefix="/")
    yield f"http://127.0.0.1:{PORT}"
    serve.shutdown()
    ray.shutdown()


def test_both_replicas_speak_under_load(address: str) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120)

    def ask(number: int) -> tuple[str, bytes]:
        answer = client.audio.speech.with_raw_response.create(
            model="tts-1", voice="alloy", input="Good morning.", response_format="pcm", extra_body={"seed": 1}
        )
        return answer.headers["x-served-by"], answer.content

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(ask, range(24)))
    assert len({replica for replica, _ in answers}) == 2
    assert len({sound for _, sound in answers}) == 1 and len(answers[0][1]) > 24_000


def test_a_realtime_session_keeps_its_conversation(address: str) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    with client.realtime.connect(model="gpt-realtime") as connection:
        items = []
        for text in ("Who are you?", "And then?"):
            part = {"type": "input_text", "text": text}
            connection.conversation.item.create(item={"type": "message", "role": "user", "content": [part]})
            connection.response.create(response={"max_output_tokens": 16})
            for event in connection:
                assert event.type != "error", event
                if event.type == "response.done":
                    items.append(event.response.output[0].id)
                    break
        for item in items:
            connection.conversation.item.retrieve(item_id=item)
            assert connection.recv().type == "conversation.item.retrieved"
