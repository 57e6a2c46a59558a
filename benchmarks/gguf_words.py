"""Word error rate of quantised models: folders of `export gguf --all` compared on the same sentences.

    python benchmarks/gguf_words.py runs/nano-f32 runs/nano-q8_0 [--limit 300]

The others are compared with the first folder; 95 % intervals by one paired bootstrap. pocketsphinx transcribes the
speech.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from audio_projection.evaluation.listening import Listeners
from audio_projection.evaluation.recognisers import PocketSphinx
from audio_projection.evaluation.report import EvaluationReport, EvaluationResult, Recognition
from audio_projection.evaluation.sentence_sets import read_sentences
from audio_projection.evaluation.systems import speak_line
from audio_projection.evaluation.word_errors import word_errors
from audio_projection.inference import Voice


def measure(folder: Path, texts: Sequence[str], listeners: Listeners, threads: int) -> EvaluationResult:
    """Speaks all sentences with the files of a folder, transcribes them and counts word errors."""
    voice = Voice.from_config(folder / "config.yaml", [f"threads={threads}"])
    spoken = track(texts, str(folder), disable=not sys.stderr.isatty())
    recogniser = PocketSphinx()
    lines = (speak_line(voice, text, 0) for text in spoken)
    pending = [listeners.submit(recogniser.model_name, each.samples, each.rate) for each in lines]
    transcripts = [each.result() for each in pending]
    system = EvaluationResult(str(folder), "")
    errors = [word_errors(text, heard) for text, heard in zip(texts, transcripts, strict=True)]
    system.recognitions[recogniser.name] = Recognition(transcripts, errors)
    return system


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, help="only so many sentences")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    texts = read_sentences(None, given.limit)
    recogniser = PocketSphinx()
    recogniser.check()
    with Listeners({recogniser.model_name: recogniser.transcribe}, 1) as listeners:
        systems = [measure(folder, texts, listeners, given.threads) for folder in given.folders]
    report = EvaluationReport(texts, systems, 0)
    for system in report.systems:
        line = f"{system.name}: word error rate {100 * system.word_error_rate:.1f} % of {len(texts)} sentences"
        difference = report.difference(system, report.systems[0].name)
        if difference is not None:
            middle, low, high = (100 * value for value in difference)
            line += f", {middle:+.1f} [{low:.1f}, {high:.1f}] points against the first"
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
