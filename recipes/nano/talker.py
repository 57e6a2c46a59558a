"""Stage 4: the nano talker and code predictor, trained on text and codes.

    python recipes/nano/talker.py work/ tts/ --steps 6000

Right-padded batches of similar length, each in the streaming or the non-streaming layout (`--streaming`).
Weight matrices are trained by Muon (Jordan et al., 2024), the rest by AdamW, at a rate that is constant
first and then falls to zero.  A checkpoint is written every 100 steps and picked up when the
command is repeated, also with another `--steps`.  The held-out loss is printed beside the training loss.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from checkpoint import load, rate_at, save
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3Model

ENTRIES, GROUPS = 512, 8
PAD, BOS, EOS = ENTRIES + 100, ENTRIES + 101, ENTRIES + 102
THINK, NOTHINK, THINK_BOS, THINK_EOS = ENTRIES + 106, ENTRIES + 107, ENTRIES + 108, ENTRIES + 109
ENGLISH, RMS = ENTRIES + 2, ENTRIES + 200
TEXT_PAD, TEXT_BOS, TEXT_EOS = ENTRIES + 3, ENTRIES + 4, ENTRIES + 5
IM_START, ASSISTANT, LINE_END = ENTRIES + 1, 263, 198
NONE = -1


def stack(hidden: int, layers: int, intermediate: int, head: int) -> Qwen3Model:
    """A Qwen3 decoder without its token embedding."""
    config = Qwen3Config(
        vocab_size=1, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=hidden // head, num_key_value_heads=hidden // head // 2, head_dim=head,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}, rms_norm_eps=1e-6,
        attn_implementation="sdpa", use_cache=False,
    )  # fmt: skip
    return Qwen3Model(config)


class Predictor(nn.Module):
    def __init__(self, hidden: int, talker_hidden: int) -> None:
        super().__init__()
        self.model = stack(hidden, layers=2, intermediate=2 * hidden, head=32)
        self.model.codec_embedding = nn.ModuleList(nn.Embedding(ENTRIES, talker_hidden) for _ in range(GROUPS - 1))
        self.lm_head = nn.ModuleList(nn.Linear(hidden, ENTRIES, bias=False) for _ in range(GROUPS - 1))
        self.small_to_mtp_projection = nn.Linear(talker_hidden, hidden)


class TextProjection(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear_fc1, self.linear_fc2 = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_fc2(F.silu(self.linear_fc1(x)))


class Talker(nn.Module):
    """The talker under the official parameter names."""

    def __init__(self, hidden: int = 192, layers: int = 5, predictor_hidden: int = 128) -> None:
        super().__init__()
        self.model = stack(hidden, layers, intermediate=448, head=48)
        self.model.text_embedding = nn.Embedding(ENTRIES + 8, hidden)
        self.model.codec_embedding = nn.Embedding(ENTRIES + 1024, hidden)
        self.text_projection = TextProjection(hidden)
        self.codec_head = nn.Linear(hidden, ENTRIES + 1024, bias=False)
        self.code_predictor = Predictor(predictor_hidden, hidden)
        del self.model.embed_tokens, self.code_predictor.model.embed_tokens
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.05)

    def rest_embedding(self, rest: Tensor) -> Tensor:
        """Sum of the embeddings of codes 1..7; (..., 7) -> (..., H)."""
        tables = self.code_predictor.model.codec_embedding
        return sum(table(rest[..., i]) for i, table in enumerate(tables))

    def forward(self, text: Tensor, codec: Tensor, rest: Tensor) -> Tensor:
        """Channels text (B, S), codec (B, S), rest (B, S, 7), NONE where empty -> hidden (B, S, H)."""
        embeds = self.text_projection(self.model.text_embedding(text))
        embeds = embeds + self.model.codec_embedding(codec.clamp_min(0)) * (codec != NONE)[..., None]
        embeds = embeds + self.rest_embedding(rest.clamp_min(0)) * (rest[..., :1] != NONE)
        return self.model(inputs_embeds=embeds, use_cache=False).last_hidden_state

    def predict_rest(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """hidden (M, H), codes (M, 8) -> logits (M, 7, 512)."""
        tables = self.code_predictor.model.codec_embedding
        inputs = [hidden, self.model.codec_embedding(codes[:, 0])]
        inputs += [table(codes[:, i + 1]) for i, table in enumerate(tables[:-1])]
        small = self.code_predictor.small_to_mtp_projection(torch.stack(inputs, 1))
        out = self.code_predictor.model(inputs_embeds=small, use_cache=False).last_hidden_state[:, 1:]
        return torch.stack([head(out[:, i]) for i, head in enumerate(self.code_predictor.lm_head)], 1)


class Corpus:
    """Utterances as token ids and codes; new shards are picked up by `refresh`."""

    def __init__(self, folder: Path, tokenizer: Qwen2TokenizerFast) -> None:
        self.folder, self.tokenizer, self.known = folder, tokenizer, 0
        self.ids: list[list[int]] = []
        self.codes: list[Tensor] = []

    def refresh(self) -> None:
        """Read the shards that have appeared, in order."""
        while (path := self.folder / f"codes-{self.known:04d}.safetensors").exists():
            shard = load_file(path)
            bounds = shard["offsets"].tolist()
            self.codes += [shard["codes"][a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
            texts = json.loads((self.folder / f"speech-{self.known:04d}.json").read_text())
            self.ids += self.tokenizer(texts).input_ids
            self.known += 1

    def batch(self, numbers: list[int], streaming: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """text, codec, rest channels and targets (B, S, 8); a target of NONE is not predicted."""
        columns = [sequence(self.ids[n], self.codes[n].long(), streaming) for n in numbers]
        longest = max(len(column[0]) for column in columns)
        padding = (TEXT_PAD, NONE, NONE, NONE)
        stacked = []
        for which, fill in enumerate(padding):
            parts = [column[which] for column in columns]
            out = parts[0].new_full((len(parts), longest, *parts[0].shape[1:]), fill)
            for row, part in zip(out, parts, strict=True):
                row[: len(part)] = part
            stacked.append(out)
        return tuple(stacked)


def sequence(ids: list[int], codes: Tensor, streaming: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four channels of one utterance, in the official layout (speaker rms, language English)."""
    text = [IM_START, ASSISTANT, LINE_END] + [TEXT_PAD] * 5 + [TEXT_BOS]
    codec = [NONE] * 3 + [THINK, THINK_BOS, ENGLISH, THINK_EOS, RMS, PAD]
    if streaming:
        rows = ids + [TEXT_EOS]
        rows = rows[: len(codes) + 1] + [TEXT_PAD] * (len(codes) + 1 - len(rows))
    else:
        text, codec = text + ids + [TEXT_EOS], codec + [PAD] * (len(ids) + 1)
        rows = [TEXT_PAD] * (len(codes) + 1)
    first = len(text)
    text_channel = torch.tensor(text + rows)
    codec_channel = torch.cat((torch.tensor(codec + [BOS]), codes[:, 0]))
    rest = torch.full((len(text_channel), GROUPS - 1), NONE)
    rest[first + 1 :] = codes[:, 1:]
    targets = torch.full((len(text_channel), GROUPS), NONE)
    targets[first : first + len(codes)] = codes
    targets[first + len(codes), 0] = EOS
    return text_channel, codec_channel, rest, targets


def forget(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Take away the codes of some frames from the input, a random share of each utterance up to a half.

    What the talker cannot copy from its own past it must read from the text.
    """
    text, codec, rest, targets = batch
    rates = 0.5 * torch.rand(len(text), 1)
    gone = (torch.rand(text.shape) < rates) & (rest[..., 0] != NONE)
    return text, codec.masked_fill(gone, NONE), rest.masked_fill(gone[..., None], NONE), targets


def losses(model: Talker, batch: tuple[Tensor, ...], share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of codebook 0, mean cross-entropy of the rest, accuracy of codebook 0."""
    text, codec, rest, targets = batch
    hidden = model(text, codec, rest)
    spoken = targets[..., 0] != NONE
    logits, labels = model.codec_head(hidden[spoken]), targets[..., 0][spoken]
    frames = targets[..., 1] != NONE
    states, codes = hidden[frames], targets[frames]
    chosen = torch.rand(len(codes)) < share
    predicted = model.predict_rest(states[chosen], codes[chosen])
    rest_loss = F.cross_entropy(predicted.flatten(0, 1), codes[chosen][:, 1:].flatten())
    return F.cross_entropy(logits, labels), rest_loss, (logits.argmax(-1) == labels).float().mean()


def orthogonalise(matrix: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrix by five Newton-Schulz steps (Muon)."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; for matrices.  In float32: bfloat16 is slow on most CPUs."""

    def __init__(self, params: list[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                state = self.state[param]
                average = state.setdefault("momentum", torch.zeros_like(param))
                average.lerp_(param.grad, 1 - group["momentum"])
                update = orthogonalise(param.grad.lerp(average, group["momentum"]))
                param.mul_(1 - group["lr"] * group["decay"])
                param.add_(update, alpha=-group["lr"] * 0.2 * max(param.shape) ** 0.5)


def optimisers(model: Talker, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings, heads, norms and biases."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [Muon(matrices, rate), torch.optim.AdamW(others, rate, betas=(0.9, 0.98), weight_decay=0.01)]


def batches(corpus: Corpus, size: int, held_out: int, step: int) -> list[int]:
    """Utterances of similar length, drawn by the step number alone."""
    generator = torch.Generator().manual_seed(step)
    pool = torch.randint(held_out, len(corpus.ids), (size * 8,), generator=generator).tolist()
    pool.sort(key=lambda n: len(corpus.codes[n]))
    start = int(torch.randint(8, (1,), generator=generator)) * size
    return pool[start : start + size]


@torch.no_grad()
def held_out_losses(model: Talker, corpus: Corpus, size: int) -> str:
    """Loss and accuracy on the first utterances, which are never trained on."""
    parts = []
    for streaming in (True, False):
        values = []
        for start in range(0, size, 50):
            found = losses(model, corpus.batch(list(range(start, min(start + 50, size))), streaming), 0.2)
            values.append([v.item() for v in found])
        means = [sum(column) / len(column) for column in zip(*values, strict=True)]
        parts.append("{} {:.3f} {:.3f} {:.1%}".format("streaming" if streaming else "non-streaming", *means))
    return " | ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("tts", type=Path, help="folder with the tokenizer")
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--share", type=float, default=0.08, help="share of frames for the predictor")
    parser.add_argument("--streaming", type=float, default=0.5, help="share of batches in the streaming layout")
    parser.add_argument("--held-out", type=int, default=200)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    corpus = Corpus(arguments.work, Qwen2TokenizerFast.from_pretrained(arguments.tts))
    corpus.refresh()
    model = Talker()
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{size / 1e6:.2f} M parameters, {len(corpus.ids)} utterances", flush=True)
    optims = optimisers(model, arguments.rate)
    path = arguments.work / "talker.safetensors"
    step = load(path, model, optims)
    average, began = {}, time.time()
    while step < arguments.steps:
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = arguments.rate * rate_at(step, arguments.steps)
        numbers = batches(corpus, arguments.batch, arguments.held_out, step)
        streaming = torch.rand(1, generator=torch.Generator().manual_seed(step)).item() < arguments.streaming
        first, rest, accuracy = losses(model, forget(corpus.batch(numbers, streaming)), arguments.share)
        (first + rest).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        step += 1
        key = "streaming" if streaming else "non-streaming"
        new = torch.tensor([first.item(), rest.item(), accuracy.item()])
        average[key] = average[key].lerp(new, 0.05) if key in average else new
        if step % 20 == 0:
            shown = " | ".join("{} {:.3f} {:.3f} {:.1%}".format(k, *v.tolist()) for k, v in sorted(average.items()))
            print(f"{step} {time.time() - began:.0f}s {shown}", flush=True)
        if step % 100 == 0 or step == arguments.steps:
            save(path, model, optims, step)
            corpus.refresh()
        if step % 200 == 0 or step == arguments.steps:
            print(f"held out {step}: {held_out_losses(model, corpus, arguments.held_out)}", flush=True)


if __name__ == "__main__":
    main()
