"""Accuracy that binding LLM states adds, where the two tokenizers cut a text differently.

    python benchmarks/binding.py --config configs/nano.yaml

Ridge regression from LLM states to the TTS's text embeddings, twice on the same texts: from the state of the last
overlapping LLM token alone, and from the bound states of all of them (`alignment/align.py`). The table shows, on
held-out texts and by layer, for what share of the TTS tokens the nearest text embedding is the right one: of those that
are one LLM token, of those that span several, and of those that lie within one.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from audio_projection.alignment.align import Overlap, align, bind
from audio_projection.alignment.token_states import chunks
from audio_projection.config import Config, load_config
from audio_projection.data_loader import transcripts_to_fit
from audio_projection.errors import AudioProjectionError
from audio_projection.fit.ridge import RidgeFit, embedding_table
from audio_projection.fit.rows_right import nearest_embedding_accuracy
from audio_projection.llm.language_model import LanguageModel
from audio_projection.models import load_llm, load_tts, use_threads
from audio_projection.tts.model import Qwen3TTS

CUTS = ("one LLM token", "several", "part of one")
RIDGE = 1e-5


@dataclass(frozen=True)
class Tokens:
    """The TTS tokens of one text."""

    ids: Tensor  # (N,)
    text_embeddings: Tensor  # (N, H)
    cuts: Tensor  # (N,), index into CUTS
    states: dict[str, Tensor]  # (N, L, D), by name: of the last LLM token alone, or bound


@dataclass
class HeldOut:
    """Held-out tokens, and the text embedding of every token id in all texts."""

    parts: list[Tokens] = field(default_factory=list)
    table: dict[int, Tensor] = field(default_factory=dict)


def cut(overlap: Overlap) -> int:
    """How a TTS token lies on LLM tokens: an index into CUTS."""
    return 2 if overlap.turn else int(len(overlap.tokens) > 1)


def read(llm: LanguageModel, tts: Qwen3TTS, texts: list[str], batch: int) -> Iterator[Tokens]:
    """The tokens of each text, with both kinds of states."""
    for group in chunks(texts, batch):
        for text, encoded in zip(group, llm.states(group), strict=True):
            ids, spans = tts.tokenize(text)
            overlaps, states = align(encoded.spans, spans), encoded.states.float()
            kinds = {"last": states[[overlap.tokens[-1] for overlap in overlaps]], "bound": bind(states, overlaps)}
            embeddings = tts.text_embeddings(torch.tensor(ids)).float()
            yield Tokens(torch.tensor(ids), embeddings, torch.tensor([cut(overlap) for overlap in overlaps]), kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/nano.yaml")
    parser.add_argument("--held-out", type=int, default=300, help="texts (300)")
    parser.add_argument("settings", nargs="*", help="key=value, such as llm.name=FOLDER")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    try:
        run(load_config(arguments.config, arguments.settings), arguments.held_out)
    except AudioProjectionError as error:
        sys.exit(f"binding: {error}")


@torch.inference_mode()
def run(config: Config, held_out: int) -> None:
    """Prints the table; AudioProjectionError when there is no text to hold out or none to fit on."""
    use_threads(config.threads or 1)
    llm, tts = load_llm(config), load_tts(config)
    layers = list(range(llm.num_layers + 1))
    llm = llm.select(layers)
    texts = list(dict.fromkeys(transcripts_to_fit(config)))
    if not 0 < held_out < len(texts):
        raise AudioProjectionError(f"--held-out {held_out}: there are {len(texts)} texts, some of them to fit on")
    fits: dict[tuple[str, int], RidgeFit] = {}
    held_out_tokens = HeldOut()
    texts_read = track(read(llm, tts, texts, config.fit.batch), "reading", len(texts), console=Console(stderr=True))
    for number, tokens in enumerate(texts_read):
        held_out_tokens.table |= dict(zip(tokens.ids.tolist(), tokens.text_embeddings, strict=True))
        if number < held_out:
            held_out_tokens.parts.append(tokens)
            continue
        for kind, states in tokens.states.items():
            for index, layer in enumerate(layers):
                sizes = states.shape[-1], tokens.text_embeddings.shape[-1]
                fit = fits.setdefault((kind, layer), RidgeFit(*sizes, block=2048))
                fit.add(states[:, index], tokens.text_embeddings, tokens.ids)
    show(fits, held_out_tokens)


def show(fits: dict[tuple[str, int], RidgeFit], held_out_tokens: HeldOut) -> None:
    """Prints the share of right nearest text embeddings of each regression: kind of states and layer."""
    ids, cuts = (torch.cat([getattr(part, name) for part in held_out_tokens.parts]) for name in ("ids", "cuts"))
    embeddings = embedding_table(held_out_tokens.table)
    headings = [f"{name} ({float((cuts == number).float().mean()):.1%})" for number, name in enumerate(CUTS)]
    table = Table("states", "layer", "all", *headings)
    for (kind, layer), fit in sorted(fits.items()):
        weight, bias = fit.solve(RIDGE)
        predicted = torch.cat([part.states[kind][:, layer] for part in held_out_tokens.parts]) @ weight.T + bias
        chosen = [torch.ones_like(cuts, dtype=torch.bool), *(cuts == number for number in range(len(CUTS)))]
        cells = [
            f"{nearest_embedding_accuracy(predicted[c], ids[c], *embeddings):.1%}" if c.any() else "-" for c in chosen
        ]
        table.add_row(kind, str(layer), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
