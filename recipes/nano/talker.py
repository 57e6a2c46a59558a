"""Stage: the talker and code predictor, trained on text and codes.

    python recipes/nano/talker.py work --steps 12000

Cross-entropy of the codes, and two lessons from the teacher's own timing that fade with the rate: one head of the
middle layers is shown which text is being spoken (guided attention, Tachibana et al., 2017), and a head beside the
model names the phones of the frame to come.  Batches are streaming or non-streaming (`--streaming`).  Matrices are
trained by Muon, the rest by AdamW, at a rate that is constant first and then falls to zero.  A checkpoint is written
every few minutes and picked up when the command is repeated, also with another `--steps`.  Held-out losses are
printed beside the training losses.  On a GPU (`--device cuda`) `--workers` processes make the batches.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from checkpoint import Due, load, prepared, rate_at, save
from muon import Muon
from safetensors.torch import load_file
from talker_data import Batch, Corpus
from talker_model import GUIDED, NONE, PhoneHead, Talker, with_lessons
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Rows = Callable[[Tensor], Tensor]
"""Ids (B, S) to text embeddings (B, S, H)."""
LESSON = 0.3
"""Weight of each of the two lessons."""
MAPPED = 0.5
"""Share of the utterances whose text embeddings are the linear map's: the talker learns to read those too."""
ANCHOR = 1.0
"""Weight of the text embeddings' distance from a linear map of the LLM's."""
REST = 2.0
"""Weight of codebooks 1 and up together, beside 1 of codebook 0."""
FADING = 0.85
"""A codebook's weight in parts of the one before: each adds less to the sound."""


def forget(batch: Batch, generator: torch.Generator) -> Batch:
    """Take away the codes of some frames from the input, a random share of each utterance up to a half.

    What the talker cannot copy from its own past it must read from the text.
    """
    rates = 0.5 * torch.rand(len(batch.text), 1, generator=generator)
    gone = torch.rand(batch.text.shape, generator=generator) < rates
    gone &= batch.rest[..., 0] != NONE
    codec, rest = batch.codec.masked_fill(gone, NONE), batch.rest.masked_fill(gone[..., None], NONE)
    return Batch(batch.text, codec, rest, batch.targets, batch.guide, batch.phones)


@dataclass(frozen=True)
class Steps(Dataset):
    """The batch of each step, drawn by its number alone."""

    corpus: Corpus
    utterances: int
    """Of a batch, fewer where they are long."""
    frames: int
    """Of a batch, at most about so many."""
    held_out: int
    """So many first utterances are left out."""
    streaming: float
    """Share of the batches in the streaming layout."""

    def __getitem__(self, step: int) -> Batch:
        generator = torch.Generator().manual_seed(step)
        streaming = torch.rand(1, generator=generator).item() < self.streaming
        numbers = self.corpus.draw(self.utterances, self.frames, self.held_out, step)
        return forget(self.corpus.batch(numbers, streaming, generator), generator)


def blur(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Noise on the text embeddings (B, S, H) of half of the utterances, up to 0.7 of their size.

    Projected embeddings are near the true ones, never equal; embeddings that stay apart under noise forgive it.
    """
    sigma = (1.4 * torch.rand(len(rows), 1, 1, generator=generator, device=rows.device) - 0.7).clamp_min(0)
    size = rows.detach().square().mean(-1, keepdim=True).sqrt()
    return rows + sigma * size * torch.randn(rows.shape, generator=generator, device=rows.device)


def guided(query: Tensor, key: Tensor, guide: Tensor) -> Tensor:
    """Minus log of the attention that falls on the text being spoken, mean over layers and frames.

    query and key (layers, B, S, head), guide (B, S, 2) in positions from 0 to S.
    """
    place = torch.arange(key.shape[2], device=key.device)
    allowed = place <= place[:, None]
    right = (place >= guide[..., :1]) & (place <= guide[..., 1:]) & allowed
    known = right.any(-1)
    scores = (query @ key.mT) * query.shape[-1] ** -0.5
    scores = scores.masked_fill(~allowed, float("-inf"))[:, known]
    mass = scores.masked_fill(~right[known], float("-inf")).logsumexp(-1)
    return (scores.logsumexp(-1) - mass).mean()


def losses(model: Talker, phones: PhoneHead, batch: Batch, rows: Tensor, share: float) -> dict[str, Tensor]:
    """The four losses and the accuracy of codebook 0; `rows`: text embeddings (B, S, H)."""
    opening = model.opening()
    before = opening.shape[1]
    embeds = torch.cat((opening.expand(len(rows), -1, -1), rows + model.code_rows(batch.codec, batch.rest)), 1)
    passed = model.model(embeds)
    hidden = passed.hidden[:, before:]
    spoken = batch.targets[..., 0] != NONE
    logits, labels = model.codec_head(hidden[spoken]), batch.targets[..., 0][spoken]
    frames = batch.targets[..., 1] != NONE
    codes = batch.targets[frames]
    chosen = torch.randperm(len(codes), device=codes.device)[: int(share * len(codes))]
    predicted = model.predict_rest(hidden[frames][chosen], codes[chosen])
    named = phones(passed.states[GUIDED[-1]][:, before:][frames])
    queries, keys = (torch.stack(each) for each in zip(*(passed.heads[layer] for layer in GUIDED), strict=True))
    guide = F.pad(batch.guide, (0, 0, before, 0), value=NONE)
    return {
        "first": F.cross_entropy(logits, labels),
        "rest": residual(predicted, codes[chosen][:, 1:]),
        "text": guided(queries, keys, guide),
        "phones": F.cross_entropy(named.flatten(0, 1), batch.phones[frames].flatten()),
        "right": (logits.argmax(-1) == labels).float().mean().detach(),
    }


def residual(logits: Tensor, codes: Tensor) -> Tensor:
    """Cross-entropy of the residual codebooks, a weighted mean: logits (M, 15, 512), codes (M, 15)."""
    each = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view(codes.shape).mean(0)
    weights = FADING ** torch.arange(len(each), device=each.device)
    return (each * weights).sum() / weights.sum()


def mapped(both: nn.ModuleDict, source: Tensor, text: Tensor, chosen: Tensor) -> Tensor:
    """Text embeddings (B, S, H) of ids (B, S): in the utterances `chosen`, bool (B,), what `anchor` makes of the LLM's.

    Special tokens keep their own.
    """
    talker = both["talker"]
    words = chosen[:, None] & (text < talker.ids.im_start)
    return torch.where(words[..., None], both["anchor"](source[text]), talker.text_embeddings(text))


def all_mapped(both: nn.ModuleDict, source: Tensor, text: Tensor) -> Tensor:
    return mapped(both, source, text, torch.ones_like(text[:, 0], dtype=torch.bool))


def strayed(model: Talker, anchor: nn.Linear, source: Tensor, tokens: Tensor) -> Tensor:
    """How far the text embeddings of some tokens (n,) are from `anchor` of their LLM embeddings, rows of `source`.

    In parts of their variance.  Free embeddings learn each token's sound by heart in directions of their own, and no
    linear map from any LLM finds them again.
    """
    found = model.text_embeddings(tokens)
    return (found - anchor(source[tokens])).square().mean() / found.detach().var(0).mean()


def optimisers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings, heads, norms and biases."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [Muon(matrices, rate), torch.optim.AdamW(others, rate, betas=(0.9, 0.98), weight_decay=0.01)]


def shown(values: dict[str, Tensor]) -> str:
    return " ".join(f"{name} {float(value):.3f}" for name, value in values.items())


@torch.no_grad()
def held_out(both: nn.ModuleDict, corpus: Corpus, size: int, streaming: bool, rows_of: Rows) -> str:
    """Losses on the first utterances, which are never trained on; `rows_of` gives the text embeddings of ids."""
    torch.manual_seed(0)
    device = both["talker"].codec_head.weight.device
    found = []
    for start in range(0, size, 25):
        batch = corpus.batch(list(range(start, min(start + 25, size))), streaming).to(device)
        found.append(losses(both["talker"], both["phones"], batch, rows_of(batch.text), 0.2))
    return shown({name: torch.stack([each[name] for each in found]).mean() for name in found[0]})


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder with speech/, tts/ and text_table.safetensors")
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=48, help="utterances of a step, fewer where they are long")
    parser.add_argument("--frames", type=int, default=3_600, help="frames of a step at most")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--share", type=float, default=0.12, help="share of frames for the predictor")
    parser.add_argument("--streaming", type=float, default=0.9, help="share of batches in the streaming layout")
    parser.add_argument("--held-out", type=int, default=200, help="so many first utterances are never trained on")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--judge-every", type=int, default=500, help="steps between held-out losses")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="autocast: a fifth faster on processors that have it")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches; 0: this one")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    torch.manual_seed(0)
    corpus = Corpus(arguments.work / "speech", arguments.work / "tts", arguments.workers)
    device = prepared(arguments.device)
    source = load_file(arguments.work / "text_table.safetensors", str(device))["source"]
    source = (source - source.mean(0)) / source.std()
    both = with_lessons(Talker(corpus.ids), source).to(device)
    model = both["talker"]
    model.begin_from(source)
    size = sum(parameter.numel() for parameter in model.parameters())
    optims = optimisers(both, arguments.rate)
    path = arguments.work / "talker.safetensors"
    step = load(path, both, optims)
    print(f"{size / 1e6:.2f} M parameters, {len(corpus.utterances)} utterances, from step {step}", flush=True)
    average: dict[str, Tensor] = {}
    batches = Steps(corpus, arguments.batch, arguments.frames, arguments.held_out, arguments.streaming)
    due, began = Due(arguments.save_every, arguments.steps), time.time()
    for batch in DataLoader(batches, None, sampler=range(step, arguments.steps), num_workers=arguments.workers):
        share = rate_at(step, arguments.steps)
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = arguments.rate * share
        torch.manual_seed(step)
        here = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bfloat16):
            noise = torch.Generator(device).manual_seed(step)
            chosen = torch.rand(len(here.text), generator=noise, device=device) < MAPPED
            rows = blur(mapped(both, source, here.text, chosen), noise)
            found = losses(model, both["phones"], here, rows, arguments.share)
        some = torch.randint(len(source), (2_048,), device=device)
        found["strayed"] = strayed(model, both["anchor"], source, some)
        lessons = LESSON * share * (found["text"] + found["phones"])
        (found["first"] + REST * found["rest"] + lessons + ANCHOR * found["strayed"]).backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        step += 1
        new = {name: value.detach() for name, value in found.items()}
        average = {name: 0.95 * average.get(name, value) + 0.05 * value for name, value in new.items()}
        if step % 20 == 0:
            print(f"{step} {time.time() - began:.0f}s {shown(average)}", flush=True)
        if due(step):
            save(path, both, optims, step)
        if step % arguments.judge_every == 0 or step == arguments.steps:
            own, linear = model.text_embeddings, partial(all_mapped, both, source)
            for name, rows_of in (("streaming", own), ("non-streaming", own), ("streaming, mapped", linear)):
                found = held_out(both, corpus, arguments.held_out, name != "non-streaming", rows_of)
                print(f"held out {step} {name}: {found}", flush=True)


if __name__ == "__main__":
    main()
