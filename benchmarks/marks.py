"""What marks do to the words that are heard: clean sentences, each written in seven other ways, before and after.

    python benchmarks/marks.py                  # 50 sentences on nano, pocketsphinx: about 20 minutes of a core
    python benchmarks/marks.py --sentences 5

"before" is what this project did with marks until it had rules for them: they went to the TTS as they stand.
"after" is how a text is read now. Both in one run, with the same seed.
"""

from __future__ import annotations

import argparse
import json

from audio_projection.config import load_config
from audio_projection.evaluation.recognisers import PocketSphinx
from audio_projection.evaluation.sentence_sets import read_sentences
from audio_projection.evaluation.word_errors import WordErrors, word_errors
from audio_projection.inference import Voice
from audio_projection.text.input_text import Reading, check_text
from audio_projection.text.normalisation import spell_out


def marked(sentence: str) -> dict[str, str]:
    """The sentence clean, and in seven ways that people and word processors write it."""
    words = sentence.split()
    middle = len(words) // 2
    before, word, after = " ".join(words[:middle]), words[middle], " ".join(words[middle + 1 :])
    return {
        "clean": sentence,
        "typographic apostrophe": sentence.replace("'", "’"),
        "ALL CAPS": sentence.upper(),
        "curly quotes": f"{before} “{word}” {after}".strip(),
        "bold": f"{before} **{word}** {after}".strip(),
        "brackets": f"{before} ({word}) {after}".strip(),
        "dash": f"{before} — {word} {after}".strip(),
        "###": f"### {sentence}",
    }


class Listener:
    """Speaks texts as they are and counts the words that are heard wrong; equal texts are spoken once."""

    def __init__(self, voice: Voice) -> None:
        self._voice, self._recognizer = voice, PocketSphinx()
        self._heard: dict[str, str] = {}

    def errors(self, text: str, reference: str) -> WordErrors:
        if text not in self._heard:
            speech = self._voice.speak(text, seed=0)
            self._heard[text] = self._recognizer.transcribe(speech.samples, speech.sample_rate)
        return word_errors(reference, self._heard[text])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--config", default="configs/nano.yaml")
    options.add_argument("--sentences", type=int, default=50)
    given = options.parse_args()
    config = load_config(given.config)
    reading = Reading.from_config(config)
    voice = Voice.from_config(load_config(given.config, ["tts.normalise=none"]))
    listener = Listener(voice)
    sentences = sorted(read_sentences(None), key=lambda sentence: "'" not in sentence)[: given.sentences]
    rates: dict[str, dict[str, float]] = {}
    for way in marked(sentences[0]):
        texts = [
            (marked(sentence)[way], sentence)
            for sentence in sentences
            if way != "typographic apostrophe" or "'" in sentence
        ]
        before = [listener.errors(spell_out(check_text(text)), sentence) for text, sentence in texts]
        after = [listener.errors(reading.spoken(text), sentence) for text, sentence in texts]
        clean = [listener.errors(sentence, sentence) for _, sentence in texts]
        rates[way] = {
            name: round(100 * _sum(errors).rate, 1)
            for name, errors in (("clean", clean), ("before", before), ("after", after))
        }
        print(json.dumps({way: rates[way]}, ensure_ascii=False), flush=True)


def _sum(errors: list[WordErrors]) -> WordErrors:
    total = errors[0]
    for each in errors[1:]:
        total = total + each
    return total


if __name__ == "__main__":
    main()
