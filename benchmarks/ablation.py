"""Ablation of the design: the word error rate of the speech after one change at a time.

    python benchmarks/ablation.py --pairs work/pairs --output runs/ablation
    python benchmarks/ablation.py --sentences 20 --questions kind training layer

Questions: the kind of projector; its activation; the hidden state at the token or one position before it; the layer;
what the LLM reads; the fit alone or training on audio tokens after it; how much text the fit sees. Each variant differs
in one thing only from the baseline, the `linear` projector of the configuration. It is fitted, trained, and its speech
transcribed by pocketsphinx. Plain text through the same TTS is the reference.

The output folder gets results.json, written after every variant, so that a stopped command resumes with the next one;
table.md; and ablation.png. Without --pairs the TTS speaks the configuration's own training texts first.
"""

from __future__ import annotations

import argparse
import io
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from audio_projection.config import Config, load_config
from audio_projection.data.pairs import seeded_digest
from audio_projection.data.speakers import default_voice
from audio_projection.data_loader import load_pairs, split_held_out, texts_to_fit
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.recognisers import PocketSphinx
from audio_projection.evaluation.report import EvaluationReport, EvaluationResult, Recognition
from audio_projection.evaluation.sentence_sets import read_sentences
from audio_projection.evaluation.systems import PLAIN, speak_line
from audio_projection.evaluation.word_errors import word_errors
from audio_projection.files.atomic import make_folder, write_bytes, write_json
from audio_projection.files.fingerprint import fingerprint
from audio_projection.files.json_reader import read_json
from audio_projection.fit.assemble import assemble, new_projector
from audio_projection.fit.closed_form import fit_projector
from audio_projection.inference import Voice, VoiceDefaults
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
    "training": "training",
    "tokens": "text tokens for the fit, no audio",
}
TEXT_TOKENS = (1_000, 10_000, 100_000)


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


def variants(config: Config, layers: int) -> dict[str, dict[str, Variant]]:
    """The variants of each question by label; one of them is the baseline.

    `config` is the baseline's; `layers`: the number of the LLM's layers.
    """

    def one_of(key: str, present: Any, values: Iterable[Any]) -> dict[str, Variant]:
        return {str(value): Variant(() if value == present else ((key, value),)) for value in values}

    return {
        "kind": one_of("projector.kind", config.projector.kind, KINDS),
        "activation": one_of("projector.activation", config.projector.activation, ACTIVATIONS),
        "state": {"at the token": Variant(), "one position before": Variant(before=True)},
        "layer": one_of("llm.layers", config.llm.layers, range(1, layers + 1)),
        "context": one_of("llm.context", config.llm.context, ("raw", "chat")),
        "training": {"fit only": Variant(trained=False), "fit and audio tokens": Variant()},
        "tokens": {f"{count:,}": Variant((("fit.tokens", count),), trained=False) for count in TEXT_TOKENS},
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

    def report(self, texts: list[str], seed: int) -> EvaluationReport:
        """All variants as systems of an evaluation."""
        systems = []
        for name, record in self.variants.items():
            errors = [word_errors(text, heard) for text, heard in zip(texts, record["heard"], strict=True)]
            systems.append(EvaluationResult(name, name, {PocketSphinx.name: Recognition(record["heard"], errors)}))
        return EvaluationReport(texts, systems, seed)


class Ablation:
    """Trains and measures variants; models and data are loaded once and shared."""

    def __init__(self, config: Config, texts: Sequence[str]) -> None:
        """`config` is the baseline's; with `llm.layers: probe` the probe chooses its layer."""
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.tts = load_tts(config)
        training, self.held_out = split_held_out(load_pairs(config, self.tts), config.data.held_out, config.seed)
        self.texts_to_fit = texts_to_fit(config, training, self.held_out)
        self.training = training[: config.train.total_steps(len(training)) * config.train.batch]
        self.voice = default_voice(config.tts, self.tts, training, config.data.voice_speaker)
        chosen = assemble(config, self.tts, self.texts_to_fit).llm.layers
        layers = chosen[0] if len(chosen) == 1 else chosen
        self.config = config.model_copy(update={"llm": config.llm.model_copy(update={"layers": layers})})
        self.sentences = [as_spoken(text, Reading.from_config(config)) for text in texts]
        self.llm = load_llm(self.config)  # all of it: variants read other layers
        self.recognizer = PocketSphinx()

    def conditions(self) -> dict[str, Any]:
        """Everything that the results depend on besides the variants."""
        return {
            "sentences": self.sentences,
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
        return {"heard": self._transcribe(models, config, variant.name), "fit": fitted, "held_out": loss}

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
        console, transcripts = Console(stderr=True), []
        lines = track(self.sentences, name, console=console, transient=True, disable=not console.is_terminal)
        for number, text in enumerate(lines):
            utterance = speak_line(voice, text, config.seed + number, control)
            transcripts.append(self.recognizer.transcribe(utterance.samples, utterance.rate))
        return transcripts


class AblationReport:
    """Results as a Markdown table and a picture."""

    def __init__(self, asked: dict[str, dict[str, Variant]], results: Results, report: EvaluationReport) -> None:
        self._asked, self._records, self._report = asked, results.variants, report
        self._systems = {system.name: system for system in report.systems}

    def markdown(self) -> str:
        """A Markdown table with 95 % intervals."""
        lines = [
            "| question | variant | word error rate | minus plain text | tokens fitted | R2 | held-out loss |",
            "|---|---|---|---|---|---|---|",
            f"| | plain text | {self._rate(PLAIN)} | | | | |",
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
        fitted, loss = record["fit"], record["held_out"]
        cells = [label, self._rate(variant.name), percent(difference[0], difference[1:], "+")]
        cells += ["", ""] if fitted is None else [f"{fitted['tokens']:,}", f"{fitted['r2']:.2f}"]
        cells.append("" if loss is None else f"{loss:.3f}")
        return " | ".join(cells)

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


def percent(value: float, interval: Sequence[float], sign: str = "") -> str:
    """A rate and its interval in per cent."""
    return f"{100 * value:{sign}.1f} % [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def settings(given: argparse.Namespace) -> Config:
    """The baseline's configuration."""
    options: dict[str, Any] = {"output_dir": given.output.resolve(), "projector.kind": "linear"}
    options |= {"train.steps": given.train_steps, "train.max_minutes": None}  # a slow machine trains as much
    if given.pairs is not None:
        options |= {"data.source": "pairs", "data.path": given.pairs.resolve(), "data.texts": None, "data.limit": None}
    return load_config(given.config, given.overrides, options)


def run(given: argparse.Namespace) -> str:
    """Measures the variants without results; returns the table."""
    config, texts = settings(given), read_sentences(limit=given.sentences)
    folder = make_folder(given.output)
    ablation = Ablation(config, texts)
    results = Results(folder / "results.json", ablation.conditions())
    every = variants(ablation.config, ablation.llm.num_layers)
    asked = {question: every[question] for question in QUESTIONS if question in given.questions}
    if PLAIN not in results.variants:
        results.add(PLAIN, ablation.plain())
    wanted = {variant.name: variant for answers in asked.values() for variant in answers.values()}
    for number, variant in enumerate(wanted.values(), 1):
        if variant.name not in results.variants:
            log.info("variant %d of %d: %s", number, len(wanted), variant.name)
            results.add(variant.name, ablation.measure(variant))
    found = AblationReport(asked, results, results.report(ablation.sentences, config.seed))
    write_bytes(folder / "table.md", found.markdown().encode())
    found.draw(folder / "ablation.png")
    return found.markdown()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings laid over the configuration")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nano.yaml")
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--pairs", type=Path, help="folder of training pairs; without it the TTS makes them")
    parser.add_argument("--sentences", type=int, default=100, help="how many of the held-out ones are spoken")
    parser.add_argument("--train-steps", type=int, default=150)
    parser.add_argument("--questions", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("audio_projection").setLevel(logging.INFO)
    try:
        print(run(given), end="")
    except AudioProjectionError as error:
        sys.exit(f"ablation: {error}")


if __name__ == "__main__":
    main()
