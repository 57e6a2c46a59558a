"""The nano language model: a LlamaForCausalLM, from one text file.

    nice python recipes/nano/llm.py prompts.tsv work/tts work/llm-training work/llm --without benchmarks/heldout.txt

The text file holds a sentence a line (of a TSV, the last column); its sentences are cleaned as those that the voice
learns (`sentences.py`), so that it writes no mark that the voice does not know.  Two thirds of
the training sequences are plain sentences, the others chat turns in the chat template whose answers are
sentences of the corpus, so that the model both reads along and answers.  One table holds the embeddings of input and
output; they begin small, and what the layers add begins at nothing, so that a token stays known in the layers above it.
Matrices of the layers are trained by Muon, the rest by AdamW, with products in bfloat16.  Each stage prints its figure:
tokens not one-to-one with the TTS's, loss, perplexity beside that of a trigram model on the same tokens.
The work folder keeps a checkpoint; the same command resumes from it.  `--smoke` is a run of a minute.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from checkpoint import Due, load, prepared, save
from conversations import conversation
from llm_tokenizer import BOS, EOS, EOT, PAD, agreement, save_tokenizer, shared_tokenizer
from muon import Muon
from sentences import last_columns, sentences
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trigram import Trigram

SEED = 0
RATE, MUON_RATE = 3e-3, 1e-2
"""Peak learning rates of AdamW and Muon."""


def plain(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """Start token, text, end of text."""
    end = tokenizer.convert_tokens_to_ids(EOS)
    return [ids + [end] for ids in tokenizer(texts)["input_ids"]]


def chatted(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    chance = random.Random(SEED + 1)
    rendered = [tokenizer.apply_chat_template(conversation(text, texts, chance), tokenize=False) for text in texts]
    return tokenizer(rendered, add_special_tokens=False)["input_ids"]


def batches(sequences: list[list[int]], tokens: int, seed: int) -> list[list[list[int]]]:
    """One pass in batches of about `tokens` padded tokens, of like lengths, in random order."""
    chance = random.Random(seed)
    order = chance.sample(sequences, len(sequences))
    made: list[list[list[int]]] = []
    for start in range(0, len(order), 4096):
        batch: list[list[int]] = []
        for sequence in sorted(order[start : start + 4096], key=len):
            if batch and (len(batch) + 1) * len(sequence) > tokens:
                made.append(batch)
                batch = []
            batch.append(sequence)
        made.append(batch)
    chance.shuffle(made)
    return made


def losses(model: LlamaForCausalLM, batch: list[list[int]]) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy of every id after the first, and how many there are."""
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in batch], True, -100).to(model.device)
    # Padding lies on the right of a causal model, so no attention mask is needed.
    logits = model(input_ids=rows[:, :-1].clamp(min=0), use_cache=False).logits
    targets = rows[:, 1:]
    summed = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="sum")
    return summed, int((targets != -100).sum())


@torch.no_grad()
def perplexity(model: LlamaForCausalLM, sequences: list[list[int]]) -> float:
    pairs = [losses(model, batch) for batch in batches(sequences, 4096, SEED)]
    return math.exp(sum(float(loss) for loss, _ in pairs) / sum(count for _, count in pairs))


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(SEED)
    start, end, turn, padding = tokenizer.convert_tokens_to_ids([BOS, EOS, EOT, PAD])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,  # wider than the TTS, as the real one; a multiple of 256, as llama.cpp's K-quants want rows
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=start,
        eos_token_id=[end, turn],
        pad_token_id=padding,
    )
    model = LlamaForCausalLM(config)
    # Larger ones would make each token predict itself at first: the table is that of the output, too.
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.04)
    for layer in model.model.layers:
        # Beside such embeddings what a layer adds would be huge, and the token be forgotten at once.
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    model.generation_config = GenerationConfig(
        bos_token_id=start,
        eos_token_id=[end, turn],
        pad_token_id=padding,
        do_sample=True,
        temperature=0.6,
        top_p=0.8,
        max_new_tokens=96,
    )
    return model


def endless(sequences: list[list[int]], tokens: int, first: int) -> Iterator[tuple[int, list[list[int]]]]:
    """(step, batch) from step `first` on, pass after pass; the order depends on the step alone."""
    step = 0
    for seed in range(1_000):
        for batch in batches(sequences, tokens, seed):
            if step >= first:
                yield step, batch
            step += 1


def cosine(step: int, steps: int, warmup: int = 60) -> float:
    """Share of the peak rate: linear warm-up, then a cosine to a twentieth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.05 + 0.475 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def optimisers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    matrices = [each for each in model.model.layers.parameters() if each.dim() > 1]
    vectors = [each for each in model.parameters() if each.dim() == 1]
    others = [model.model.embed_tokens.weight, *vectors]
    return [Muon(matrices, MUON_RATE), torch.optim.AdamW(others, RATE, betas=(0.9, 0.95), weight_decay=0.0)]


def train(model: LlamaForCausalLM, sequences: list[list[int]], steps: int, tokens: int, checkpoint: Path) -> None:
    optims, kept = optimisers(model), model.model  # the output's table is the input's
    first = load(checkpoint, kept, optims)
    started, total, seen, due = time.process_time(), 0.0, 0, Due(50, steps)
    for step, batch in endless(sequences, tokens, first):
        if step >= steps:
            break
        for optim, peak in zip(optims, (MUON_RATE, RATE), strict=True):
            optim.param_groups[0]["lr"] = peak * cosine(step, steps)
        with torch.autocast(model.device.type, torch.bfloat16):
            loss, count = losses(model, batch)
        (loss / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            with torch.autocast(model.device.type, torch.bfloat16):  # for Muon's own products
                optim.step()
            optim.zero_grad()
        total, seen = total + loss.item(), seen + count
        if due(step + 1):
            save(checkpoint, kept, optims, step + 1)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            spent = time.process_time() - started
            print(f"step {step + 1}/{steps}: loss {total / seen:.3f}, {spent:.0f} s of processor", flush=True)
            total, seen = 0.0, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("tts", type=Path, help="folder of the TTS's vocab.json and merges.txt")
    parser.add_argument("work", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--without", type=Path, nargs="*", default=[], help="files of sentences not to be learned")
    parser.add_argument("--merges", type=float, default=0.5, help="share of the TTS's merges, the first ones")
    parser.add_argument("--steps", type=int, default=3900)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--held-out", type=int, default=1000, help="sentences that it is judged by")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--smoke", action="store_true", help="a tiny run that shows every stage")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.steps = min(arguments.steps, 20)
    arguments.work.mkdir(parents=True, exist_ok=True)

    device = prepared(arguments.device)
    texts = sentences(arguments.text, without=arguments.without)
    held_out, learned = texts[: arguments.held_out], texts[arguments.held_out :]
    tokenizer = shared_tokenizer(arguments.tts, arguments.merges)
    save_tokenizer(tokenizer, arguments.output)
    record = {"entries": len(tokenizer), "steps": arguments.steps, "sentences": len(learned), "perplexity": {}}
    record["tokenizers"] = agreement(tokenizer, arguments.tts, held_out)
    print(f"tokenizer: {record['tokenizers']}", flush=True)

    chats = len(learned) // 3
    raw = plain(tokenizer, learned)
    tokens = sum(map(len, raw))
    print(
        f"text: {len(raw)} sentences, {tokens} tokens, {sum(map(len, learned)) / tokens:.2f} characters each",
        flush=True,
    )
    sequences = chatted(tokenizer, learned[:chats]) + raw[chats:]
    model = new_model(tokenizer).to(device)
    train(model, sequences, arguments.steps, arguments.batch_tokens, arguments.work / "checkpoint.safetensors")
    # What is judged is what is stored.
    model.to(torch.bfloat16).save_pretrained(arguments.output)
    model.float()
    trigram = Trigram(raw, len(tokenizer))
    judged = {"held_out": held_out}
    judged |= {path.name: last_columns(path) for path in arguments.without}
    for name, judged_texts in judged.items():
        ids = plain(tokenizer, judged_texts)
        record["perplexity"][name] = {"model": perplexity(model, ids), "trigram": trigram.perplexity(ids)}
        print(f"perplexity on {name}: {record['perplexity'][name]}")
    (arguments.output / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
