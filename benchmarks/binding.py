"""What binding several states to one gives a linear map, where the two tokenizers cut a text differently.

    python benchmarks/binding.py --config configs/nano.yaml

A ridge regression from LLM states to the TTS's text rows, twice on the same texts: from the state of the last LLM
token that overlaps a TTS token alone, and from the bound states of all (`binding.py`). The table tells, on held-out
texts and by layer, for what share of the TTS tokens the nearest text row is the right one: of those that are one LLM
token, of those that span several, and of those that lie within one.
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
from audio_projection.fit.ridge import RidgeFit, embedding_table, nearest_embedding_accuracy
from audio_projection.llm.language_model import LanguageModel
from audio_projection.models import load_llm, load_tts
from audio_projection.tts.model import Qwen3TTS

CUTS = ("one LLM token", "several", "part of one")
RIDGE = 1e-5


@dataclass(frozen=True)
class Tokens:
    """The TTS tokens of some texts."""

    ids: Tensor  # (N,)
    rows: Tensor  # (N, H)
    cuts: Tensor  # (N,), index into CUTS
    states: dict[str, Tensor]  # (N, L, D) by the way they were made


@dataclass
class Kept:
    """Held-out tokens, and the row of every token id met."""

    parts: list[Tokens] = field(default_factory=list)
    table: dict[int, Tensor] = field(default_factory=dict)


def cut(overlap: Overlap) -> int:
    return 2 if overlap.turn else int(len(overlap.tokens) > 1)


def read(llm: LanguageModel, tts: Qwen3TTS, texts: list[str], batch: int) -> Iterator[Tokens]:
    """The tokens of each text, by both ways."""
    for group in chunks(texts, batch):
        for text, encoded in zip(group, llm.states(group), strict=True):
            ids, spans = tts.tokenize(text)
            overlaps, states = align(encoded.spans, spans), encoded.states.float()
            made = {"last": states[[overlap.tokens[-1] for overlap in overlaps]], "bound": bind(states, overlaps)}
            rows = tts.text_embeddings(torch.tensor(ids)).float()
            yield Tokens(torch.tensor(ids), rows, torch.tensor([cut(overlap) for overlap in overlaps]), made)


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
    torch.set_num_threads(config.threads or 1)
    llm, tts = load_llm(config), load_tts(config)
    layers = list(range(llm.num_layers + 1))
    llm = llm.select(layers)
    texts = list(dict.fromkeys(transcripts_to_fit(config)))
    if not 0 < held_out < len(texts):
        raise AudioProjectionError(f"--held-out {held_out}: there are {len(texts)} texts, some of them to fit on")
    fits: dict[tuple[str, int], RidgeFit] = {}
    kept = Kept()
    found = track(read(llm, tts, texts, config.fit.batch), "reading", len(texts), console=Console(stderr=True))
    for number, tokens in enumerate(found):
        kept.table |= dict(zip(tokens.ids.tolist(), tokens.text_embeddings, strict=True))
        if number < held_out:
            kept.parts.append(tokens)
            continue
        for way, states in tokens.states.items():
            for index, layer in enumerate(layers):
                sizes = states.shape[-1], tokens.text_embeddings.shape[-1]
                fit = fits.setdefault((way, layer), RidgeFit(*sizes, block=2048))
                fit.add(states[:, index], tokens.text_embeddings, tokens.ids)
    show(fits, kept)


def show(fits: dict[tuple[str, int], RidgeFit], kept: Kept) -> None:
    ids, cuts = (torch.cat([getattr(part, name) for part in kept.parts]) for name in ("ids", "cuts"))
    known = embedding_table(kept.table)
    headings = [f"{name} ({float((cuts == number).float().mean()):.1%})" for number, name in enumerate(CUTS)]
    table = Table("states", "layer", "all", *headings)
    for (way, layer), fit in sorted(fits.items()):
        weight, bias = fit.solve(RIDGE)
        predicted = torch.cat([part.states[way][:, layer] for part in kept.parts]) @ weight.T + bias
        chosen = [torch.ones_like(cuts, dtype=torch.bool), *(cuts == number for number in range(len(CUTS)))]
        cells = [f"{nearest_embedding_accuracy(predicted[c], ids[c], *known):.1%}" if c.any() else "-" for c in chosen]
        table.add_row(way, str(layer), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
