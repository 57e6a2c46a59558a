"""Stage: texts for the projectors, written by the nano language model itself.

    python recipes/nano/texts.py src/audio_projection/nano/llm src/audio_projection/nano/texts.txt

Sampled sentences, a line each, in the letters and stops that the voice has learned; none twice, none of
the sentences kept for evaluation. What `audio-projection data texts` does, with a stricter choice of sentences.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from sentences import SPOKEN, clean, held_out_keys, key

from audio_projection.data.written_texts import Assignment, write_texts
from audio_projection.llm.language_model import LanguageModel


class UsableSentences:
    """An answer as one sentence that the voice can say and that is new; else nothing."""

    def __init__(self, without: list[Path]) -> None:
        self._taken = held_out_keys(without)

    def __call__(self, answer: str) -> Iterator[str]:
        text = clean(answer)
        if 12 <= len(text) <= 150 and SPOKEN.fullmatch(text) and key(text) not in self._taken:
            self._taken.add(key(text))
            yield text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("llm", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--sentences", type=int, default=3_000)
    parser.add_argument("--without", type=Path, nargs="*", default=[], help="files of sentences not to be used")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    llm = LanguageModel.from_pretrained(arguments.llm, dtype="float32", context="raw")
    assignment = Assignment([""], arguments.sentences, batch=200, longest=40, seed=arguments.seed)
    new = arguments.file.with_name(f"{arguments.file.name}.new")
    new.unlink(missing_ok=True)  # of a run that was killed between these lines
    answers = write_texts(llm, new, assignment, UsableSentences(arguments.without))
    new.replace(arguments.file)
    share = arguments.sentences / answers
    print(f"{arguments.sentences} sentences in {arguments.file}, {share:.0%} of the sampled ones were used")


if __name__ == "__main__":
    main()
