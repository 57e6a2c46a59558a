"""One of the processes of a training run on a fresh corpus, for test_fresh_corpus.py.

    python tests/helpers/rank.py CONFIG.json [die]

With `die` the process ends itself, without a word, in its second recording.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch

from audio_projection.config import Config
from audio_projection.data.corpora.encoder import RecordingEncoder
from audio_projection.errors import AudioProjectionError
from audio_projection.train import run_training


def main(config: Path, dies: bool) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    if dies:
        die_while_encoding()
    try:
        print(run_training(Config.model_validate(json.loads(config.read_text(encoding="utf-8")))))
    except AudioProjectionError as error:
        sys.exit(f"error: {error}")


def die_while_encoding() -> None:
    encode, count = RecordingEncoder.encode, [0]

    def encode_once(*arguments: Any) -> Any:
        count[0] += 1
        if count[0] == 2:
            os._exit(9)
        return encode(*arguments)

    RecordingEncoder.encode = encode_once  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), "die" in sys.argv[2:])
