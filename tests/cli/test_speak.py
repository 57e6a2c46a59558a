"""The command line without any model: usage, error messages, and checks before long work."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

import audio_projection
from audio_projection import cli
from audio_projection.cli import speak
from audio_projection.config import load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import check_for_speaking, find_projector
from helpers.paths import REPOSITORY

NANO = ("--config", "configs/nano.yaml")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs `audio-projection ...` in this process, from an empty folder, with empty model caches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "argv", ["audio-projection", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """Stands in for the models: records what is spoken into which file, and fails on the word `fail`."""
    spoken: list[tuple[str, Path]] = []

    class Noting:
        def __init__(self, *_: object) -> None:
            pass

        def speak(self, text: str, output: Path) -> float:
            if "fail" in text:
                raise AudioProjectionError("it fails")
            output.write_bytes(text.encode())
            spoken.append((text, output))
            return 1.5

        def speak_all(self, texts: Sequence[tuple[str, Path]]) -> Iterator[float | AudioProjectionError]:
            for text, output in texts:
                try:
                    yield self.speak(text, output)
                except AudioProjectionError as error:
                    yield error

        def chat(self, question: str, output: Path) -> tuple[str, float]:
            return "an answer", self.speak(question, output)

    monkeypatch.setattr(speak, "Speaker", Noting)
    return spoken


def assert_refused(ended: Ended, *words: str, code: int = 1) -> None:
    assert ended.code == code and ended.out == ""
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1, ended.err
    for word in words:
        assert word in ended.err


def test_the_projector_that_is_found_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load_config("configs/nano.yaml", [f"output_dir={tmp_path}"])
    with caplog.at_level("INFO"):
        check_for_speaking(config)
        folder = find_projector(config)
    assert [record.getMessage() for record in caplog.records] == [f"projector: {folder} (shipped)"]


@pytest.mark.parametrize(
    "name", ["download", "fit", "train", "speak", "evaluate", "robustness", "data prepare", "data features"]
)
def test_every_command_has_help_with_an_example(command: Command, name: str) -> None:
    ended = command(*name.split(), "--help")
    assert ended.code == 0 and ended.err == ""
    assert "Example" in ended.out and "--config" in ended.out


def test_the_version_is_printed(command: Command) -> None:
    assert command("--version") == Ended(0, f"audio-projection {audio_projection.__version__}\n", "")


def test_a_configuration_by_its_name(command: Command, speaker: list[tuple[str, Path]], tmp_path: Path) -> None:
    (tmp_path / "nano").mkdir()
    assert command("speak", "--config", "nano", "--text", "Hello").code == 0
    assert_refused(command("speak", "--config", "nanoo", "--text", "Hello"), "nanoo", "default, nano, nano-gguf")


def test_a_corpus_by_its_new_and_its_old_name(command: Command, tmp_path: Path) -> None:
    for name in ("common_voice", "commonvoice"):
        assert_refused(command("data", "download", name), "account", "data prepare common_voice")
        ended = command("data", "prepare", name, str(tmp_path), str(tmp_path / "out"), *NANO)
        assert_refused(ended, "train.tsv", "No such file")
    for words in (("data", "download"), ("data", "prepare")):
        shown = command(*words, "--help").out
        assert "common_voice" in shown and "commonvoice" not in shown
    assert_refused(command("data", "prepare", "timit", "a", "b"), "librispeech, ljspeech, common_voice", code=2)


HELP = """
import sys, time
start = time.process_time()
sys.argv = ["audio-projection", "--help"]
from audio_projection.cli import main
try:
    main()
except SystemExit as ended:
    assert ended.code == 0
assert not {"torch", "transformers", "huggingface_hub", "soundfile"} & set(sys.modules)
print(time.process_time() - start, file=sys.stderr)
"""
LIBRARIES = """
import sys, time
start = time.process_time()
import numpy, pydantic, rich.console, rich.progress, typer, yaml
print(time.process_time() - start, file=sys.stderr)
"""


def processor_time(code: str) -> float:
    """Processor seconds of a new process for the code, without Python's own start; the least of three."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, env=environment) for _ in range(3)]
    assert all(done.returncode == 0 for done in runs), runs[0].stderr
    return min(float(done.stderr) for done in runs)


def test_help_takes_hardly_longer_than_its_libraries() -> None:
    assert processor_time(HELP) < 3 * processor_time(LIBRARIES)


def test_corpora_that_cannot_be_brought_or_found(command: Command, tmp_path: Path) -> None:
    assert_refused(command("data", "download", "commonvoice"), "account", "data prepare common_voice")
    prepare = ("data", "prepare", "ljspeech", str(tmp_path), str(tmp_path / "out"), *NANO)
    assert_refused(command(*prepare), "metadata.csv", "No such file")
    assert_refused(command("data", "features", str(tmp_path), str(tmp_path / "out"), *NANO), "no prepared corpus")
    assert not (tmp_path / "out").exists()


def test_no_command_shows_the_commands(command: Command) -> None:
    ended = command()
    assert ended.code == 2
    for name in ["download", "fit", "train", "speak", "evaluate", "robustness"]:
        assert name in ended.out + ended.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["speek"], "speek"),
        (["speak", "--text", "a", "--chat", "b"], "one of --text"),
        (["speak", "--text-file", "a"], "--output-dir"),
        (["speak", "--text", "a", "--output-dir", "b"], "--text-file"),
        (["speak", "--text-file", "a", "--output-dir", "b", "--output", "c.wav"], "--output goes with one text"),
        (["speak", "--seed", "x", "--text", "a"], "--seed"),
        (["speak", "--control", "magic", "--text", "a"], "--control"),
        (["speak", "--chat", "a", "--control", "plain"], "--chat"),
        (["speak", "--text", "a", "--ref-text", "b"], "--ref-audio"),
        (["speak", "--nonsense"], "--nonsense"),
        (["download", "--only", "everything"], "--only"),
        (["train", "--projector", "cubic"], "--projector"),
        (["evaluate", "--limit", "0"], "--limit"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(command: Command, arguments: list[str], words: str) -> None:
    assert_refused(command(*arguments), words, code=2)


def test_the_default_commands_say_what_is_missing_and_the_ways_on(command: Command) -> None:
    ways = ["Llama-3.1-8B-Instruct", "Qwen3-TTS-12Hz-1.7B-Base", "download_models.py", "--config configs/nano.yaml"]
    assert_refused(command("speak", "--text", "Hello"), *ways, "src/train.py", "trained projector")
    assert_refused(command("train"), *ways, "LibriSpeech/train-clean-100")
    assert_refused(command("fit"), *ways)


@pytest.mark.parametrize("text", ["", "   ", "!?...", "\U0001f600\U0001f680", "a\x00b", "a\udcffb"], ids=ascii)
def test_text_that_cannot_be_spoken(command: Command, tmp_path: Path, text: str) -> None:
    assert_refused(command("speak", *NANO, "--text", text))
    assert list(tmp_path.iterdir()) == []


def test_the_output_is_looked_at_before_the_models(command: Command, tmp_path: Path) -> None:
    for output, words in [("a.txt", ".wav"), ("none/a.wav", "no folder"), (".wav", ".wav")]:
        assert_refused(command("speak", "--text", "Hello", "--output", output), words)
    assert list(tmp_path.iterdir()) == []


def test_a_projector_that_is_not_there(command: Command, tmp_path: Path) -> None:
    assert_refused(command("speak", *NANO, "--text", "Hello", "--projector", "mine"), "mine", "no such folder")
    (tmp_path / "mine").mkdir()
    assert_refused(command("speak", *NANO, "--text", "Hello", "--projector", "mine"), "no projector.json")


def test_mistakes_in_the_configuration(command: Command) -> None:
    assert_refused(command("speak", "--text", "a", "trian.steps=1"), "did you mean 'train'")
    assert_refused(command("train", "train.steps=many"), "whole number")
    assert_refused(command("speak", "--text", "a", "--dtype", "float8"), "llm.dtype")
    assert_refused(command("speak", "--text", "a", "--device", "gpu"), "device")
    assert_refused(command("speak", "--text", "a", "--device", "cuda:99"), "no device cuda:99")
    assert_refused(command("speak", "--text", "a", "--config", "none.yaml"), "none.yaml")
    assert_refused(command("speak", "--text", "a", "--threads", "0"), "configuration: threads")
    assert_refused(command("speak", "--text", "a", "--threads", "1000000"), "threads", "1024")
    assert_refused(command("speak", "--text", "a", "foo.bar=1"), "choose one of llm, tts")
    assert_refused(command("speak", "--text", "a", "--gguf", "nowhere"), "export gguf")


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_tts_without_gradients_is_refused_before_any_work(command: Command, options: list[str]) -> None:
    assert_refused(command("train", *NANO, "tts.backend=gguf", *options), "tts.backend=torch")


def test_a_text_is_spoken(command: Command, speaker: list[tuple[str, Path]]) -> None:
    ended = command("speak", "--text", "Hello world", "--output", "füß e.wav")
    assert ended == Ended(0, "füß e.wav: 1.50 s\n", "")
    assert speaker == [("Hello world", Path("füß e.wav"))]


def test_a_text_from_stdin(command: Command, speaker: list[tuple[str, Path]]) -> None:
    assert command("speak", stdin="שלום hello\n".encode()).code == 0
    assert speaker == [("שלום hello\n", Path("output.wav"))]
    assert_refused(command("speak", stdin=b""))
    assert_refused(command("speak", stdin=b"caf\xe9"), "UTF-8")


def test_an_answer_is_shown_and_spoken(command: Command, speaker: list[tuple[str, Path]]) -> None:
    assert command("speak", "--chat", "Who?", "-o", "a.flac").out == "an answer\na.flac: 1.50 s\n"
    assert speaker == [("Who?", Path("a.flac"))]


def test_lines_of_a_file_by_number(command: Command, speaker: list[tuple[str, Path]], tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes("\ufeffOne\r\ntwo ü\n\nfail here\n".encode() + b"bad \xff\nlast\n\n\n")
    ended = command("speak", "--text-file", "lines.txt", "--output-dir", "out put")
    assert sorted(path.name for path in (tmp_path / "out put").iterdir()) == ["0001.wav", "0002.wav", "0006.wav"]
    assert [text for text, _ in speaker] == ["One", "two ü", "last"]
    assert ended.code == 1 and "2 of 5 lines could not be spoken: 4, 5" in ended.err
    assert ended.out.count("\n") == 3


def test_a_failed_line_is_named_with_its_reason(
    command: Command, speaker: list[tuple[str, Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lines.txt").write_text("good\nfail\n")
    command("speak", "--text-file", "lines.txt", "--output-dir", "out")
    assert "line 2: it fails" in caplog.text


def test_text_files_that_cannot_be_used(command: Command, speaker: list[tuple[str, Path]], tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "file").write_text("x")
    assert_refused(command("speak", "--text-file", "none.txt", "--output-dir", "out"), "none.txt")
    assert_refused(command("speak", "--text-file", "empty.txt", "--output-dir", "out"), "no text")
    (tmp_path / "a.txt").write_text("hello")
    assert_refused(command("speak", "--text-file", "a.txt", "--output-dir", "file"), "file", "choose another")
    assert speaker == []


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (MemoryError(), "not enough memory"),
        (OSError(28, "No space left on device"), "No space left"),
        (PermissionError(13, "Permission denied", "/root/x"), "/root/x: Permission denied"),
        (AudioProjectionError("two\nlines"), "two lines"),
    ],
)
def test_foreseeable_trouble_has_no_traceback(
    command: Command, monkeypatch: pytest.MonkeyPatch, trouble: BaseException, words: str
) -> None:
    def fail(*_: object) -> None:
        raise trouble

    monkeypatch.setattr(speak, "Speaker", fail)
    assert_refused(command("speak", "--text", "Hello"), words)


def test_an_interruption_has_no_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(speak, "Speaker", interrupt)
    ended = command("speak", "--text", "Hello")
    assert ended.code == 130 and "Traceback" not in ended.err


def test_a_mistake_of_the_program_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["audio-projection", "speak", "--text", "Hello"])
    monkeypatch.setattr(speak, "Speaker", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main()
