"""`audio-projection serve` as a program: where it listens, its keys, how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from audio_projection.cli.serve import KEYS_VARIABLE, _load_voices, read_keys
from audio_projection.config import load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.inference import Voice

LONG = "This is a long sentence that takes a while. " * 6


@contextmanager
def server(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running server and its address."""
    command = [sys.executable, "-m", "audio_projection", "serve", "--config", "nano", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"serving at (http://\S+)", line):
                    yield process, found[1]
                    return
            raise AssertionError("".join(said))
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.posix
def test_sigterm_lets_what_runs_end_and_kill_frees_the_port() -> None:
    port = free_port()
    with server("--port", str(port)) as (process, address):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        with client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input=LONG, response_format="pcm"
        ) as answer:
            chunks = answer.iter_bytes(512)
            next(chunks)
            process.send_signal(signal.SIGTERM)
            assert sum(map(len, chunks)) > 24_000 * 2 * 8
        assert process.wait(20) == 0
        with pytest.raises(openai.APIConnectionError):
            client.models.list()
    with server("--port", str(port)) as (process, address):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        with (
            pytest.raises(Exception, match="peer closed|reset|incomplete"),
            client.audio.speech.with_streaming_response.create(
                model="tts-1", voice="alloy", input=LONG, response_format="pcm"
            ) as answer,
        ):
            chunks = answer.iter_bytes(512)
            next(chunks)
            threading.Timer(0.05, process.kill).start()
            for _ in chunks:
                pass
    with server("--port", str(port)) as (_, address), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
        assert answer.status == 200


def test_an_address_in_use_is_said_in_a_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "audio_projection", "serve", "--config", "nano", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert re.search(rf"error: cannot listen on 127.0.0.1 port {port}: .*--port", done.stderr)
    assert "Traceback" not in done.stderr


def test_everybodys_server_warns_without_a_key(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from audio_projection.cli import serve as command
    from audio_projection.config import Config

    class Stop(Exception):
        pass

    def no_models(*_: object, **__: object) -> None:
        raise Stop

    monkeypatch.setattr("audio_projection.inference.Voice.from_config", no_models)
    for host, keys, warned in (("0.0.0.0", [], True), ("0.0.0.0", ["k" * 16], False), ("127.0.0.1", [], False)):
        caplog.clear()
        settings = Config.model_validate({"server": {"host": host, "port": 0}})
        with pytest.raises(Stop):
            command._run(settings, [None], keys)
        assert ("everybody who reaches 0.0.0.0" in caplog.text) is warned


def test_keys_come_from_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, "0123456789abcdef,fedcba9876543210")
    path = tmp_path / "keys"
    path.write_text("aaaaaaaaaaaaaaaaaaaa\n\nbbbbbbbbbbbbbbbbbbbb\n")
    assert read_keys(None) == ["0123456789abcdef", "fedcba9876543210"]
    assert read_keys(path)[2:] == ["a" * 20, "b" * 20]
    path.write_text("short\n")
    with pytest.raises(AudioProjectionError, match="guessed"):
        read_keys(path)
    path.write_text("\n")
    with pytest.raises(AudioProjectionError, match="no key"):
        read_keys(path)
    with pytest.raises(AudioProjectionError, match="cannot read"):
        read_keys(tmp_path / "none")


def test_several_projectors_are_several_models_of_one_voice() -> None:
    voices = _load_voices(load_config("configs/nano.yaml"), ["shipped/linear", "shipped/residual"])
    assert list(voices) == ["linear", "residual"]
    linear, residual = voices.values()
    assert linear.tts is residual.tts and linear._current_engine() is residual._current_engine()
    alone = Voice.from_config("configs/nano.yaml", projector="shipped/residual")
    assert (residual.speak("Good morning.", seed=1).samples == alone.speak("Good morning.", seed=1).samples).all()
