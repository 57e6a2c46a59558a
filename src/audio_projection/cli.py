"""The installed command. Results go to stdout, talk to stderr, trouble becomes one line and a non-zero exit.

Exit codes: 0 done (also a training that SIGTERM ended with a checkpoint), 1 something is wrong that the message tells
how to mend, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import typer

from audio_projection import cli_data
from audio_projection import cli_options as options
from audio_projection.cli_export import export_app
from audio_projection.cli_settings import load_settings
from audio_projection.config import Config, load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.locations import check_for_fitting, check_for_training, check_gguf_folder, check_trainable

log = logging.getLogger("audio_projection")

COLLECTED_AT = 100_000
"""New objects before garbage is looked for. Python's 700 makes that a seventh of the time that the libraries load in,
for they make near a million objects, all to stay."""
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Speech from the hidden states of a frozen language model.",
)


def speak(
    overrides: options.Overrides = None,
    text: options.Text = None,
    text_file: options.TextFile = None,
    chat: options.Chat = None,
    output: options.Output = options.DEFAULT_OUTPUT,
    output_dir: options.OutputDir = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    gguf: options.GGUFFolder = None,
    projector: options.Projector = None,
    voice: options.VoiceName = None,
    language: options.Language = None,
    ref_audio: options.RefAudio = None,
    ref_text: options.RefText = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    seed: options.Seed = None,
    control: options.Control = None,
    threads: options.Threads = None,
) -> None:
    """Speak a text, the lines of a file, or the language model's answer to a question.

    \b
    Examples:
      speak --text "Hello world" --output output.wav
      speak --config configs/nano.yaml --text-file lines.txt --output-dir spoken
      speak --config configs/nano.yaml --chat "What is the sea?" -o answer.flac
      echo "Good morning" | speak --config configs/nano.yaml
      speak --gguf exported --text "Hello world"
    """
    if gguf is not None and config != options.DEFAULT_CONFIG:
        raise typer.BadParameter("give --gguf or --config: the folder has a configuration of its own")
    from audio_projection import audio, speaking

    _check_sources(text, text_file, chat, output, output_dir)
    if chat is not None and control is not None:
        raise typer.BadParameter("--control goes with reading aloud, not with --chat")
    if ref_text is not None and ref_audio is None:
        raise typer.BadParameter("--ref-text goes with --ref-audio")
    if gguf is not None:
        check_gguf_folder(gguf)
    settings = load_settings(
        config if gguf is None else gguf / "config.yaml",
        overrides,
        {"device": device, "llm.dtype": dtype, "tts.dtype": dtype, "seed": seed, "threads": threads},
    )
    manner = speaking.Manner(projector, voice, language, ref_audio, ref_text, control.value if control else None)
    if text_file is not None and output_dir is not None:
        _speak_file(settings, manner, text_file, output_dir)
        return
    words = speaking.decode(_given(text, chat))
    audio.check_writable(output)
    speaker = speaking.Speaker(settings, manner)
    if chat is not None:
        answer, seconds = speaker.chat(words, output)
        typer.echo(answer)
    else:
        seconds = speaker.speak(words, output)
    typer.echo(f"{output}: {seconds:.2f} s")


def train(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    projector: options.ProjectorKind = None,
    resume: options.Resume = True,
    dry_run: options.DryRun = False,
    device: options.Device = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
) -> None:
    """Train the projector: the closed-form fit, then audio tokens through the frozen speech model.

    \b
    Examples:
      train --config configs/default.yaml --dry-run
      train --config configs/nano.yaml train.steps=50
      train --config configs/nano.yaml --projector residual --no-resume
      train --config configs/nano.yaml train.loss.distill=1 train.loss.rows=0.1 train.sample_every=50
      train --config configs/nano.yaml tts.finetune=lora train.tensorboard=true
    """
    settings = _training_settings(config, overrides, projector, device, seed, threads)
    check_trainable(settings)
    if dry_run:
        from audio_projection.plan import describe

        typer.echo(describe(settings))
        return
    check_for_training(settings)
    from audio_projection.train import run

    typer.echo(run(settings, resume=resume))


def fit(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    projector: options.ProjectorKind = None,
    device: options.Device = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
) -> None:
    """Fit the projector in closed form, from text alone.

    \b
    Example:
      fit --config configs/nano.yaml fit.tokens=20000
    """
    settings = _training_settings(config, overrides, projector, device, seed, threads)
    check_for_fitting(settings)
    from audio_projection.fit import run

    typer.echo(f"the projector is in {run(settings)}")


def download(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    folder: options.Folder = None,
    only: options.Only = None,
) -> None:
    """Bring the models and the corpus that a configuration needs.

    \b
    Examples:
      download
      download --only tts --dir /big/disk
    """
    from audio_projection.download import PARTS, download, items

    placed = {"models_dir": folder, "data.path": folder / "LibriSpeech"} if folder is not None else {}
    settings = load_config(config, overrides or (), placed)
    parts = [part.value for part in only] if only else PARTS
    if not items(settings, parts):
        typer.echo(f"{config}: nothing to bring, everything it needs is here")
        return
    for path in download(settings, parts):
        typer.echo(path)
    if folder is not None:
        log.info("to use them: models_dir=%s data.path=%s after the command", folder, folder / "LibriSpeech")


def evaluate(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    sentences: options.Sentences = None,
    row: options.Rows = None,
    output: options.SoundFolder = None,
    limit: options.Limit = None,
    jobs: options.Jobs = 2,
    device: options.Device = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
) -> None:
    """Measure how well the speech is understood: word error rates of the projectors beside their controls.

    \b
    Examples:
      evaluate --config configs/nano.yaml --output runs/evaluation
      evaluate --config configs/nano.yaml --limit 20 --row teacher --row plain --row runs/nano/linear/projector
    """
    settings = load_settings(config, overrides, {"device": device, "seed": seed, "threads": threads})
    from audio_projection.evaluate import ROWS, run

    run(settings, sentences, row or ROWS, output, jobs, limit)


def robustness(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    sentences: options.Sentences = None,
    row: options.Rows = None,
    output: options.SoundFolder = None,
    limit: options.Limit = None,
    device: options.Device = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
) -> None:
    """Count the sentences that miss their end, are far too long, or leave out or repeat a part.

    \b
    Example:
      robustness --config configs/nano.yaml --output runs/robustness
    """
    settings = load_settings(config, overrides, {"device": device, "seed": seed, "threads": threads})
    from audio_projection.robustness import ROWS, run

    run(settings, sentences, row or ROWS, output, limit)


COMMANDS: dict[str, Callable[..., None]] = {
    "download": download,
    "fit": fit,
    "train": train,
    "speak": speak,
    "evaluate": evaluate,
    "robustness": robustness,
}
for _command in COMMANDS.values():
    app.command()(_command)
app.add_typer(cli_data.app, name="data")
app.add_typer(export_app, name="export")


def main() -> NoReturn:
    """Entry point of `audio-projection`."""
    _run(app)


def launch(name: str) -> NoReturn:
    """Entry point of the scripts that stand for one command."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    single.command()(COMMANDS[name])
    _run(single)


def _run(command: typer.Typer) -> NoReturn:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    gc.set_threshold(COLLECTED_AT)
    atexit.register(gc.freeze)  # or Python would look through all of them once more at the end, which takes a second
    try:
        sys.exit(command(standalone_mode=False) or 0)
    except AudioProjectionError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
    except MemoryError:
        _fail("not enough memory: give a shorter text, a smaller batch (train.batch=1) or a smaller model")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        _fail("not enough memory on the device: give --device cpu, a shorter text or a smaller batch (train.batch=1)")
    except KeyboardInterrupt:
        _fail("interrupted", code=130)
    except Exception as error:
        _fail_usage(error)


def _fail_usage(error: Exception) -> NoReturn:
    """Wrong usage, by its looks: Typer brings its own Click in some versions, so there is no class to name."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    if type(error).__name__ == "Abort":
        _fail("interrupted", code=130)
    if not hasattr(error, "format_message"):
        raise error
    _fail(f"{error.format_message()} (see --help)", code=2)


def _fail(message: str, code: int = 1) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


def _training_settings(
    config: Path,
    overrides: list[str] | None,
    projector: options.Kind | None,
    device: str | None,
    seed: int | None,
    threads: int | None,
) -> Config:
    kind = projector.value if projector else None
    return load_settings(
        config, overrides, {"projector.kind": kind, "device": device, "seed": seed, "threads": threads}
    )


def _check_sources(
    text: str | None, text_file: Path | None, chat: str | None, output: Path, output_dir: Path | None
) -> None:
    if sum(source is not None for source in (text, text_file, chat)) > 1:
        raise typer.BadParameter("give one of --text, --text-file and --chat")
    if text_file is not None and output != options.DEFAULT_OUTPUT:
        raise typer.BadParameter("--output goes with one text; the files of --text-file lie in --output-dir")
    if (text_file is None) != (output_dir is None):
        raise typer.BadParameter("--text-file and --output-dir go together")
    if text is None and text_file is None and chat is None and sys.stdin.isatty():
        raise typer.BadParameter("nothing to say: give --text, --text-file or --chat, or pipe a text in")


def _given(text: str | None, chat: str | None) -> bytes:
    words = text if text is not None else chat
    return os.fsencode(words) if words is not None else sys.stdin.buffer.read()


def _speak_file(settings: Config, manner: object, text_file: Path, output_dir: Path) -> None:
    from audio_projection import audio, speaking

    lines = speaking.read_lines(text_file)
    audio.check_folder(output_dir)
    speaker = speaking.Speaker(settings, manner)  # type: ignore[arg-type]
    audio.made_folder(output_dir)
    failed = []
    for number, path, seconds in speaking.speak_lines(speaker, lines, output_dir):
        if seconds is None:
            failed.append(number)
        else:
            typer.echo(f"{path}: {seconds:.2f} s")
    if failed:
        numbers = ", ".join(map(str, failed))
        spoken = sum(map(bool, map(bytes.strip, lines)))
        raise AudioProjectionError(f"{len(failed)} of {spoken} lines could not be spoken: {numbers}")
