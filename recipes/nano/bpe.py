"""The TTS's byte-level BPE: an LLM's merges, pruned to what the spoken text uses, in the files of the official folder.

A merge is kept when its product is used often enough, and with it the merges that its parts are made by.  What is
not kept falls back to smaller tokens.  The words of the chat template stay whole: the official code relies on
`<|im_start|>assistant\\n` being three tokens and `<|im_end|>\\n<|im_start|>assistant\\n` five.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

Merge = tuple[str, str]
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>")
ROLE = "assistant"
WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's: the official tokenizer class cuts by it, whatever the files say."""


def tokenizer(merges: list[Merge]) -> Tokenizer:
    """Byte-level BPE: the 256 bytes, then the product of each merge."""
    entries = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(first + second for first, second in merges)]
    made = Tokenizer(models.BPE({entry: number for number, entry in enumerate(entries)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORDS, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    return made


def with_role(merges: list[Merge]) -> list[Merge]:
    """The merges, and at the end those that make one token of the template's `assistant`."""
    added = list(merges)
    while len(parts := tokenizer(added).encode(ROLE).tokens) > 1:
        added.append((parts[0], parts[1]))
    return added


def count(merges: list[Merge], texts: Iterable[str]) -> Counter[str]:
    """How often each token occurs in the texts."""
    encoded = tokenizer(merges).encode_batch(list(texts))
    return Counter(token for each in encoded for token in each.tokens)


def with_ancestors(tokens: Iterable[str], merges: list[Merge]) -> set[str]:
    """The tokens that are products of merges, and the products that those are made of."""
    parts = {first + second: (first, second) for first, second in merges}
    found: set[str] = set()
    waiting = list(tokens)
    while waiting:
        token = waiting.pop()
        if token in parts and token not in found:
            found.add(token)
            waiting += parts[token]
    return found


def prune(merges: list[Merge], texts: list[str], least: int) -> list[Merge]:
    """The merges whose products the texts use at least `least` times, and their ancestors, in their order."""
    used = count(merges, texts)
    kept = with_ancestors((token for token, times in used.items() if times >= least), merges)
    kept |= with_ancestors([ROLE], merges)
    return [merge for merge in merges if merge[0] + merge[1] in kept]


def read(folder: Path) -> tuple[dict[str, int], list[Merge]]:
    """Vocabulary and merges of a TTS folder."""
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    merges = [(first, second) for first, second in (line.split(" ") for line in lines)]
    return json.loads((folder / "vocab.json").read_text(encoding="utf-8")), merges


def save(merges: list[Merge], folder: Path) -> None:
    """Write vocab.json, merges.txt and tokenizer_config.json."""
    vocabulary = tokenizer(merges).get_vocab()
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    special = {str(len(vocabulary) + i): {"content": text, **flags} for i, text in enumerate(SPECIAL)}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": special,
        "additional_special_tokens": list(SPECIAL[1:]),
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "errors": "replace",
        "model_max_length": 32_768,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    ordered = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(ordered, ensure_ascii=False), encoding="utf-8")
    lines = [" ".join(merge) for merge in merges]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
