"""`audio-projection data`: download, check and encode a corpus for training."""

from __future__ import annotations

import logging

import typer

from audio_projection.cli import options
from audio_projection.cli.settings import load_settings
from audio_projection.config import load_config
from audio_projection.errors import AudioProjectionError

log = logging.getLogger(__name__)

COMMON_VOICE = (
    "Common Voice asks for an account: sign in at https://commonvoice.mozilla.org/datasets, fetch the archive of a "
    "language, unpack it, and give its language folder to `audio-projection data prepare common_voice`"
)
data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Corpora: download them, check them, encode them for training."
)


@data_app.command()
def download(
    corpus: options.CorpusName,
    folder: options.CorpusFolder = options.DEFAULT_DATA,
    subset: options.Subsets = None,
) -> None:
    """Download a corpus; sizes are printed first, and a broken download resumes where it stopped.

    \b
    Examples:
      data download librispeech --subset train-clean-100 --subset train-clean-360
      data download ljspeech --dir /big/disk
    """
    from audio_projection.files.download import fetch_all, librispeech, libritts, ljspeech

    if corpus == "common_voice":
        raise AudioProjectionError(COMMON_VOICE)
    if corpus == "ljspeech":
        wanted = [ljspeech(folder)]
    elif corpus == "libritts":
        wanted = [libritts(folder / "LibriTTS", part) for part in subset or ["train-clean-100"]]
    else:
        default = load_config().data
        wanted = [librispeech(folder / "LibriSpeech", part, default.url) for part in subset or [default.subset]]
    for path in fetch_all(wanted):
        typer.echo(path)


@data_app.command()
def prepare(
    layout: options.Layout,
    source: options.CorpusSource,
    out: options.DataFolder,
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    subset: options.Subset = None,
    shard: options.ShardSize = 256,
    processes: options.Processes = 1,
) -> None:
    """Check every recording of a corpus and write Lhotse cuts; what is left out is reported with its reason.

    The limits (data.max_seconds and others) are the configuration's. Run again after an interruption, it resumes.

    \b
    Examples:
      data prepare librispeech data/LibriSpeech prepared --subset train-clean-100 --processes 8
      data prepare common_voice cv-corpus-21.0-2025-03-14/en prepared data.max_seconds=12
      data prepare manifest recordings.jsonl prepared
      data prepare dataset saved_dataset prepared --subset train
    """
    from rich.console import Console

    from audio_projection.data.corpora.prepare import Corpus, prepare

    limits = load_config(config, overrides or ()).data
    report = prepare(Corpus(layout, source.absolute(), subset), out, limits, shard, processes)
    console = Console()
    console.print(report.headline, soft_wrap=True)
    console.print(report.table())
    log.info("data: the prepared corpus is in %s; next: audio-projection data features %s OUT --config ...", out, out)


@data_app.command()
def features(
    prepared: options.Prepared,
    out: options.DataFolder,
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    states: options.States = False,
    processes: options.Processes = 1,
    part: options.PartOf = None,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Encode a prepared corpus once: codec codes, x-vectors for base models and, with --states, the LLM's states.

    Run again after an interruption, it resumes; each process computes with --threads threads (1).

    \b
    Examples:
      data features prepared encoded --config default --processes 4
      data features prepared encoded --states --part 2/8
      train --config default data.source=pairs data.path=encoded
    """
    settings = load_settings(config, overrides, {"device": device, "threads": threads})
    from audio_projection.data.corpora.extract import MachineShare, extract

    typer.echo(extract(prepared, out, settings, MachineShare.parse(part), processes, states))


@data_app.command()
def texts(
    out: options.TextsFile,
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    count: options.TextCount = 10_000,
    prompts: options.PromptsFile = None,
    without: options.Without = None,
    device: options.Device = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
) -> None:
    """Let the language model write texts for the fit and for training, answering prompts.

    Run again after an interruption, it resumes. fit.batch prompts are answered at a time, llm.max_new_tokens long.

    \b
    Examples:
      data texts texts.txt --config default --count 20000
      data texts short.txt --config nano --count 500 --prompts my-prompts.txt --without sentences.txt
      train --config default data.texts=texts.txt
    """
    settings = load_settings(config, overrides, {"device": device, "seed": seed, "threads": threads})
    from audio_projection.data.prompts import PROMPTS
    from audio_projection.data.written_texts import AnswerSentences, Assignment, check_unwritten, write_texts
    from audio_projection.models import load_llm, use_threads
    from audio_projection.text.input_text import Reading
    from audio_projection.text.lines import read_lines

    check_unwritten(out)
    use_threads(settings.threads)
    reading = Reading.from_config(settings)
    own = PROMPTS if settings.llm.context == "chat" else ("",)
    asked = own if prompts is None else tuple(line.strip() for _, line in read_lines(prompts, "prompts"))
    if not asked:
        raise AudioProjectionError(f"{prompts} has no prompt: give one a line")
    left_out = frozenset(reading.spoken(line) for path in without or () for _, line in read_lines(path, "sentences"))
    assignment = Assignment(asked, count, settings.fit.batch, settings.llm.max_new_tokens, settings.seed)
    log.info("data: loading the language model %s", settings.llm.name)
    sentences = AnswerSentences(reading, settings.tts.longest, left_out)
    answers = write_texts(load_llm(settings), out, assignment, sentences)
    log.info("data: %d texts of %d answers; next: audio-projection train ... data.texts=%s", count, answers, out)
    typer.echo(out)
