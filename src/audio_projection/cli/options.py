"""The options of the command line: types and help texts, declared once and used by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, BadParameter, Option

from audio_projection.alignment.controls import Control as ControlName
from audio_projection.config import PUBLISHED_CORPORA, SHIPPED_CONFIGS
from audio_projection.config import ProjectorKind as Kind
from audio_projection.files.locations import PARTS

DEFAULT_CONFIG = "configs/default.yaml"
DEFAULT_OUTPUT = Path("output.wav")
STDOUT = Path("-")
DEFAULT_DATA = Path("data")

PlainType = Literal["f32", "f16", "q8_0"]
MatrixType = Literal["f32", "f16", "q8_0", "q4_k_m"]

RECOGNISERS = ("pocketsphinx", "whisper")
_LAYOUTS = (*PUBLISHED_CORPORA, "manifest", "dataset")
_OLD_NAMES = {"commonvoice": "common_voice"}


def _part(word: str) -> str:
    """A part of what can be downloaded."""
    return _one_of(PARTS, word)


def _corpus(word: str) -> str:
    """A published corpus by its name, or by the name that it had before."""
    return _one_of(PUBLISHED_CORPORA, word)


def _layout(word: str) -> str:
    """A corpus layout by its name, or by the name that it had before."""
    return _one_of(_LAYOUTS, word)


def _recogniser(word: str) -> str:
    return _one_of(RECOGNISERS, word)


def _one_of(names: tuple[str, ...], word: str) -> str:
    name = _OLD_NAMES.get(word, word)
    if name not in names:
        raise BadParameter(f"{word!r} is not one of {', '.join(names)}")
    return name


# For every command.
Overrides = Annotated[
    list[str] | None,
    Argument(metavar="[KEY=VALUE]...", help="Settings that override the configuration's, e.g. train.steps=20."),
]
ConfigFile = Annotated[
    str,
    Option(
        "--config",
        "-c",
        metavar="NAME|FILE",
        help=f"Configuration: {', '.join(SHIPPED_CONFIGS)}, or a YAML file; nano is the bundled stack.",
    ),
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
System = Annotated[str | None, Option(help="System prompt of --chat, in the place of llm.system; empty: none.")]
Play = Annotated[bool, Option("--play", help="Play it too, through aplay, afplay or ffplay.")]
Output = Annotated[
    Path, Option("--output", "-o", help="wav, flac, ogg, opus or mp3, by the name; - is stdout, while it is made.")
]
StreamFormat = Annotated[
    Literal["wav", "pcm"] | None,
    Option("--format", help="Of --output -: wav (the default), or pcm, raw 16-bit little-endian mono samples."),
]
OutputDir = Annotated[Path | None, Option(help="Folder for --text-file.")]
PlayLive = Annotated[bool, Option("--play", help="Play answers while they are made.")]
Player = Annotated[
    str | None,
    Option(metavar="PROGRAM", help="Play by this program, which reads WAV from its input, e.g. 'aplay -q -'."),
]
AnswerDir = Annotated[Path | None, Option("--output-dir", help="Folder for the answers: 0001.wav and so on.")]
SystemPrompt = Annotated[str | None, Option("--system", help="System prompt, in the place of llm.system; empty: none.")]

TextToRead = Annotated[str | None, Option("--text", help="What to read; without it and --text-file, stdin.")]
FileToRead = Annotated[Path | None, Option("--text-file", help="A file of lines to read.")]
AsAnswer = Annotated[
    bool, Option("--answer", help="Read all of it as an LLM's answer: code blocks and <think> parts are left out too.")
]
Pieces = Annotated[bool, Option("--pieces", help="A line for each piece that is spoken as one utterance.")]

# How to say it.
Projector = Annotated[
    str | None,
    Option(
        metavar="linear|residual|shipped/NAME|PATH",
        help="The projector of a kind that was trained with this configuration, or else one shipped for its models; a "
        "shipped one itself; or the folder or GGUF file of one. Default: the configuration's.",
    ),
]
Projectors = Annotated[
    list[str] | None,
    Option(
        "--projector",
        metavar="linear|residual|shipped/NAME|PATH",
        help="As for `speak`; repeat it to serve several as models, the first by default.",
    ),
]
VoiceName = Annotated[str | None, Option("--voice", help="Name of a speaker of the speech model.")]
Language = Annotated[str | None, Option(help="Language of the text (english, en, en-US ...), or auto.")]
RefAudio = Annotated[Path | None, Option(help="Recording whose voice is imitated (base models).")]
RefText = Annotated[str | None, Option(help="Transcript of the recording, word for word: its prosody is imitated too.")]
Dtype = Annotated[str | None, Option(help="auto, float32, bfloat16 or float16, for both models.")]
Control = Annotated[
    ControlName | None,
    Option(
        help="Instead of the projected states: the TTS's own text embeddings (plain), its states shuffled over "
        "the tokens, or those of another sentence."
    ),
]

# Serving.
Host = Annotated[str | None, Option(help="Address to listen on; 0.0.0.0: every network. Default: this machine only.")]
Port = Annotated[int | None, Option(min=0, max=65535, help="Port to listen on; 0: any free one.")]
KeyFile = Annotated[
    Path | None,
    Option(help="File of keys, one a line, of which a client must send one; also AUDIO_PROJECTION_API_KEYS."),
]

# Export.
GGUFType = Annotated[MatrixType, Option("--type", help="Type of the matrices of LLM, talker and code predictor.")]
ProjectorType = Annotated[PlainType, Option("--projector-type", help="Type of the projector's matrices.")]
AllFolder = Annotated[Path | None, Option("--all", help="Write everything that speaks into this folder.")]
ProjectorFile = Annotated[Path | None, Option("--output", "-o", help="Write only the projector, into this file.")]
LLMFile = Annotated[Path | None, Option("--llm", help="Take this GGUF file as the language model instead.")]

# Training, download, evaluation.
ProjectorKind = Annotated[Kind | None, Option("--projector", help="Kind of the projector.")]
Resume = Annotated[bool, Option(help="Resume from the newest checkpoint, when there is one.")]
DryRun = Annotated[bool, Option("--dry-run", help="Only print what would be trained; needs no weights.")]
Folder = Annotated[Path | None, Option("--dir", help="Put models and data here instead of the hub's cache.")]
Only = Annotated[
    list[str] | None, Option(parser=_part, metavar="|".join(PARTS), help="Only this part; may be repeated.")
]
Sentences = Annotated[Path | None, Option(help="Text file, a sentence a line; without it the project's own.")]
Limit = Annotated[int | None, Option(min=1, help="Only the first so many sentences.")]
Rows = Annotated[
    list[str] | None,
    Option(
        "--row",
        metavar="SYSTEM",
        help="System to measure: teacher, codec, plain, a projector (linear, residual, shipped/NAME or a folder, as "
        "`speak --projector` takes it), shuffled or other; repeat.",
    ),
]
SoundFolder = Annotated[Path | None, Option("--output", "-o", help="Folder for the sound and results.json.")]
Jobs = Annotated[int, Option(min=1, help="Processes that listen to the speech.")]
Recognisers = Annotated[
    list[str] | None,
    Option(
        "--recogniser",
        parser=_recogniser,
        metavar="|".join(RECOGNISERS),
        help="Who transcribes the speech; repeat for both. The first one's word error rates count.",
    ),
]
WhisperModel = Annotated[
    str, Option(metavar="NAME|FOLDER", help="Model of faster-whisper: a name that it downloads, or a folder.")
]

# Corpora.
CorpusName = Annotated[str, Argument(parser=_corpus, metavar="CORPUS", help=f"One of {', '.join(PUBLISHED_CORPORA)}.")]
CorpusFolder = Annotated[Path, Option("--dir", help="Folder that the corpus is put into.")]
Subsets = Annotated[list[str] | None, Option("--subset", help="Part of LibriSpeech; may be repeated.")]
Layout = Annotated[str, Argument(parser=_layout, metavar="LAYOUT", help=f"Layout of SRC: {', '.join(_LAYOUTS)}.")]
CorpusSource = Annotated[Path, Argument(metavar="SRC", help="Folder of the corpus, its table, or the manifest.")]
Prepared = Annotated[Path, Argument(metavar="PREPARED", help="Folder that `data prepare` made.")]
DataFolder = Annotated[Path, Argument(metavar="OUT", help="Folder to write.")]
Subset = Annotated[
    str | None, Option(help="Part of LibriSpeech, table of Common Voice (train without it), split of a dataset.")
]
ShardSize = Annotated[int, Option("--shard", min=1, help="Items of a shard, the unit of work that is resumed.")]
Processes = Annotated[int, Option(min=1, help="Processes on this machine.")]
PartOf = Annotated[
    str | None, Option("--part", metavar="I/N", help="Only the I-th of N machines' parts; else torchrun's environment.")
]
TextsFile = Annotated[Path, Argument(metavar="OUT", help="File to write, a text a line.")]
TextCount = Annotated[int, Option("--count", min=1, help="Texts to write.")]
PromptsFile = Annotated[Path | None, Option("--prompts", help="Prompts, a line each, instead of the project's own.")]
Without = Annotated[
    list[Path] | None, Option("--without", help="File of sentences that must not be written; may be repeated.")
]
States = Annotated[bool, Option("--states", help="Keep the LLM's states too (bfloat16); else training computes them.")]
