"""Ablation of the design: the word error rate of the speech after one change at a time.

    python benchmarks/ablation.py --pairs work/pairs --output runs/ablation
    python benchmarks/ablation.py --sentences 20 --questions kind training layer
    python benchmarks/ablation.py llm.name=LLM.gguf --fit-only --questions layer refine tokens training \
        --layers 0 1 2 4 8 15 last 0+last --tokens 3000 10000 30000 100000 300000 --whisper-model whisper-base

Questions: the kind of projector; its activation; the hidden state at the token or one position before it; the layer;
what the LLM reads; the regression alone or its refinement after it; the fit alone or training on audio tokens after it;
how much text the fit sees. Each variant differs in one thing only from the baseline, the `linear` projector of the
configuration, fitted and trained, or with --fit-only fitted on text alone. Its speech is transcribed by pocketsphinx or
Whisper. Plain text through the same TTS is the reference. Tokens, and words by their tokens, are counted apart by
whether the fit met them. The LLM is run by transformers, also from a GGUF file.

The output folder gets results.json, written after every variant, and every transcript as it is made, so that a stopped
command resumes; table.md; and ablation.png. Without --pairs the TTS first speaks the configuration's training texts.
"""

from __future__ import annotations

import argparse
import io
import logging
import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from printed import print_report
from torch import Tensor

from audio_projection.alignment.token_states import TokenStates
from audio_projection.config import Config, FitConfig, load_config
from audio_projection.data.pairs import seeded_digest
from audio_projection.data.speakers import default_voice
from audio_projection.data_loader import load_pairs, split_held_out, texts_to_fit
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.listening import Listeners
from audio_projection.evaluation.recognisers import PocketSphinx, Recogniser, Whisper
from audio_projection.evaluation.report import EvaluationReport, EvaluationResult, Recognition
from audio_projection.evaluation.sentence_sets import read_sentences
from audio_projection.evaluation.systems import PLAIN
from audio_projection.evaluation.word_errors import Normaliser, word_errors, wrong_words
from audio_projection.files.atomic import make_folder, write_bytes, write_json
from audio_projection.files.fingerprint import fingerprint
from audio_projection.files.json_reader import read_json
from audio_projection.files.progress import shown
from audio_projection.fit.assemble import assemble, new_projector
from audio_projection.fit.closed_form import fit_projector
from audio_projection.fit.ridge import Split
from audio_projection.inference import Voice, VoiceDefaults
from audio_projection.llm.hidden_states import resolve_layers
from audio_projection.llm.language_model import LanguageModel
from audio_projection.models import Models, load_llm, load_tts
from audio_projection.projector import ACTIVATIONS, KINDS
from audio_projection.text.input_text import Reading, as_spoken
from audio_projection.train import train_projector

ROOT = Path(__file__).resolve().parents[1]
log = logging.getLogger("audio_projection.ablation")

QUESTIONS = {
    "kind": "kind of projector",
    "activation": "activation",
    "state": "hidden state",
    "layer": "layer of the LLM",
    "context": "what the LLM reads",
    "refine": "refinement of the fit",
    "training": "training",
    "tokens": "text tokens for the fit, no audio",
}
TEXT_TOKENS = (1_000, 10_000, 100_000)
FIT_HEADINGS = (
    "tokens fitted",
    "R2",
    "text embeddings right: tokens met in fitting",
    "never met",
    "words wrong: all tokens met",
    "others",
)


@dataclass(frozen=True)
class Variant:
    """A projector to compare: the baseline with these settings changed. The baseline itself has no changes."""

    changes: tuple[tuple[str, Any], ...] = ()  # dotted keys and their values
    trained: bool = True  # on audio tokens, after the fit
    before: bool = False  # reads the states one position before the tokens

    @property
    def name(self) -> str:
        words = [f"{key}={value}" for key, value in self.changes]
        words += ["fit only"] * (not self.trained) + ["state before"] * self.before
        return ", ".join(words) or "baseline"


class StateBefore(LanguageModel):
    """An LLM that gives each token the hidden state of the position before it, which has not seen the token.

    The first token of a text takes that of the context's end; without any context it keeps its own.
    """

    def read(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        return [torch.cat((states[:1], states[:-1])) for states in super().read(sequences)]


def variants(
    config: Config, layers: Iterable[int | list[int]], tokens: Iterable[int] = TEXT_TOKENS, trained: bool = True
) -> dict[str, dict[str, Variant]]:
    """The variants of each question by label; one of them is the baseline, but for the count of text tokens.

    `config` is the baseline's, with one layer or several; `layers`: those to compare, some of them side by side;
    `trained`: whether the baseline trains on audio tokens after the fit.
    """

    def changed(*changes: tuple[str, Any]) -> Variant:
        return Variant(changes, trained)

    def one_of(key: str, present: Any, values: Iterable[Any]) -> dict[str, Variant]:
        return {str(value): changed() if value == present else changed((key, value)) for value in values}

    def layer(value: int | list[int]) -> Variant:
        if value == config.llm.layers:
            return changed()
        if isinstance(value, int):
            return changed(("llm.layers", value))
        return changed(("llm.layers", tuple(value)), ("projector.mix", "concat"))

    refinements = {"ridge": "none", "ridge, then softmax": "softmax"}
    return {
        "kind": one_of("projector.kind", config.projector.kind, KINDS),
        "activation": one_of("projector.activation", config.projector.activation, ACTIVATIONS),
        "state": {"at the token": changed(), "one position before": Variant((), trained, before=True)},
        "layer": {str(each) if isinstance(each, int) else " and ".join(map(str, each)): layer(each) for each in layers},
        "context": one_of("llm.context", config.llm.context, ("raw", "chat")),
        "refine": {
            label: changed() if value == config.fit.refine else changed(("fit.refine", value))
            for label, value in refinements.items()
        },
        "training": {"fit only": Variant(trained=False), "fit and audio tokens": Variant()},
        "tokens": {f"{number:,}": Variant((("fit.tokens", number),), trained=False) for number in tokens},
    }


class Results:
    """Transcripts, fit and loss of each variant, stored in results.json as they come."""

    def __init__(self, path: Path, conditions: dict[str, Any]) -> None:
        """Reads earlier results; AudioProjectionError when they were measured under other conditions."""
        self._path, self._conditions = path, conditions
        self.variants: dict[str, dict[str, Any]] = {}
        if not path.is_file():
            return
        record = read_json(path)
        for name, value in conditions.items():
            if record["conditions"].get(name) != value:
                raise AudioProjectionError(f"{path} was measured with another {name}; choose another --output")
        self.variants = record["variants"]

    def add(self, name: str, record: dict[str, Any]) -> None:
        self.variants[name] = record
        write_json(self._path, {"conditions": self._conditions, "variants": self.variants})

    def report(self, texts: list[str], seed: int, recogniser: Recogniser) -> EvaluationReport:
        """All variants as systems of an evaluation."""
        systems = []
        for name, record in self.variants.items():
            pairs = zip(texts, record["heard"], strict=True)
            errors = [word_errors(text, heard, recogniser.normalise) for text, heard in pairs]
            systems.append(EvaluationResult(name, name, {recogniser.name: Recognition(record["heard"], errors)}))
        return EvaluationReport(texts, systems, seed)


class Ablation:
    """Trains and measures variants; models and data are loaded once and shared."""

    def __init__(self, config: Config, texts: Sequence[str], recogniser: Recogniser, listeners: Listeners) -> None:
        """`config` is the baseline's; with `llm.layers: probe` the probe chooses its layer."""
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.tts = load_tts(config)
        training, self.held_out = split_held_out(load_pairs(config, self.tts), config.data.held_out, config.seed)
        self.texts_to_fit = texts_to_fit(config, training, self.held_out)
        self.training = training[: config.train.total_steps(len(training)) * config.train.batch]
        self.voice = default_voice(config.tts, self.tts, training, config.data.voice_speaker)
        if config.llm.layers == "probe":
            config = _with_layers(config, assemble(config, self.tts, self.texts_to_fit).llm.layers)
        self.llm = load_llm(config)  # all of it: variants read other layers
        self.config = _with_layers(config, self.llm.layers)
        self.sentences = [as_spoken(text, Reading.from_config(config)) for text in texts]
        self._recogniser, self._listeners = recogniser, listeners

    def conditions(self) -> dict[str, Any]:
        """Everything that the results depend on besides the variants."""
        return {
            "sentences": self.sentences,
            "recogniser": self._recogniser.model_name,
            "settings": self.config.model_dump(mode="json", exclude={"root", "output_dir", "models_dir", "data"}),
            "training pairs": seeded_digest(0, "\n".join(pair.id for pair in self.training)),
            "texts to fit on": seeded_digest(0, "\n".join(self.texts_to_fit)),
            "language model": fingerprint(self.llm.model),
            "speech model": fingerprint(self.tts),
        }

    def plain(self) -> dict[str, Any]:
        """Transcripts of the TTS fed with its own text embeddings."""
        models = self._models(Variant(), self.config)
        return {"heard": self._transcribe(models, self.config, PLAIN, PLAIN)}

    def measure(self, variant: Variant) -> dict[str, Any]:
        """Makes the projector and transcribes its speech; returns transcripts, fit and held-out loss."""
        config = self._changed(variant)
        models = self._models(variant, config)
        fit_projector(config.fit, models.llm, self.tts, models.projector, self.texts_to_fit)
        fitted, loss = models.projector.info.measurements.get("fit"), None
        if variant.trained:
            outcome = train_projector(config, models, self.training, self.held_out)
            if not outcome.finished:
                raise AudioProjectionError(str(outcome))
            loss = outcome.held_out
        record = {"heard": self._transcribe(models, config, variant.name), "fit": fitted, "held_out": loss}
        return record if fitted is None else record | {"met": self._met(config.fit)}

    def _met(self, settings: FitConfig) -> list[list[bool]]:
        """For each word of each sentence whether the fit met all of its tokens."""
        encoded = ((text, self.tts.tokenize(text)[0]) for text in self.texts_to_fit)
        nothing = ((text, TokenStates(ids, *torch.empty(2, len(ids), 0))) for text, ids in encoded)
        split = Split(len(set(self.texts_to_fit)), settings)
        for _ in split.stream(nothing):
            pass
        return [met_words(text, *self.tts.tokenize(text), split.fitted) for text in self.sentences]

    def _models(self, variant: Variant, config: Config) -> Models:
        kind = StateBefore if variant.before else LanguageModel
        reading = config.llm.layers, config.llm.context, config.llm.prompt
        llm = kind(self.llm.model, self.llm.tokenizer, self.llm.name, *reading)
        projector = new_projector(config, llm, self.tts)
        projector.set_voice(*self.voice)
        return Models(llm, projector, self.tts)

    def _changed(self, variant: Variant) -> Config:
        """The baseline's configuration with a variant's changes, and its own folder for the training."""
        config = self.config.model_copy(deep=True)
        for key, value in variant.changes:
            section, _, name = key.partition(".")
            setattr(getattr(config, section), name, value)
        config.output_dir = config.output_dir / re.sub(r"\W+", "-", variant.name)
        return config

    def _transcribe(self, models: Models, config: Config, name: str, control: str | None = None) -> list[str]:
        voice = Voice(models.llm, self.tts, models.projector, VoiceDefaults.from_config(config))
        spoken = voice.speak_all(self.sentences, seeds=count(config.seed), control=control)
        judge, total = self._recogniser.model_name, len(self.sentences)
        asked = [self._listeners.submit(judge, each.samples, each.sample_rate) for each in shown(spoken, name, total)]
        return [each.result() for each in asked]


def _with_layers(config: Config, layers: list[int]) -> Config:
    """The configuration with these layers; one alone as a number."""
    chosen = layers[0] if len(layers) == 1 else layers
    return config.model_copy(update={"llm": config.llm.model_copy(update={"layers": chosen})})


def met_words(text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]], met: Set[int]) -> list[bool]:
    """For each word of a text whether all of its tokens, by their spans in the text's bytes, are among those `met`."""
    new = [span for token, span in zip(ids, spans, strict=True) if token not in met]

    def size(characters: int) -> int:
        return len(text[:characters].encode())

    words = [(size(found.start()), size(found.end())) for found in re.finditer(r"\S+", text)]
    return [not any(first < end and start < last for first, last in new) for start, end in words]


def wrong_by_meeting(
    texts: Sequence[str], heard: Sequence[str], met: Sequence[Sequence[bool]], normaliser: Normaliser
) -> dict[bool, list[bool]]:
    """Which words are heard wrong, of those whose tokens the fit met (True) and of the others (False).

    A sentence in which the normaliser joins or drops words (numbers) is left out: its words cannot be told apart.
    """
    found: dict[bool, list[bool]] = {True: [], False: []}
    for text, transcript, known in zip(texts, heard, met, strict=True):
        counts = [len(normaliser(word).split()) for word in text.split()]
        wrong = wrong_words(text, transcript, normaliser)
        if sum(counts) == len(wrong):
            each = [flag for flag, number in zip(known, counts, strict=True) for _ in range(number)]
            for flag, mistaken in zip(each, wrong, strict=True):
                found[flag].append(mistaken)
    return found


class AblationReport:
    """Results as a Markdown table and a picture."""

    def __init__(
        self,
        asked: dict[str, dict[str, Variant]],
        results: Results,
        report: EvaluationReport,
        recogniser: Recogniser,
    ) -> None:
        self._asked, self._records, self._report = asked, results.variants, report
        self._normaliser = recogniser.normalise
        self._systems = {system.name: system for system in report.systems}

    def markdown(self) -> str:
        """A Markdown table with 95 % intervals."""
        lines = [
            f"| question | variant | word error rate | minus plain text | {' | '.join(FIT_HEADINGS)} | held-out loss |",
            "|---" * (len(FIT_HEADINGS) + 5) + "|",
            f"| | plain text | {self._rate(PLAIN)} |{' |' * (len(FIT_HEADINGS) + 2)}",
        ]
        for question, answers in self._asked.items():
            lines += [f"| {QUESTIONS[question]} | {self._cells(label, answers[label])} |" for label in answers]
        return "\n".join(lines) + "\n"

    def draw(self, path: Path) -> None:
        """Writes a picture: points with intervals, a panel for each question; dashed line and band are plain text."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        heights = [len(answers) for answers in self._asked.values()]
        figure = Figure(figsize=(8, 1.2 + 0.28 * sum(height + 1 for height in heights)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(heights), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes, (question, answers) in zip(panels[:, 0], self._asked.items(), strict=True):
            axes.set_title(QUESTIONS[question], loc="left", fontsize="small")
            self._draw_panel(axes, answers)
        panels[-1, 0].set_xlabel("word error rate, % (dashed: plain text)")
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        write_bytes(path, picture.getvalue())

    def _cells(self, label: str, variant: Variant) -> str:
        record, difference = self._records[variant.name], self._report.difference(self._systems[variant.name], PLAIN)
        assert difference is not None, "no variant is plain text itself"
        loss = record["held_out"]
        cells = [label, self._rate(variant.name), percent(difference[0], difference[1:], "+"), *self._fit(record)]
        cells.append("" if loss is None else f"{loss:.3f}")
        return " | ".join(cells)

    def _fit(self, record: dict[str, Any]) -> list[str]:
        """The cells of FIT_HEADINGS; empty ones for the residual kind, which is not fitted."""
        fitted = record["fit"]
        if fitted is None:
            return [""] * len(FIT_HEADINGS)
        refined = fitted.get("refined", {})
        right = refined if refined.get("kept") else fitted
        rows = [right.get("seen"), right.get("unseen")]
        words = wrong_by_meeting(self._report.sentences, record["heard"], record["met"], self._normaliser)
        return [
            f"{fitted['tokens']:,}",
            f"{right['r2']:.2f}",
            *("" if share is None else f"{100 * share:.1f} %" for share in rows),
            *(_share(words[met]) for met in (True, False)),
        ]

    def _rate(self, name: str) -> str:
        system = self._systems[name]
        return percent(system.word_error_rate, self._report.interval(system))

    def _draw_panel(self, axes: Any, answers: dict[str, Variant]) -> None:
        plain = self._systems[PLAIN]
        axes.axvline(100 * plain.word_error_rate, linestyle="--", color="grey", linewidth=1)
        axes.axvspan(*(100 * end for end in self._report.interval(plain)), color="grey", alpha=0.15, linewidth=0)
        for place, variant in enumerate(answers.values()):
            system = self._systems[variant.name]
            axes.plot([100 * end for end in self._report.interval(system)], [place, place], color="tab:blue")
            axes.plot(100 * system.word_error_rate, place, "o", color="tab:blue")
        axes.set_yticks(range(len(answers)), list(answers))
        axes.set_ylim(len(answers) - 0.5, -0.5)


def _share(wrong: Sequence[bool]) -> str:
    return f"{100 * sum(wrong) / len(wrong):.1f} % of {len(wrong)}" if wrong else ""


def percent(value: float, interval: Sequence[float], sign: str = "") -> str:
    """A rate and its interval in per cent."""
    return f"{100 * value:{sign}.1f} % [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def settings(given: argparse.Namespace) -> Config:
    """The baseline's configuration."""
    options: dict[str, Any] = {"output_dir": given.output.resolve(), "projector.kind": "linear"}
    options |= {"train.steps": given.train_steps, "train.max_minutes": None}  # a slow machine trains as much
    options |= {"llm.backend": "transformers"}  # llama.cpp's models cannot be read one position before
    if given.pairs is not None:
        options |= {"data.source": "pairs", "data.path": given.pairs.resolve(), "data.texts": None, "data.limit": None}
    return load_config(given.config, given.overrides, options)


def run(given: argparse.Namespace) -> str:
    """Measures the variants without results; returns the table."""
    config, texts = settings(given), read_sentences(limit=given.sentences)
    recogniser: Recogniser = Whisper(given.whisper_model) if given.whisper_model else PocketSphinx()
    recogniser.check()
    folder = make_folder(given.output)
    judges = {recogniser.model_name: recogniser.transcribe}
    with Listeners(judges, given.jobs, folder / "judgements.jsonl") as listeners:
        ablation = Ablation(config, texts, recogniser, listeners)
        results = Results(folder / "results.json", ablation.conditions())
        asked = _asked(given, ablation)
        if PLAIN not in results.variants:
            results.add(PLAIN, ablation.plain())
        wanted = {variant.name: variant for answers in asked.values() for variant in answers.values()}
        for number, variant in enumerate(wanted.values(), 1):
            if variant.name not in results.variants:
                log.info("variant %d of %d: %s", number, len(wanted), variant.name)
                results.add(variant.name, ablation.measure(variant))
    report = results.report(ablation.sentences, config.seed, recogniser)
    found = AblationReport(asked, results, report, recogniser)
    write_bytes(folder / "table.md", found.markdown().encode())
    found.draw(folder / "ablation.png")
    return found.markdown()


def _asked(given: argparse.Namespace, ablation: Ablation) -> dict[str, dict[str, Variant]]:
    """The variants of the questions that are asked."""
    layers = [_layers(word, ablation.llm.num_layers) for word in given.layers or ()]
    compared = layers or range(1, ablation.llm.num_layers + 1)
    every = variants(ablation.config, compared, given.tokens, not given.fit_only)
    return {question: every[question] for question in QUESTIONS if question in given.questions}


def _layers(word: str, count: int) -> int | list[int]:
    """`8`, `last`, or several side by side: `0+last`."""
    parts = word.split("+")
    unknown = next((part for part in parts if part != "last" and not part.isdecimal()), None)
    if unknown is not None:
        raise AudioProjectionError(f"--layers: {unknown!r} is no layer; give numbers, last, or 0+last for side by side")
    found = resolve_layers([part if part == "last" else int(part) for part in parts], count)
    return found[0] if len(found) == 1 else found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings laid over the configuration")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nano.yaml")
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--pairs", type=Path, help="folder of training pairs; without it the TTS makes them")
    parser.add_argument("--sentences", type=int, default=100, help="how many of the held-out ones are spoken")
    parser.add_argument("--train-steps", type=int, default=150)
    parser.add_argument("--fit-only", action="store_true", help="the baseline is fitted on text, not trained")
    parser.add_argument("--layers", nargs="+", help="to compare: 8, last, 0+last (side by side); by default each")
    parser.add_argument("--tokens", nargs="+", type=int, default=TEXT_TOKENS, help="numbers of text tokens to compare")
    parser.add_argument("--whisper-model", help="name or folder of a faster-whisper model; without it pocketsphinx")
    parser.add_argument("--jobs", type=int, default=2, help="processes that listen")
    parser.add_argument("--questions", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    print_report(run, parser.parse_args(arguments), "ablation")


if __name__ == "__main__":
    main()
