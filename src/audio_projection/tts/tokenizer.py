"""Text tokenizer of a Qwen3-TTS folder: Qwen2's byte-level BPE, with byte spans.

Built from the folder's own files by the `tokenizers` library alone, so that every transformers release gives the
same ids. Qwen2 normalises to NFC and splits by the pattern below before merging bytes.

`text/token_spans.py` has byte spans for the LLM's tokenizer, with another contract: there special tokens are empty and
tokens inside a composed character share all of it, here the spans partition the text, whatever stands in it.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from audio_projection.errors import AudioProjectionError, first_line
from audio_projection.files.json_reader import read_json_object
from audio_projection.text.token_spans import Span

# Contractions | a word with one leading mark | a digit | symbols | line breaks | spaces.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ROLE = "<|im_start|>assistant\n"
"""Opens every utterance: the role of the chat template."""


class TextTokenizer:
    """Text to token ids and their byte spans. `hash` identifies the tokenizer: equal files give equal hashes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.backend = tokenizer
        self._special = {number: token.content for number, token in tokenizer.get_added_tokens_decoder().items()}

    @classmethod
    def from_folder(cls, folder: str | Path) -> TextTokenizer:
        """Read tokenizer.json, or else vocab.json, merges.txt and tokenizer_config.json.

        Raises AudioProjectionError naming the file that is missing or damaged, or when the chat template's
        `<|im_start|>assistant` line is not the 3 tokens that Qwen3-TTS expects.
        """
        folder = Path(folder)
        tokenizer = cls(_load_whole(folder) if (folder / "tokenizer.json").is_file() else _load_parts(folder))
        if len(tokenizer.ids(ROLE)) != 3:
            raise AudioProjectionError(
                f"{folder}: the tokenizer makes {len(tokenizer.ids(ROLE))} tokens of {ROLE!r}, Qwen3-TTS needs 3"
            )
        return tokenizer

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical tokenizer.json (sorted keys, no escapes)."""
        canonical = json.dumps(json.loads(self.backend.to_str()), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def __len__(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    def ids(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens written in it are recognised."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def text(self, ids: list[int]) -> str:
        """The text of token ids, special tokens included."""
        return self.backend.decode(ids, skip_special_tokens=False)

    def encode(self, text: str) -> tuple[list[int], list[Span]]:
        """Token ids of `text` and for each its (start, end) in the text's UTF-8 bytes; the spans partition them.

        Special tokens written in it (`<|im_end|>`) are plain characters.
        """
        quoted = any(special in text for special in self._special.values())
        encoding = (self._plain if quoted else self.backend).encode(text, add_special_tokens=False)
        sizes = [self._bytes(number, token) for number, token in zip(encoding.ids, encoding.tokens, strict=True)]
        ends = list(accumulate(sizes))
        to_text = _NormalisedBytes(text)
        if (ends[-1] if ends else 0) != to_text.size:
            raise AudioProjectionError(f"the tokens of {text!r} do not add up to its bytes: no byte-level tokenizer?")
        borders = [to_text.original(end) for end in ends]
        return encoding.ids, list(zip([0, *borders[:-1]], borders, strict=True)) if borders else []

    @cached_property
    def _plain(self) -> Tokenizer:
        """The same tokenizer without its special tokens."""
        parts = json.loads(self.backend.to_str())
        return Tokenizer.from_str(json.dumps({**parts, "added_tokens": []}))

    def _bytes(self, number: int, token: str) -> int:
        """How many bytes of normalised text a token stands for: a byte-level token has one character for each."""
        special = self._special.get(number)
        return len(token) if special is None else len(special.encode())


class _NormalisedBytes:
    """Maps byte positions of NFC(text) back to byte positions of the text."""

    def __init__(self, text: str) -> None:
        normal = unicodedata.normalize("NFC", text)
        self.size = len(normal.encode())
        self._pieces: list[tuple[int, int, int, int]] | None = None
        if normal != text:
            self._pieces = _pieces(text, normal)

    def original(self, position: int) -> int:
        """The byte of the text for a byte position of the normalised text."""
        if self._pieces is None:
            return position
        for start, end, first, last in self._pieces:
            if position <= end:  # inside a composed piece there is no exact position: interpolate
                return first + (position - start) * (last - first) // max(1, end - start)
        return self._pieces[-1][3]


def _pieces(text: str, normal: str) -> list[tuple[int, int, int, int]]:
    """Pieces that normalise independently: (start, end) in the normalised bytes, then (start, end) in the text's."""
    chunks: list[str] = []
    for character in text:
        if chunks and _continues(character):
            chunks[-1] += character
        else:
            chunks.append(character)
    parts = [unicodedata.normalize("NFC", chunk) for chunk in chunks]
    if "".join(parts) != normal:
        chunks, parts = [text], [normal]
    before = list(accumulate((len(part.encode()) for part in parts), initial=0))
    within = list(accumulate((len(chunk.encode()) for chunk in chunks), initial=0))
    return list(zip(before, before[1:], within, within[1:], strict=False))


def _continues(character: str) -> bool:
    """Whether NFC may join the character to the one before: marks, and the later letters of a Hangul syllable."""
    return unicodedata.category(character).startswith("M") or "\u1160" <= character <= "\u11ff"


def _load_whole(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise AudioProjectionError(f"{path} cannot be read: {_brief(error)}; download it again") from None


def _brief(error: Exception) -> str:
    """The first line of what a library says."""
    return first_line(error)[:200]


def _load_parts(folder: Path) -> Tokenizer:
    vocabulary = read_json_object(folder / "vocab.json", "a whole Qwen3-TTS folder (its tokenizer files)")
    settings = read_json_object(folder / "tokenizer_config.json", "a whole Qwen3-TTS folder (its tokenizer files)")
    merges = _merges(folder / "merges.txt")
    for left, right in merges:  # the library panics over some of these
        unknown = next((token for token in (left, right, left + right) if token not in vocabulary), None)
        if unknown is not None:
            raise AudioProjectionError(
                f"{folder}: vocab.json and merges.txt do not fit: {unknown!r} of a merge is not in the vocabulary; "
                "download them again"
            )
    try:
        model = models.BPE(vocab=vocabulary, merges=merges)
    except Exception as error:  # the library raises bare Exception
        raise AudioProjectionError(
            f"{folder}: vocab.json and merges.txt do not fit: {_brief(error)}; download them again"
        ) from None
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space")), use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _add_tokens(tokenizer, settings, folder / "tokenizer_config.json")
    return tokenizer


def _merges(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise AudioProjectionError(f"{path} is missing, so {path.parent} is not a whole Qwen3-TTS folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise AudioProjectionError(f"{path} is damaged ({error}); download it again") from None
    pairs = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise AudioProjectionError(f"{path} is damaged: a line holds no pair; download it again")
    return pairs  # type: ignore[return-value]


def _add_tokens(tokenizer: Tokenizer, settings: dict[str, Any], where: Path) -> None:
    """Add the special tokens in the order of their ids.

    They get the ids that follow the vocabulary, whatever the settings say, as in the official package: for a
    vocabulary with a gap before them the two differ, and the checkpoint was made with the former.
    """
    added = settings.get("added_tokens_decoder", {})
    try:
        tokens = [
            AddedToken(**{key: value for key, value in token.items() if key != "__type"})
            for _, token in sorted(added.items(), key=lambda item: int(item[0]))
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise AudioProjectionError(f"{where}: added_tokens_decoder is damaged: {error}") from None
    tokenizer.add_tokens(tokens)
