"""`audio-projection text`, and what `speak` has for answers and for playing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from audio_projection.errors import AudioProjectionError
from audio_projection.files.playback import player
from helpers.nano import CHARACTERS
from helpers.paths import REPOSITORY

NANO = ("--config", str(REPOSITORY / "configs" / "nano.yaml"))


def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "audio_projection", *arguments], input=stdin, capture_output=True, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_line_for_each_line() -> None:
    given = "Dr. Lee paid $3.50.\n\n👍\nShe said “NO” — twice.\n".encode()
    said = 'She said "no", twice.' if '"' in CHARACTERS else "She said no, twice."
    code, out, err = run("text", *NANO, stdin=given)
    assert (code, err) == (0, "")
    assert out.split("\n") == ["Doctor Lee paid three dollars and fifty cents.", "", "", said, ""]


def test_from_a_file_or_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes("\ufeffAt 10:30\n5 km".encode())
    assert run("text", *NANO, "--text-file", str(tmp_path / "lines.txt"))[1] == "At ten thirty\nFive kilometers\n"
    assert run("text", *NANO, "--text", "At 10:30")[1] == "At ten thirty\n"
    (tmp_path / "words.tsv").write_text("nginx\tengine X\n")
    words = f"tts.lexicon={tmp_path / 'words.tsv'}"
    assert run("text", *NANO, "--text", "my nginx", words)[1] == "my engine X\n"
    default = run("text", "--config", str(REPOSITORY / "configs" / "default.yaml"), "--text", "At 10:30 — “yes”")
    assert default[1] == "At 10:30 — “yes”\n"  # the real TTS reads figures itself


def test_an_answer_and_its_pieces() -> None:
    answer = b"### Steps\n\n1. **Open** the box.\n2. Take the key.\n\n```\ncode\n```\n<think>Hm.</think>Done."
    assert run("text", *NANO, "--answer", stdin=answer)[1] == "Steps Open the box. Take the key. Done.\n"
    pieces = run("text", *NANO, "--answer", "--pieces", stdin=answer)[1]
    assert pieces == "Steps\nOpen the box.\nTake the key.\nDone.\n"
    assert "One. Open" not in pieces and "code" in run("text", *NANO, stdin=answer)[1]


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (("--text", "a", "--text-file", "b"), b"", "one of --text and --text-file"),
        (("--text-file", "nothing.txt"), b"", "cannot read nothing.txt"),
        ((), b"caf\xe9", "not UTF-8"),
        ((), b"a\0", "NUL"),
        (("--text", "a", "tts.lexicon=none.tsv"), b"", "none.tsv"),
        (("--text", "a", "tts.normalise=german"), b"", "tts.normalise"),
    ],
)
def test_errors_in_one_line(arguments: tuple[str, ...], stdin: bytes, words: str) -> None:
    code, out, err = run("text", *NANO, *arguments, stdin=stdin)
    assert code != 0 and out == "" and words in err and err.count("\n") == 1 and err.startswith("error: ")


def test_it_needs_no_torch() -> None:
    program = (
        "import sys; sys.argv[0] = 'audio-projection'\n"
        "from audio_projection import cli\n"
        "try:\n    cli.main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    command = [sys.executable, "-c", program, "text", *NANO, "--text", "In 1999"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "In nineteen ninety nine\n"), done.stderr


# --- playing, and the system prompt


def make_player(folder: Path, name: str, code: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\necho {name} "$@" >> {folder}/played\nexit {code}\n')
    path.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="stands in for players with shell scripts")
def test_a_player_that_is_there_plays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    with pytest.raises(AudioProjectionError, match="--play needs one of ffplay, afplay, aplay"):
        player.find_players()
    make_player(tmp_path / "bin", "aplay")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setattr(player, "PLAYERS", (("aplay", "-q"),))
    player.play_file(player.find_players(), tmp_path / "a.wav")
    assert (tmp_path / "bin" / "played").read_text() == f"aplay -q {tmp_path / 'a.wav'}\n"
    with pytest.raises(AudioProjectionError, match=r"plays \.wav files only"):
        player.play_file(player.find_players(), tmp_path / "a.flac")
    make_player(tmp_path / "bin", "aplay", code=1)
    with pytest.raises(AudioProjectionError, match="could not play"):
        player.play_file(player.find_players(), tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--system", "Sing.", "--text", "hello"), "--system goes with --chat"),
        (("--play", "--text-file", "a", "--output-dir", "b"), "--play goes with one text"),
    ],
)
def test_wrong_usage_of_speak(arguments: tuple[str, ...], words: str) -> None:
    code, _, err = run("speak", *NANO, *arguments)
    assert code == 2 and words in err
