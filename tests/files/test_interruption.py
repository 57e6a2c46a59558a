"""Ctrl-C: finish the step, stop, say how to go on; a second one ends at once."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from audio_projection.cli import app
from audio_projection.data.corpora.workers import run_shards
from audio_projection.errors import AudioProjectionError
from audio_projection.files.interruption import Interrupted, stop_requested
from audio_projection.files.lock import folder_lock


def send(number: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def test_the_first_one_asks_and_the_second_one_ends(caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_requested("this step") as stop:
        assert not stop.is_set()
        send()
        assert stop.is_set() and stop.by_keyboard and "stopping after this step" in caplog.text
        send()
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_asks_too_where_that_is_wanted() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requested("this step", signal.SIGTERM) as stop:
        send(signal.SIGTERM)
        assert stop.is_set() and not stop.by_keyboard
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_handles_no_signals() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stop_requested("this step") as stop:
            seen.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_shards_end_after_the_one_that_is_begun() -> None:
    done: list[int] = []

    def work(task: int) -> int:
        if task == 2:
            send()
        done.append(task)
        return task

    with pytest.raises(Interrupted, match="run the same command again, it goes on where it stopped"):
        list(run_shards(lambda number: work, range(6), 1))
    assert done == [0, 1, 2]


def test_the_last_shard_may_end() -> None:
    def work(task: int) -> int:
        if task == 2:
            send()
        return task

    assert list(run_shards(lambda number: work, range(3), 1)) == [0, 1, 2]


def slow(number: int) -> object:
    return _sleep


def _sleep(task: int) -> int:
    import time

    time.sleep(0.2)
    return task


@pytest.mark.slow
def test_worker_processes_end_what_they_began() -> None:
    found: list[int] = []
    with pytest.raises(Interrupted):
        for result in run_shards(slow, range(40), 2):  # type: ignore[arg-type]
            found.append(result)
            if len(found) == 1:
                send()
    assert 1 < len(found) < 12


def test_the_command_exits_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    command = typer.Typer()

    @command.command()
    def stop() -> None:
        raise Interrupted("interrupted; run it again")

    arguments, app.sys.argv = app.sys.argv, ["x"]
    try:
        with pytest.raises(SystemExit) as ended:
            app._run(command)
    finally:
        app.sys.argv = arguments
    assert ended.value.code == 130 and "error: interrupted; run it again" in capsys.readouterr().err


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "run"):
        with (
            pytest.raises(AudioProjectionError, match=f"another run .process {os.getpid()}. writes into .*run"),
            folder_lock(tmp_path / "run"),
        ):
            pass
        with folder_lock(tmp_path / "other"):
            pass
    with folder_lock(tmp_path / "run"):
        pass


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with folder_lock(tmp_path):
            os._exit(0)
    os.waitpid(child, 0)
    with folder_lock(tmp_path):
        pass
