"""`audio-projection export`: models and projectors in the file formats of other programs (GGUF)."""

from __future__ import annotations

import logging

import typer

from audio_projection.cli import options
from audio_projection.config import load_config

log = logging.getLogger("audio_projection")
export_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write models in the formats of others.")


@export_app.callback()
def export() -> None:
    """Write models in the formats of others."""


@export_app.command()
def gguf(
    overrides: options.Overrides = None,
    config: options.ConfigFile = options.DEFAULT_CONFIG,
    all_: options.AllFolder = None,
    output: options.ProjectorFile = None,
    projector: options.Projector = None,
    llm: options.LLMFile = None,
    type_: options.GGUFType = "f16",
    projector_type: options.ProjectorType = "f16",
    threads: options.Threads = None,
) -> None:
    """Write the projector, or all models that speak, as GGUF files for llama.cpp.

    \b
    Examples:
      export gguf --config nano --output projector.gguf
      export gguf --config nano --all exported --type q8_0
      export gguf --all exported --llm Llama-3.1-8B-Instruct-Q4_K_M.gguf --type q4_k_m
    """
    if (all_ is None) == (output is None):
        raise typer.BadParameter("give --all FOLDER, or --output FILE for the projector alone")
    if output is not None and (llm is not None or type_ != "f16"):
        raise typer.BadParameter("--llm and --type go with --all; the projector's type is --projector-type")
    from audio_projection.export import Export

    settings = load_config(config, overrides or (), {} if threads is None else {"threads": threads})
    export = Export(settings, projector, type_.upper(), projector_type.upper(), llm)
    for line in export.projector(output) if output is not None else export.everything(all_):  # type: ignore[arg-type]
        typer.echo(line)
