"""How well one LLM's hidden states give another LLM's embeddings, by layer: a real vocabulary without a Qwen3-TTS.

    python benchmarks/two_llms.py STATES.gguf ROWS.gguf --texts sentences.txt

Qwen3-TTS's text embeddings come from an LLM; the embeddings of any LLM of another family stand in for them here.
Targets are those of the tokens that both LLMs know, standardised in each channel. The states are fitted to them as the
projector is, by ridge regression, and with --refine-steps by a softmax over the embeddings after it; judged on other
sentences by the nearest of all common embeddings (cosine). Both files are read by transformers (with the package gguf).
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from audio_projection.alignment.token_states import TokenStates, chunks
from audio_projection.config import FitConfig
from audio_projection.errors import AudioProjectionError
from audio_projection.files.progress import shown
from audio_projection.fit.closed_form import fit_linear
from audio_projection.fit.refine import Rows, TokenPool, refine
from audio_projection.fit.ridge import Split, r_squared
from audio_projection.llm.hidden_states import resolve_layers
from audio_projection.llm.language_model import LanguageModel
from audio_projection.projector import LinearProjector, ProjectorInfo, build_projector

RIDGES = [1e-5, 1e-4, 1e-3, 1e-2]
HEADER = (
    "| layers | fit | R2 | right: all tokens | never met in fitting | 1 to 9 times | 10 to 99 | 100 and more | s |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Common:
    """The tokens that both LLMs know: their ids in the first, and the second's embeddings (V, H), standardised."""

    places: dict[int, int]
    embeddings: Tensor


def load(path: Path) -> tuple:
    """Model and tokenizer of a GGUF file, dequantised."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place, file = str(path.parent), {"gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, local_files_only=True, **file)
    return model, AutoTokenizer.from_pretrained(place, local_files_only=True, **file)


def common_tokens(one: object, other: object, table: Tensor) -> Common:
    """By the tokens' strings; a space at the start is `Ġ` in the one and `▁` in the other."""

    def plain(token: str) -> str:
        return token.replace("Ġ", " ").replace("▁", " ")

    theirs = {plain(token): number for token, number in other.get_vocab().items()}  # type: ignore[attr-defined]
    ours = {number: theirs.get(plain(token)) for token, number in one.get_vocab().items()}  # type: ignore[attr-defined]
    known = {number: there for number, there in sorted(ours.items()) if there is not None}
    rows = table[list(known.values())].float()
    rows = (rows - rows.mean(0)) / rows.std(0, correction=0).clamp_min(1e-6)
    return Common({number: place for place, number in enumerate(known)}, rows)


def read(llm: LanguageModel, common: Common, texts: Sequence[str], limit: int) -> Iterator[tuple[str, TokenStates]]:
    """Every text with the states (float16) of those of its tokens that both know, up to `limit` tokens."""
    count = 0
    for group in chunks(texts, 16):
        for text, encoded in zip(group, llm.states(group), strict=True):
            known = [place for place, token in enumerate(encoded.ids) if token in common.places]
            ids = [common.places[encoded.ids[place]] for place in known]
            yield text, TokenStates(ids, encoded.states[known].half(), common.embeddings[ids])
            count += len(ids)
            if count >= limit:
                return


def measure(
    pairs: list[tuple[str, TokenStates]], slots: list[int], layers: list[int], given: argparse.Namespace, common: Common
) -> Iterator[str]:
    """A line of the table for the ridge fit on some layers, and one for its refinement."""
    settings = FitConfig(tokens=given.tokens, held_out=given.held_out, ridges=RIDGES)
    split, pool = Split(len(pairs), settings), TokenPool(given.tokens)
    width, height = pairs[0][1].states.shape[-1], common.embeddings.shape[1]
    mix = "concat" if len(layers) > 1 else "scalar"
    projector = build_projector(ProjectorInfo(llm_size=width, tts_size=height, layers=layers, mix=mix))
    assert isinstance(projector, LinearProjector)
    chosen = [
        (text, TokenStates(item.ids, item.states[:, slots].float(), item.text_embeddings)) for text, item in pairs
    ]
    named = " and ".join(map(str, layers))
    begun = time.perf_counter()
    fit_linear(projector, chosen, split, RIDGES, pool)
    seconds = time.perf_counter() - begun
    yield f"| {named} | ridge | {_judged(projector, split, pool, common)} | {seconds:.0f} |"
    if given.refine_steps:
        begun, channels = time.perf_counter(), torch.zeros(height)
        rows = Rows(lambda ids: common.embeddings[ids], len(common.embeddings), channels, channels + 1)
        refine(projector, pool, rows, given.refine_steps)
        seconds = time.perf_counter() - begun
        yield f"| {named} | and softmax | {_judged(projector, split, pool, common)} | {seconds:.0f} |"


@torch.no_grad()
def _judged(projector: LinearProjector, split: Split, pool: TokenPool, common: Common) -> str:
    states, embeddings, ids = split.held_out.stacked()
    predicted, table = projector(states, embeddings), F.normalize(common.embeddings)
    right = torch.cat([(part @ table.T).argmax(1) for part in predicted.split(512)]) == ids
    counts = torch.bincount(torch.tensor(pool.ids), minlength=len(table))[ids]
    parts = [counts == 0, (counts > 0) & (counts < 10), (counts > 9) & (counts < 100), counts > 99]
    shares = [f"{100 * right[part].double().mean():.1f} % of {int(part.sum())}" for part in parts]
    cells = [f"{r_squared(predicted, embeddings):.2f}", f"{100 * right.double().mean():.1f} %", *shares]
    return " | ".join(cells)


def run(given: argparse.Namespace) -> Iterator[str]:
    torch.set_num_threads(given.threads)
    model, tokenizer = load(given.rows)
    table = model.get_input_embeddings().weight.detach().clone()
    del model
    spoken = LanguageModel(*load(given.states), "states", context=given.context)
    common = common_tokens(spoken.tokenizer, tokenizer, table)
    asked = [
        resolve_layers([part if part == "last" else int(part) for part in word.split("+")], spoken.num_layers)
        for word in given.layers
    ]
    every = sorted({layer for layers in asked for layer in layers})
    texts = list(dict.fromkeys(given.texts.read_text(encoding="utf-8").splitlines()))
    llm = spoken.select(every).keep_reading_only()
    wanted = 1.25 * given.tokens + 40 * given.held_out
    pairs = list(shown(read(llm, common, texts, int(wanted)), "reading", len(texts)))
    yield f"{len(common.embeddings):,} tokens are in both vocabularies"
    yield HEADER
    for layers in asked:
        yield from measure(pairs, [every.index(layer) for layer in layers], layers, given, common)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("states", type=Path, metavar="STATES.gguf")
    parser.add_argument("rows", type=Path, metavar="ROWS.gguf")
    parser.add_argument("--texts", type=Path, required=True, help="a sentence a line")
    parser.add_argument("--layers", nargs="+", default=["0", "1", "2", "4", "8", "15", "last", "0+last"])
    parser.add_argument("--context", choices=["chat", "raw"], default="chat")
    parser.add_argument("--tokens", type=int, default=65_000, help="that are fitted on")
    parser.add_argument("--held-out", type=int, default=500, help="sentences")
    parser.add_argument("--refine-steps", type=int, default=1000, help="0: ridge alone")
    parser.add_argument("--threads", type=int, default=1)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        for line in run(parser.parse_args(arguments)):
            print(line, flush=True)
    except AudioProjectionError as error:
        sys.exit(f"two_llms: {error}")


if __name__ == "__main__":
    main()
