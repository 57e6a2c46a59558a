"""The options of the command line: types and help texts, declared once and used by several commands."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

DEFAULT_CONFIG = Path("configs/default.yaml")
DEFAULT_OUTPUT = Path("output.wav")
DEFAULT_DATA = Path("data")


class Part(str, Enum):
    llm = "llm"
    tts = "tts"
    data = "data"


class Kind(str, Enum):
    linear = "linear"
    residual = "residual"


class ControlName(str, Enum):
    plain = "plain"
    shuffled = "shuffled"
    other = "other"


class Published(str, Enum):
    librispeech = "librispeech"
    ljspeech = "ljspeech"
    commonvoice = "commonvoice"


class CorpusLayout(str, Enum):
    librispeech = "librispeech"
    commonvoice = "commonvoice"
    ljspeech = "ljspeech"
    manifest = "manifest"
    dataset = "dataset"


class PlainType(str, Enum):
    f32 = "f32"
    f16 = "f16"
    q8_0 = "q8_0"


class MatrixType(str, Enum):
    f32 = "f32"
    f16 = "f16"
    q8_0 = "q8_0"
    q4_k_m = "q4_k_m"


# For every command.
Overrides = Annotated[
    list[str] | None,
    Argument(metavar="[KEY=VALUE]...", help="Settings laid over the configuration, e.g. train.steps=20."),
]
ConfigFile = Annotated[
    Path, Option("--config", "-c", help="Configuration file; configs/nano.yaml is the bundled stack.")
]
GGUFFolder = Annotated[
    Path | None, Option("--gguf", help="Folder made by `export gguf --all`: speak with its files, by llama.cpp.")
]
Device = Annotated[str | None, Option(help="auto, cpu, mps, cuda or cuda:N.")]
Seed = Annotated[int | None, Option(help="Seed of everything random.")]
Threads = Annotated[int | None, Option(help="CPU threads.")]

# What to say, and where to.
Text = Annotated[str | None, Option(help="What to say; without any text option it is read from stdin.")]
TextFile = Annotated[
    Path | None, Option(help="A text a line; each becomes NNNN.wav of its line number in --output-dir.")
]
Chat = Annotated[str | None, Option(help="A question; the language model's own answer is spoken.")]
Output = Annotated[Path, Option("--output", "-o", help="wav, flac, ogg or mp3, by the name.")]
OutputDir = Annotated[Path | None, Option(help="Folder for --text-file.")]

# How to say it.
Projector = Annotated[
    str | None, Option(metavar="linear|residual|PATH", help="Kind, or folder of a trained projector.")
]
VoiceName = Annotated[str | None, Option("--voice", help="Name of a speaker of the speech model.")]
Language = Annotated[str | None, Option(help="Language of the text, or auto.")]
RefAudio = Annotated[Path | None, Option(help="Recording whose voice is imitated (base models).")]
RefText = Annotated[str | None, Option(help="What the recording says, word for word: its manner is imitated too.")]
Dtype = Annotated[str | None, Option(help="auto, float32, bfloat16 or float16, for both models.")]
Control = Annotated[
    ControlName | None,
    Option(help="Instead of the projected states: the TTS's own text rows, or states put in wrong places."),
]

# Export.
GGUFType = Annotated[MatrixType, Option("--type", help="Type of the matrices of LLM, talker and code predictor.")]
ProjectorType = Annotated[PlainType, Option("--projector-type", help="Type of the projector's matrices.")]
AllFolder = Annotated[Path | None, Option("--all", help="Write everything that speaks into this folder.")]
ProjectorFile = Annotated[Path | None, Option("--output", "-o", help="Write only the projector, into this file.")]
LLMFile = Annotated[Path | None, Option("--llm", help="Take this GGUF file as the language model instead.")]

# Training, download, evaluation.
ProjectorKind = Annotated[Kind | None, Option("--projector", help="Kind of the projector.")]
Resume = Annotated[bool, Option(help="Go on from the newest checkpoint, when there is one.")]
DryRun = Annotated[bool, Option("--dry-run", help="Only say what would be trained; needs no weights.")]
Folder = Annotated[Path | None, Option("--dir", help="Put models and data here instead of the hub's cache.")]
Only = Annotated[list[Part] | None, Option(help="Only this part; may be repeated.")]
Sentences = Annotated[Path | None, Option(help="Text file, a sentence a line; without it the project's own.")]
Limit = Annotated[int | None, Option(min=1, help="Only the first so many sentences.")]
Rows = Annotated[
    list[str] | None,
    Option("--row", help="teacher, codec, plain, linear, residual, shuffled, other or a projector's folder; repeat."),
]
SoundFolder = Annotated[Path | None, Option("--output", "-o", help="Folder for the sound and results.json.")]
Jobs = Annotated[int, Option(min=1, help="Processes that recognise speech.")]

# Corpora.
CorpusName = Annotated[Published, Argument(help="What to bring.")]
CorpusFolder = Annotated[Path, Option("--dir", help="Folder that the corpus is put into.")]
Subsets = Annotated[list[str] | None, Option("--subset", help="Part of LibriSpeech; may be repeated.")]
Layout = Annotated[CorpusLayout, Argument(help="Layout of the source.")]
CorpusSource = Annotated[Path, Argument(metavar="SRC", help="Folder of the corpus, its table, or the manifest.")]
Prepared = Annotated[Path, Argument(metavar="PREPARED", help="Folder that `data prepare` made.")]
DataFolder = Annotated[Path, Argument(metavar="OUT", help="Folder to write.")]
Subset = Annotated[
    str | None, Option(help="Part of LibriSpeech, table of Common Voice (train without it), split of a dataset.")
]
ShardSize = Annotated[int, Option("--shard", min=1, help="Items of a shard, the unit of work that is done or not.")]
Processes = Annotated[int, Option(min=1, help="Processes on this machine.")]
PartOf = Annotated[
    str | None, Option("--part", metavar="I/N", help="Only the I-th of N machines' parts; else torchrun's environment.")
]
States = Annotated[bool, Option("--states", help="Keep the LLM's states too (bfloat16); else training computes them.")]
