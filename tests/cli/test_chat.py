"""`chat`: a conversation in the terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer

from audio_projection.cli import chat as module
from audio_projection.cli.spoken_turn import Outlet, Words
from audio_projection.errors import AudioProjectionError
from audio_projection.files.playback import live_player
from audio_projection.files.playback.live_player import PlaybackClock, find_program, open_player
from helpers.answers import scripted
from helpers.paths import REPOSITORY
from helpers.voices import make_voice

PLAYER = """
import pathlib, sys, time
data = sys.stdin.buffer.read(44)
while part := sys.stdin.buffer.read(3200):
    data += part
    time.sleep(float(sys.argv[2]))
with pathlib.Path(sys.argv[1]).open("a") as file:
    file.write(f"{data[:4].decode()} {len(data)}\\n")
"""
ANSWER = "Hello dog. The quick brown fox said hello! The lazy dog said good day."


@pytest.fixture
def player(tmp_path: Path) -> Path:
    """A program that plays nothing, and notes what it was given."""
    path = tmp_path / "player.py"
    path.write_text(PLAYER)
    return path


def command_of(player: Path, seconds: float = 0.0) -> list[str]:
    return [sys.executable, str(player), str(player.with_name("played.txt")), str(seconds)]


def running(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "audio_projection", "chat", "--config", "nano", *words]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload, no-any-return]


@pytest.mark.posix
def test_a_conversation_through_pipes(player: Path, tmp_path: Path) -> None:
    """Two answers in words, to the player and into files; a line that is no text is named, the others spoken."""
    folder = tmp_path / "answers"
    folder.mkdir()
    (folder / "0007.wav").write_bytes(b"an earlier answer")
    with running("--player", " ".join(command_of(player)), "--output-dir", str(folder)) as program:
        out, err = program.communicate(b"Tell me about the river.\n\n\xff\nAnd about the king?\n", timeout=250)
    assert program.returncode == 1 and b"not UTF-8 (byte 1)" in err and b"1 answers could not be spoken" in err
    assert b"Traceback" not in err
    lines = out.decode().splitlines()
    assert len(lines) == 4 and "0008.wav: " in lines[1] and "0009.wav: " in lines[3] and lines[0][-1] in '.!?"'
    sizes = [(folder / f"000{number}.wav").stat().st_size for number in (8, 9)]
    assert (folder / "0007.wav").read_bytes() == b"an earlier answer"
    assert player.with_name("played.txt").read_text().split() == ["RIFF", str(sizes[0]), "RIFF", str(sizes[1])]


@pytest.mark.posix
def test_ctrl_c_stops_the_answer_and_not_the_program(player: Path, tmp_path: Path) -> None:
    folder = tmp_path / "answers"
    with running("--player", " ".join(command_of(player, 0.5)), "--output-dir", str(folder)) as program:
        assert program.stdin is not None and program.stdout is not None and program.stderr is not None
        program.stdin.write(b"Tell me about the river.\nAnd about the king?\n")
        program.stdin.close()
        os.read(program.stdout.fileno(), 1)  # the first words are there
        program.send_signal(signal.SIGINT)
        out, err = program.stdout.read(), program.stderr.read()
    assert program.returncode == 0 and b"(stopped)" in err and b"Traceback" not in err, err
    assert b"0001.wav" in out and b"0002.wav" in out
    whole = soundfile.info(folder / "0002.wav").frames * 2 + 44
    assert player.with_name("played.txt").read_text().split() == ["RIFF", str(whole)]  # the first one was silenced


def test_the_conversation_keeps_what_was_heard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ctrl-C while the third of seven chunks is played, of which the player has still to play all."""
    voice = make_voice(context="chat", layout="streaming", max_frames=12, chunks=(4,))
    scripted(voice, monkeypatch, ANSWER)
    seconds = 4 * voice.tts.samples_per_frame / voice.sample_rate
    handler = signal.getsignal(signal.SIGINT)

    class Silent:
        written, stopped = 0, threading.Event()

        def write(self, samples: np.ndarray) -> None:
            self.written += 1
            if self.written == 5:
                signal.raise_signal(signal.SIGINT)
                assert self.stopped.wait(10)

        def finish(self) -> None:
            raise AssertionError("it was stopped")

        def stop(self) -> None:
            self.stopped.set()

    class Clock(PlaybackClock):
        played = 4 * seconds

    monkeypatch.setattr("audio_projection.cli.spoken_turn.open_player", lambda *_: Silent())
    monkeypatch.setattr("audio_projection.cli.spoken_turn.PlaybackClock", Clock)
    with voice.session() as session:
        assert module._turn(session, b"hello", Outlet(voice.sample_rate, True, None, tmp_path / "a.wav"))
        kept = session.messages[-1]["content"]
    assert kept.startswith("Hello dog.") and len(kept) < len(ANSWER) / 2
    assert soundfile.info(tmp_path / "a.wav").duration == pytest.approx(5 * seconds)
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_answer_without_words_is_an_error_and_the_program_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    voice = make_voice(context="chat", layout="streaming")
    scripted(voice, monkeypatch, "... !?")
    with voice.session() as session:
        assert not module._turn(session, b"hello", Outlet(voice.sample_rate, False, None, None))
        assert not module._turn(session, b"\xff", Outlet(voice.sample_rate, False, None, None))
    assert "nothing to speak in it" in caplog.text and "not UTF-8" in caplog.text


def test_in_a_terminal_lines_are_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C at the prompt does not leave, the end of the input does; blank lines are no questions."""
    given: list[Any] = ["hello", KeyboardInterrupt(), "  ", "and now?", EOFError()]

    def asked(prompt: str) -> str:
        assert prompt == "> "
        line = given.pop(0)
        if isinstance(line, BaseException):
            raise line
        return str(line)

    monkeypatch.setattr("builtins.input", asked)
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    assert list(module._lines()) == [b"hello", b"and now?"] and not given
    assert "Ctrl-D leaves" in capsys.readouterr().err


def test_where_the_sound_goes_is_asked_for() -> None:
    with pytest.raises(typer.BadParameter, match="--play, --output-dir or both"):
        module.chat()


def test_players_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(AudioProjectionError, match="--player no-such-program -q: no such program"):
        find_program("no-such-program -q")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(AudioProjectionError, match="sounddevice.*aplay.*--output-dir"):
        find_program(None)
    monkeypatch.setitem(sys.modules, "sounddevice", object())
    assert find_program(None) is None


@pytest.mark.posix
def test_a_player_that_ends_early_is_named() -> None:
    player = open_player([sys.executable, "-c", "pass"], 16_000)
    with pytest.raises(AudioProjectionError, match="ended before the sound did"):
        for _ in range(1000):
            player.write(np.zeros(16_000, np.float32))
    player.stop()
    failing = open_player([sys.executable, "-c", "import sys; sys.stdin.buffer.read(); sys.exit(3)"], 16_000)
    failing.write(np.zeros(10, np.float32))
    with pytest.raises(AudioProjectionError, match="could not play the sound"):
        failing.finish()


def test_sound_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Stream:
        def __init__(self, **options: Any) -> None:
            calls.append(options)

        def write(self, samples: np.ndarray) -> None:
            calls.append(samples.shape)

        def __getattr__(self, name: str) -> Any:
            return lambda: calls.append(name)

    library = type("library", (), {"OutputStream": Stream, "PortAudioError": OSError})
    monkeypatch.setitem(sys.modules, "sounddevice", library)
    player = open_player(None, 16_000)
    player.write(np.zeros(10, np.float32))
    player.finish()
    assert calls == [{"samplerate": 16_000, "channels": 1, "dtype": "float32"}, "start", (10, 1), "stop", "close"]


def test_the_clock_of_playback(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(live_player.time, "monotonic", lambda: now[0])
    clock = PlaybackClock()
    assert clock.played == 0
    clock.wrote(2.0)
    assert clock.played == 0
    now[0] += 0.5
    clock.wrote(1.0)
    assert clock.played == pytest.approx(0.5)
    now[0] += 10
    assert clock.played == pytest.approx(3.0)
    clock.wrote(1.0)
    now[0] += 0.25
    assert clock.played == pytest.approx(3.25)


def test_words_are_shown_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    words = Words()
    for text in ("", "Hello", "Hello there.", "Hello there. Good"):
        words.show(text)
    words.end()
    assert capsys.readouterr().out == "Hello there. Good\n"
