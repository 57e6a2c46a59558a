"""Byte-level BPE tokenizers to the keys of a GGUF file and back: the file's own tokens, merges and template are used.

Only the way text is cut into words has no place in a file: GGUF names it (`tokenizer.ggml.pre`), and the names here are
llama.cpp's for the patterns beside them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from audio_projection.errors import AudioProjectionError
from audio_projection.gguf.reader import GGUFFile

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
_KEY = "tokenizer.ggml."
_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class WordCut:
    """How text is cut before bytes are merged."""

    pattern: str | None  # None: the pattern of GPT-2, which is the tokenizers library's own
    whole_words: bool = False  # a word that is a token as it is needs no merges
    composed: bool = False  # text is put into NFC first


WORD_CUTS = {
    "llama-bpe": WordCut(_WORD + r"\p{N}{1,3}" + _REST, whole_words=True),
    "qwen2": WordCut(_WORD + r"\p{N}" + _REST, composed=True),
    "gpt-2": WordCut(None),
}


def vocabulary_keys(backend: Tokenizer, size: int) -> dict[str, Any]:
    """`tokenizer.ggml.*` of a tokenizer, for `size` rows of embeddings; rows without a token are called unused.

    AudioProjectionError for anything but byte-level BPE with one of the known patterns.
    """
    described = json.loads(backend.to_str())
    if described["model"]["type"] != "BPE":
        raise AudioProjectionError(f"a {described['model']['type']} tokenizer cannot be exported: byte-level BPE can")
    added = backend.get_added_tokens_decoder()
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [UNUSED] * size
    for token, number in backend.get_vocab(with_added_tokens=True).items():
        if number >= size:
            raise AudioProjectionError(f"the token {token!r} is number {number}, the model has {size} rows")
        tokens[number], kinds[number] = token, NORMAL
    for number, special in added.items():
        kinds[number] = CONTROL if special.special else USER_DEFINED
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in described["model"]["merges"]]
    return {
        f"{_KEY}model": "gpt2",
        f"{_KEY}pre": _pre_name(described),
        f"{_KEY}tokens": tokens,
        f"{_KEY}token_type": kinds,
        f"{_KEY}merges": merges,
    }


def _pre_name(described: dict[str, Any]) -> str:
    cutter = described["pre_tokenizer"] or {}
    parts = cutter.get("pretokenizers", [cutter])
    pattern = next((part["pattern"].get("Regex") for part in parts if part.get("type") == "Split"), None)
    for name, cut in WORD_CUTS.items():
        normaliser = (described["normalizer"] or {}).get("type")
        same = normaliser is None or (cut.composed and normaliser == "NFC")
        whole = bool(described["model"].get("ignore_merges"))
        if cut.pattern == pattern and same and whole == cut.whole_words:
            return name
    raise AudioProjectionError(
        f"the tokenizer cuts text in a way that has no name here (known: {', '.join(WORD_CUTS)}); "
        "convert the model with llama.cpp and give the file with --llm"
    )


def read_tokenizer(file: GGUFFile) -> PreTrainedTokenizerBase:
    """The tokenizer that a GGUF file holds, chat template included.

    Raises AudioProjectionError for other kinds than byte-level BPE and for vocabularies that contradict themselves.
    """
    tokens, kinds, cut = _checked(file)
    normal = {token: number for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == NORMAL}
    others = [(number, kind) for number, kind in enumerate(kinds) if kind in (CONTROL, USER_DEFINED)]
    behind = [number for number, _ in others] == list(range(len(normal), len(normal) + len(others)))
    known = (
        normal
        if behind and list(normal.values()) == list(range(len(normal)))
        else normal | {tokens[number]: number for number, _ in others}
    )
    try:
        merges = [tuple(merge.split(" ")) for merge in file.texts(f"{_KEY}merges")]
        backend = Tokenizer(models.BPE(known, merges, ignore_merges=cut.whole_words))  # type: ignore[arg-type]
    except Exception as error:  # the library raises bare Exception
        raise AudioProjectionError(f"{file.path}: tokens and merges do not fit ({error}); make it again") from None
    backend.normalizer = normalizers.NFC() if cut.composed else None
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut.pattern is None)
    split = [pre_tokenizers.Split(Regex(cut.pattern), "isolated")] if cut.pattern else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*split, bytes_of])
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(tokens[n], special=kind == CONTROL, normalized=False) for n, kind in others])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=None if file.metadata.get(f"{_KEY}add_bos_token") is False else _token(file, tokens, "bos_token_id"),
        eos_token=_token(file, tokens, "eos_token_id"),
        chat_template=file.metadata.get("tokenizer.chat_template"),
    )


def _checked(file: GGUFFile) -> tuple[list[str], list[int], WordCut]:
    model, pre = file.text(f"{_KEY}model"), file.text(f"{_KEY}pre", "gpt-2")
    if model != "gpt2" or pre not in WORD_CUTS:
        raise AudioProjectionError(
            f"{file.path}: its tokenizer is {model!r} with {pre!r}; known is 'gpt2' with {', '.join(WORD_CUTS)}"
        )
    tokens = file.texts(f"{_KEY}tokens")
    kinds = file.metadata.get(f"{_KEY}token_type", [NORMAL] * len(tokens))
    whole = (
        isinstance(kinds, list) and len(kinds) == len(tokens) and {*kinds} <= {NORMAL, CONTROL, USER_DEFINED, UNUSED}
    )
    if not whole or len({*tokens}) != len(tokens) or not all(tokens):
        raise AudioProjectionError(f"{file.path}: its tokens are empty, there twice or of unknown kinds; make it again")
    return tokens, kinds, WORD_CUTS[pre]


def _token(file: GGUFFile, tokens: list[str], role: str) -> str | None:
    if f"{_KEY}{role}" not in file.metadata:
        return None
    return tokens[file.whole(f"{_KEY}{role}", least=0, most=len(tokens) - 1)]
