"""Are an LLM's spoken answers understood: what it wrote beside what Whisper hears.

    python benchmarks/answers.py llm.name=LLM.gguf --projector runs/fitted/linear --whisper-model whisper-base

Questions of a file are asked one by one; each answer is at most so many tokens of the LLM and is spoken while it is
written, from the hidden states of its own tokens, in the streaming layout.  The output folder gets the sound of each
answer, answers.md, results.json, and every transcript as it is made.  Words wrong are counted of the text that was
given to the TTS, with a 95 % interval by a bootstrap over the answers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from printed import print_report

from audio_projection.config import load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.bootstrap import PairedBootstrap
from audio_projection.evaluation.listening import Listeners
from audio_projection.evaluation.recognisers import PocketSphinx, Recogniser, Whisper
from audio_projection.evaluation.word_errors import WordErrors, word_errors
from audio_projection.files import audio
from audio_projection.files.atomic import make_folder, write_bytes, write_json
from audio_projection.inference import Voice
from audio_projection.text.lines import read_lines

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class SpokenAnswer:
    """One answer: what the LLM wrote, and mono float samples (S,); or why nothing was spoken."""

    question: str
    text: str
    samples: np.ndarray | None
    missing: str = ""


def answers(voice: Voice, questions: Sequence[str], seed: int, folder: Path) -> Iterator[SpokenAnswer]:
    """All answers, each written as NNNN.wav."""
    for number, question in enumerate(questions, 1):
        try:
            speech = voice.chat([{"role": "user", "content": question}], seed=seed)
        except AudioProjectionError as error:
            yield SpokenAnswer(question, "", None, str(error))
            continue
        audio.write(folder / f"{number:04d}.wav", speech.samples, speech.sample_rate)
        yield SpokenAnswer(question, speech.text, speech.samples)


def markdown(
    spoken: Sequence[SpokenAnswer], heard: Sequence[str], errors: Sequence[WordErrors | None]
) -> Iterator[str]:
    """A row for each answer, then all together."""
    yield "| question | written | heard | words wrong |"
    yield "|---|---|---|---|"
    for each, transcript, wrong in zip(spoken, heard, errors, strict=True):
        if wrong is None:
            yield f"| {each.question} | missing: {each.missing} | | |"
        else:
            yield f"| {each.question} | {each.text} | {transcript} | {wrong.errors} of {wrong.words} |"
    counted = [wrong for wrong in errors if wrong is not None]
    said = f"| {len(counted)} of {len(spoken)} spoken | | |"
    if not counted:
        yield f"{said} |"
        return
    total = sum(counted[1:], counted[0])
    low, high = PairedBootstrap([each.words for each in counted]).interval([each.errors for each in counted])
    rate = f"{100 * total.rate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    yield f"{said} {total.errors} of {total.words}: {rate} |"


def run(given: argparse.Namespace) -> str:
    settings = {"tts.layout": "streaming", "llm.max_new_tokens": given.tokens}
    config = load_config(given.config, given.overrides, settings)
    recogniser: Recogniser = Whisper(given.whisper_model) if given.whisper_model else PocketSphinx()
    recogniser.check()
    questions = [line for _, line in read_lines(given.questions, "questions")]
    voice, folder = Voice.from_config(config, projector=given.projector), make_folder(given.output)
    judge = recogniser.model_name
    with Listeners({judge: recogniser.transcribe}, given.jobs, folder / "judgements.jsonl") as listeners:
        spoken, asked = [], []
        for each in answers(voice, questions, config.seed, folder):
            print(f"{each.question}\n  {each.text or each.missing}", file=sys.stderr, flush=True)
            spoken.append(each)
            sound = each.samples
            asked.append(None if sound is None else listeners.submit(judge, sound, voice.sample_rate))
        heard = ["" if each is None else each.result() for each in asked]
    errors = [
        None if each.missing else word_errors(each.text, transcript, recogniser.normalise)
        for each, transcript in zip(spoken, heard, strict=True)
    ]
    table = "\n".join(markdown(spoken, heard, errors)) + "\n"
    write_bytes(folder / "answers.md", table.encode())
    entries = [
        {"question": each.question, "text": each.text, "missing": each.missing, "heard": transcript}
        | ({} if wrong is None else asdict(wrong) | {"errors": wrong.errors})
        for each, transcript, wrong in zip(spoken, heard, errors, strict=True)
    ]
    write_json(folder / "results.json", {"recogniser": judge, "llm": config.llm.name, "answers": entries})
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings laid over the configuration")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nano.yaml")
    parser.add_argument("--projector", help="as `audio-projection speak --projector` takes it")
    parser.add_argument("--output", type=Path, default=Path("runs/answers"))
    parser.add_argument("--questions", type=Path, default=ROOT / "benchmarks" / "questions.txt", help="a line each")
    parser.add_argument("--tokens", type=int, default=60, help="most tokens of an answer")
    parser.add_argument("--whisper-model", help="name or folder of a faster-whisper model; without it pocketsphinx")
    parser.add_argument("--jobs", type=int, default=1, help="processes that listen")
    print_report(run, parser.parse_args(arguments), "answers")


if __name__ == "__main__":
    main()
