"""Token ids of the TTS's text channel, read from the tokenizer's files."""

from dataclasses import dataclass
from pathlib import Path

import bpe


@dataclass(frozen=True)
class TextIds:
    """Sizes and special ids of the text table."""

    vocabulary: int
    """Rows of the table, special tokens included."""
    im_start: int
    im_end: int
    assistant: int
    line_end: int
    pad: int
    bos: int
    eos: int

    @classmethod
    def from_folder(cls, folder: Path) -> "TextIds":
        """Read vocab.json; the special tokens follow it in their order."""
        vocabulary, _ = bpe.read(folder)
        special = {token: len(vocabulary) + place for place, token in enumerate(bpe.SPECIAL)}
        return cls(
            vocabulary=len(vocabulary) + len(special),
            im_start=special["<|im_start|>"],
            im_end=special["<|im_end|>"],
            assistant=vocabulary[bpe.ROLE],
            line_end=vocabulary["Ċ"],
            pad=special["<tts_pad>"],
            bos=special["<tts_text_bos>"],
            eos=special["<tts_text_eod>"],
        )

    @property
    def opening(self) -> list[int]:
        """The text channel before the text: the assistant's turn, five positions of the codec's prefix, bos."""
        return [self.im_start, self.assistant, self.line_end] + [self.pad] * 5 + [self.bos]
