"""The real tokenizers of the optional test material, each read once."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast


@lru_cache(maxsize=2)
def real_tokenizer(shared: Path, name: str) -> PreTrainedTokenizerFast:
    """`name`: llama3 or qwen2; skips where it is absent."""
    file = shared / "data" / "tokenizers" / name / "tokenizer.json"
    if not file.is_file():
        pytest.skip(f"optional test material is absent: no {file}")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(file)))
