"""`audio-projection data`: from a published corpus to what training reads."""

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
    "language, unpack it, and give its language folder to `audio-projection data prepare commonvoice`"
)
data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Corpora: bring them, check them, encode them for training."
)


@data_app.command()
def download(
    corpus: options.CorpusName,
    folder: options.CorpusFolder = options.DEFAULT_DATA,
    subset: options.Subsets = None,
) -> None:
    """Bring a corpus; sizes are announced first, and a broken download goes on where it stopped.

    \b
    Examples:
      data download librispeech --subset train-clean-100 --subset train-clean-360
      data download ljspeech --dir /big/disk
    """
    from audio_projection.files.download import bring, librispeech, ljspeech

    if corpus is options.Published.commonvoice:
        raise AudioProjectionError(COMMON_VOICE)
    if corpus is options.Published.ljspeech:
        wanted = [ljspeech(folder)]
    else:
        default = load_config().data
        wanted = [librispeech(folder / "LibriSpeech", part, default.url) for part in subset or [default.subset]]
    for path in bring(wanted):
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
    """Check every recording of a corpus and write Lhotse cuts; what is left out is named with its reason.

    The limits (data.max_seconds and others) are the configuration's. Run again after a stop, it goes on.

    \b
    Examples:
      data prepare librispeech data/LibriSpeech prepared --subset train-clean-100 --processes 8
      data prepare commonvoice cv-corpus-21.0-2025-03-14/en prepared data.max_seconds=12
      data prepare manifest recordings.jsonl prepared
      data prepare dataset saved_dataset prepared --subset train
    """
    from rich.console import Console

    from audio_projection.data.corpora.prepare import Corpus, prepare

    kind = "common_voice" if layout is options.CorpusLayout.commonvoice else layout.value
    limits = load_config(config, overrides or ()).data
    report = prepare(Corpus(kind, source.absolute(), subset), out, limits, shard, processes)
    console = Console()
    console.print(report.headline, soft_wrap=True)
    console.print(report.table())
    log.info("data: everything is in %s; next: audio-projection data features %s OUT --config ...", out, out)


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

    Run again after a stop, it goes on; each process computes with --threads threads (1).

    \b
    Examples:
      data features prepared encoded --config configs/default.yaml --processes 4
      data features prepared encoded --states --part 2/8
      train --config configs/default.yaml data.source=pairs data.path=encoded
    """
    settings = load_settings(config, overrides, {"device": device, "threads": threads})
    from audio_projection.data.corpora.extract import MachineShare, extract

    typer.echo(extract(prepared, out, settings, MachineShare.parse(part), processes, states))
