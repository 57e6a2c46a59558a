"""Several processes on a corpus that nobody has encoded: each does its share, and none waits for one that has ended."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from audio_projection import processes
from audio_projection.config import Config
from audio_projection.data.make_pairs import _check_same_folder
from audio_projection.data.pairs import PairFolder
from audio_projection.errors import AudioProjectionError
from audio_projection.processes import ALONE, Processes
from audio_projection.training.run_log import read_metrics
from helpers.paths import TESTS
from helpers.processes import free_port
from helpers.training import make_config, parity_file, save_llm, write_noise

pytestmark = pytest.mark.timeout(900)
RECORDINGS = 12


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llm(tmp_path_factory.mktemp("llm"))


def fresh_config(folder: Path, llm: Path) -> Config:
    """Two steps on twelve recordings by the tiny models, the layer probed and the projector fitted before."""
    lines = []
    for number in range(RECORDINGS):
        write_noise(folder / f"{number}.wav", 0.6 + number / 20, seed=number)
        lines.append(f"{number}.wav\thello there quick brown fox {number}")
    (folder / "list.tsv").write_text("\n".join(lines), encoding="utf-8")
    config = make_config(folder / "run", steps=2, batch=2, checkpoint_every=1, eval_every=2)
    config.llm.name, config.llm.layers, config.tts.name = str(llm), "probe", str(parity_file("tiny_custom_voice"))
    config.data.source, config.data.path, config.data.held_out = "manifest", folder / "list.tsv", 2
    config.fit.held_out, config.fit.ridges = 1, [1e-1]
    return config


def begin(folder: Path, config: Config, count: int, dies: Sequence[int] = ()) -> list[subprocess.Popen[str]]:
    path = folder / "config.json"
    path.write_text(config.model_dump_json(), encoding="utf-8")
    paths = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(free_port()), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, str(TESTS / "helpers/rank.py"), str(path), *(["die"] if rank in dies else [])],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def test_two_processes_encode_half_each_and_train(tmp_path: Path, llm: Path) -> None:
    config = fresh_config(tmp_path, llm)
    running = begin(tmp_path, config, 2)
    told = [process.communicate(timeout=800) for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    for rank, (_, errors) in enumerate(told):
        assert f"process {rank} encodes {RECORDINGS // 2} of {RECORDINGS} recordings" in errors
    fits, probes = ([sum(word in errors for _, errors in told)] for word in ("fit: R2", "probe: layer"))
    assert fits == probes == [1], "the fit and the probe are the first process's alone"
    (folder,) = (config.output_dir / "codes").iterdir()
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("part-*.json"))]
    assert [len(part) for part in entries] == [RECORDINGS // 2] * 2
    assert len({entry["id"] for part in entries for entry in part}) == RECORDINGS
    steps = [record["step"] for record in read_metrics(config.run_dir / "metrics.jsonl") if "training" in record]
    assert steps == [1, 2] and (config.trained_projector / "projector.safetensors").is_file()
    measured = json.loads((config.trained_projector / "projector.json").read_text(encoding="utf-8"))["measurements"]
    assert {"fit", "probe", "train"} <= measured.keys()


@pytest.mark.parametrize("dead", [0, 1])
def test_one_that_dies_in_encoding_ends_the_other_within_a_minute(tmp_path: Path, llm: Path, dead: int) -> None:
    config = fresh_config(tmp_path, llm)
    running = begin(tmp_path, config, 2, dies=[dead])
    running[dead].communicate(timeout=300)
    began = time.monotonic()
    _, errors = running[1 - dead].communicate(timeout=300)
    assert time.monotonic() - began < 60
    assert running[dead].returncode == 9 and running[1 - dead].returncode == 1
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert f"process {dead} of 2" in line and "the end of encoding the recordings" in line
    assert "the same command goes on where it stopped" in line


class Board:
    """A store that processes of one program share."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)


def test_shares_make_up_the_whole() -> None:
    board, items = Board(), list(range(11))
    shares = [Processes(index, 3, board).share(items) for index in range(3)]
    assert sorted(sum(shares, [])) == items and {len(share) for share in shares} == {3, 4}
    assert ALONE.share(items) == items


def test_alone_nothing_is_waited_for() -> None:
    ALONE.wait("nobody")
    assert ALONE.first("nothing", lambda: {"layer": 3}) == {"layer": 3}


def test_an_end_with_a_reason_is_known_at_once() -> None:
    board = Board()
    one, other = Processes(0, 2, board), Processes(1, 2, board)
    with pytest.raises(AudioProjectionError, match="the disk is full"), one.ending_together():
        raise AudioProjectionError("the disk is full")
    began = time.monotonic()
    with pytest.raises(
        AudioProjectionError, match=re.escape("process 0 of 2 (counted from 0) has ended, before the fit")
    ):
        other.wait("the fit")
    with pytest.raises(AudioProjectionError, match="the disk is full"):
        other.first("the probe", dict)
    assert time.monotonic() - began < 2


def test_a_process_that_lives_but_never_comes_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LONGEST", 0.3)
    board = Board()
    one, _ = Processes(0, 2, board), Processes(1, 2, board)
    with pytest.raises(AudioProjectionError, match=r"process 1 of 2 .* has not come to the fit in"):
        one.wait("the fit")


def test_a_lost_store_is_the_end_of_its_keeper() -> None:
    class Lost(Board):
        def check(self, keys: list[str]) -> bool:
            raise RuntimeError("Connection reset by peer")

    with pytest.raises(AudioProjectionError, match="process 0 of 2 .* has ended, before the fit"):
        Processes(1, 2, Lost()).wait("the fit")


def test_a_broken_collective_names_the_process_that_ended() -> None:
    board = Board()
    one, other = Processes(0, 2, board), Processes(1, 2, board)
    with pytest.raises(AudioProjectionError, match="x"), other.ending_together():
        raise AudioProjectionError("x")
    with pytest.raises(AudioProjectionError, match="process 1 of 2 .* during training"), one.ending_together():
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1234")
    with pytest.raises(RuntimeError, match="shapes"), ALONE.ending_together():
        raise RuntimeError("shapes do not fit")


def test_the_wait_for_a_silent_process_is_far_below_a_minute() -> None:
    assert processes.SILENT + 2 * processes.BEAT < 45


def test_processes_that_see_other_folders_are_told_so(tmp_path: Path) -> None:
    board = Board()
    one, other = Processes(0, 2, board), Processes(1, 2, board)
    folder = PairFolder(tmp_path, {})
    _check_same_folder(one, folder, 12)
    with pytest.raises(AudioProjectionError, match="process 1 sees 6 pairs .* the first one 12: .* data.cache"):
        _check_same_folder(other, folder, 6)
    _check_same_folder(ALONE, folder, 3)
