"""Writes byte-level BPE tokenizers into GGUF metadata (`tokenizer.ggml.*`) and reads them from it.

GGUF stores the name of the pre-tokenizer (`tokenizer.ggml.pre`), not its regex; PRE_TOKENIZERS has the regex of each
name that llama.cpp gives and that is supported here, ALIASES the other names for it. Tokens, merges and chat template
come from the file.
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


_O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class PreTokenizer:
    """How text is split into words before BPE merges: by each pattern in turn, and last by GPT-2's if `gpt2`."""

    patterns: tuple[str, ...] = ()  # regexes; what they match and what lies between become words
    gpt2: bool = False  # the tokenizers library has GPT-2's pattern built in
    ignore_merges: bool = False  # a word that is in the vocabulary becomes one token without merges
    nfc: bool = False  # text is normalised to Unicode NFC first


_DIGITS = r"\p{N}"
PRE_TOKENIZERS = {
    "llama-bpe": PreTokenizer((_WORD + r"\p{N}{1,3}" + _REST,), ignore_merges=True),
    "qwen2": PreTokenizer((_WORD + _DIGITS + _REST,), nfc=True),
    "gpt-2": PreTokenizer(gpt2=True),
    "smollm": PreTokenizer((_DIGITS,), gpt2=True),
    "tekken": PreTokenizer((_O200K % ("", "", ""),), ignore_merges=True),
    "gpt-4o": PreTokenizer((_O200K % (_CONTRACTION, _CONTRACTION, "{1,3}"),)),
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
}
"""By the name in `tokenizer.ggml.pre`; the patterns are those of llama.cpp's src/llama-vocab.cpp."""
ALIASES = {
    "llama-bpe": ("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
    "qwen2": ("deepseek-r1-qwen", "kormo", "megrez"),
    "gpt-2": ("phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum", "exaone4"),
    "smollm": ("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    "gpt-4o": ("llama4",),
}
"""Other names for which llama.cpp splits in the same way."""
_KNOWN = PRE_TOKENIZERS | {alias: PRE_TOKENIZERS[name] for name, others in ALIASES.items() for alias in others}


def vocabulary_keys(backend: Tokenizer, size: int) -> dict[str, Any]:
    """The metadata `tokenizer.ggml.*` of a tokenizer, for an embedding table of `size` rows.

    Rows without a token get the type "unused". Raises AudioProjectionError for anything but byte-level BPE with one
    of PRE_TOKENIZERS.
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
    split = _described_split(described["pre_tokenizer"] or {})
    normaliser = (described["normalizer"] or {}).get("type")
    ignore_merges = bool(described["model"].get("ignore_merges"))
    for name, known in PRE_TOKENIZERS.items():
        same_text = normaliser is None or (known.nfc and normaliser == "NFC")
        if (known.patterns, known.gpt2) == split and same_text and known.ignore_merges == ignore_merges:
            return name
    raise AudioProjectionError(
        f"the tokenizer's pre-tokenizer has no name here (known: {', '.join(PRE_TOKENIZERS)}); "
        "convert the model with llama.cpp and give the file with --llm"
    )


def _described_split(given: dict[str, Any]) -> tuple[tuple[str, ...], bool] | None:
    """Patterns and `gpt2` of a `PreTokenizer`, from the description of one; None for parts of other kinds."""
    patterns: list[str] = []
    gpt2 = False
    for part in given.get("pretokenizers", [given]):
        if part.get("type") == "Split" and "Regex" in part["pattern"] and part.get("behavior") == "Isolated":
            patterns.append(part["pattern"]["Regex"])
        elif part.get("type") == "Digits" and part.get("individual_digits"):
            patterns.append(_DIGITS)
        elif part.get("type") == "ByteLevel" and not part.get("add_prefix_space"):
            gpt2 = gpt2 or part.get("use_regex", True)
        else:
            return None
    return tuple(patterns), gpt2


def read_tokenizer(file: GGUFFile) -> PreTrainedTokenizerBase:
    """Builds the tokenizer that a GGUF file describes, chat template included.

    Raises AudioProjectionError for other kinds than byte-level BPE and for vocabularies that contradict themselves.
    """
    tokens, kinds, pre = _checked(file)
    # Special tokens are added after the others; where they stand elsewhere, BPE must know their ids too.
    normal = {token: number for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == NORMAL}
    others = [(number, kind) for number, kind in enumerate(kinds) if kind in (CONTROL, USER_DEFINED)]
    follow = [number for number, _ in others] == list(range(len(normal), len(normal) + len(others)))
    known = (
        normal
        if follow and list(normal.values()) == list(range(len(normal)))
        else normal | {tokens[number]: number for number, _ in others}
    )
    try:
        merges = [tuple(merge.split(" ")) for merge in file.texts(f"{_KEY}merges")]
        backend = Tokenizer(models.BPE(known, merges, ignore_merges=pre.ignore_merges))  # type: ignore[arg-type]
    except Exception as error:  # the library raises bare Exception
        raise AudioProjectionError(f"{file.path}: tokens and merges do not fit ({error}); make it again") from None
    backend.normalizer = normalizers.NFC() if pre.nfc else None
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre.gpt2)
    split = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(tokens[n], special=kind == CONTROL, normalized=False) for n, kind in others])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=None if file.metadata.get(f"{_KEY}add_bos_token") is False else _token(file, tokens, "bos_token_id"),
        eos_token=_token(file, tokens, "eos_token_id"),
        chat_template=file.metadata.get("tokenizer.chat_template"),
    )


def _checked(file: GGUFFile) -> tuple[list[str], list[int], PreTokenizer]:
    if f"{_KEY}pre" not in file.metadata:
        raise AudioProjectionError(
            f"{file.path} does not say how its tokenizer cuts text (tokenizer.ggml.pre is missing): convert the model "
            "again with a newer llama.cpp"
        )
    model, pre = file.text(f"{_KEY}model"), file.text(f"{_KEY}pre")
    if model != "gpt2" or pre not in _KNOWN:
        raise AudioProjectionError(
            f"{file.path}: its tokenizer is {model!r} with {pre!r}; known is 'gpt2' with {', '.join(PRE_TOKENIZERS)}"
        )
    tokens = file.texts(f"{_KEY}tokens")
    kinds = file.metadata.get(f"{_KEY}token_type", [NORMAL] * len(tokens))
    whole = (
        isinstance(kinds, list) and len(kinds) == len(tokens) and {*kinds} <= {NORMAL, CONTROL, USER_DEFINED, UNUSED}
    )
    if not whole or len({*tokens}) != len(tokens) or not all(tokens):
        raise AudioProjectionError(f"{file.path}: its tokens are empty, there twice or of unknown kinds; make it again")
    return tokens, kinds, _KNOWN[pre]


def _token(file: GGUFFile, tokens: list[str], role: str) -> str | None:
    if f"{_KEY}{role}" not in file.metadata:
        return None
    return tokens[file.whole(f"{_KEY}{role}", least=0, most=len(tokens) - 1)]
