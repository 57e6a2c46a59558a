"""The whole recipe: every stage in order, from a text file and an LLM's token embeddings to speech.

    python recipes/nano/run.py work --text prompts.txt --llm SmolLM2-135M-Instruct.gguf
    python recipes/nano/run.py work --smoke

Each stage is a command of its own, shown before it runs, and can be run by hand too.  Without `--text` the
first stage makes a text (`prompts.py`).  The text table begins from the LLM that `--llm` names, a GGUF file or a
transformers folder; a smoke run takes the nano LLM that comes with this project.  All that is made lies under
the work folder: models in `tts/` and `llm/`, projectors in `runs/`, each stage's words in `logs/`, and in
`recipe.json` what each stage took.

A stage that is complete is not repeated, one that was cut off goes on where it was, and what comes after a
stage that had to run is made again.  `--from` runs a stage and all after it again, `--only` runs the named
ones alone.  `--smoke` is the same at toy size: it shows in two minutes that every stage works, and makes
nothing worth hearing.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).resolve().parent
REPOSITORY = RECIPE.parents[1]
NANO_LLM = REPOSITORY / "src" / "audio_projection" / "nano" / "llm"
MADE = "{repository}/configs/nano.yaml llm.name={work}/llm tts.name={work}/tts tts.speaker=heart"
PROJECTOR = (
    f"-m audio_projection train --config {MADE} data.source=pairs data.path={{work}}/pairs"
    " data.texts={work}/texts.txt output_dir={work}/runs --projector "
)
SPEAK = (
    f"-m audio_projection speak --config {MADE} --projector {{work}}/runs/linear/projector"
    " --text 'Hello world.' --output {work}/hello.wav"
)
HELD_OUT = " --without {repository}/benchmarks/heldout.txt {repository}/benchmarks/robustness.txt"
ALL_HELD_OUT = HELD_OUT + " {repository}/benchmarks/questions.txt {repository}/benchmarks/heteronyms.tsv"
ENVIRONMENT = {
    # One thread unless told otherwise: on a small machine more of them wait for each other most of the time.
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONUNBUFFERED": "1",
    # glibc would give large tensors back to the system and fetch them anew in every step: a third of the time.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(10**11),
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
NEEDED = {
    "hibari": "hibari-tts",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "librosa": "librosa",
    "gguf": "gguf",
}
"""Modules that only the recipe needs, and the packages that bring them (the extra `recipe`)."""
STOPPED = 143
"""Exit code after SIGTERM."""


@dataclass(frozen=True)
class Stage:
    """One command; all paths of `products` are under the work folder."""

    name: str
    command: str
    full: str
    """Its sizes in earnest."""
    smoke: str
    """Its sizes for a test."""
    products: tuple[str, ...]
    """What is there when it is complete."""
    stale: tuple[str, ...] = ()
    """What it would go on with, although made from other things: removed when an earlier stage has run again."""

    def words(self, smoke: bool) -> list[str]:
        """The command after `python`, with places still to be filled in: it does not depend on where they are."""
        return shlex.split(self.command) + shlex.split(self.smoke if smoke else self.full)


PROJECTOR_SIZES = {
    "linear": "data.limit=16000 train.steps=1600 train.learning_rate=1e-3 train.loss.distill=1 train.loss.talker=0.5",
    "residual": "data.limit=4000 train.steps=300 train.learning_rate=3e-4",
}
STAGES = (
    Stage(
        "prompts", "prompts.py {work}/prompts.txt", "--sentences 100000 --wordnet", "--sentences 1500", ("prompts.txt",)
    ),
    Stage(
        "text-table",
        "text_table.py {text} {work} --llm {llm}" + HELD_OUT,
        "--sentences 60000 --kinds 8000",
        "--sentences 60 --kinds 20 --used 200 --spoken 1",
        ("sentences.txt", "text_table.safetensors", "tts/vocab.json", "tts/merges.txt"),
    ),
    Stage(
        "speech",
        "corpus.py {work}/sentences.txt {work}/speech",
        "--audio-shards 30",
        "--audio-shards 2 --shard 30",
        ("speech/text-0000.json",),
    ),
    Stage("codebooks", "fit_codebooks.py {work}", "--fit-shards 12", "--fit-shards 2", ("codebooks.safetensors",)),
    Stage(
        "acoustic-model",
        "acoustic_model.py {work}",
        "--steps 1500",
        "--steps 2 --batch 2",
        ("acoustic_model.safetensors",),
    ),
    Stage(
        "decoder",
        "decoder.py {work}",
        "--steps 12000 --critics-from 7000",
        "--steps 2 --critics-from 1 --batch 2 --frames 8",
        ("decoder.safetensors",),
    ),
    Stage("encoder", "encoder.py {work}", "--steps 5000", "--steps 2 --batch 2 --frames 12", ("encoder.safetensors",)),
    Stage(
        "codes",
        "corpus.py {work}/sentences.txt {work}/speech --books {work}/codebooks.safetensors",
        "",
        "--shard 30",
        ("speech/codes-0000.safetensors",),
    ),
    Stage(
        "talker",
        "talker.py {work}",
        "--steps 12000",
        "--steps 8 --batch 4 --held-out 10 --save-every 2",
        ("talker.safetensors",),
    ),
    Stage(
        "folder",
        "folder.py {work}",
        "",
        "",
        ("tts/config.json", "tts/characters.json", "tts/model.safetensors", "tts/speech_tokenizer/model.safetensors"),
    ),
    Stage(
        "llm",
        "llm.py {text} {work}/tts {work}/llm-training {work}/llm" + ALL_HELD_OUT,
        "--steps 4500",
        "--steps 40 --batch-tokens 512 --held-out 100",
        ("llm/config.json", "llm/model.safetensors", "llm/training.json"),
    ),
    Stage(
        "texts",
        "texts.py {work}/llm {work}/texts.txt" + ALL_HELD_OUT,
        "--sentences 3000",
        "--sentences 60",
        ("texts.txt",),
    ),
    Stage("pairs", "pairs.py {work}", "--shards 64", "--shards 2", ("pairs/pairs.json",), ("pairs",)),
    *(
        Stage(
            kind,
            PROJECTOR + kind,
            sizes + " data.held_out=100 train.batch=16 train.predictor_share=0.08 train.max_minutes=null",
            "data.limit=24 data.held_out=4 train.steps=2 train.batch=4 fit.tokens=500 fit.held_out=10",
            (f"runs/{kind}/projector/projector.safetensors",),
            (f"runs/{kind}",),
        )
        for kind, sizes in PROJECTOR_SIZES.items()
    ),
    Stage("speak", SPEAK, "", "", ("hello.wav",)),
)


@dataclass
class Cost:
    """What a stage took, all its processes together; the memory is that of the largest one."""

    wall: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    """GB."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.memory, other.memory))

    def __str__(self) -> str:
        return f"{self.wall:9.1f} s {self.cpu:9.1f} s CPU {self.memory:6.2f} GB"


class Recipe:
    """The stages of one work folder, and the record of those that are complete."""

    def __init__(self, work: Path, text: Path | None, smoke: bool, llm: Path = NANO_LLM) -> None:
        self.work, self.smoke = work.resolve(), smoke
        self.stages = [stage for stage in STAGES if text is None or stage.name != "prompts"]
        self.places = {
            "work": self.work,
            "text": text.resolve() if text else self.work / "prompts.txt",
            "llm": llm.resolve(),
            "repository": REPOSITORY,
        }
        self.path = self.work / "recipe.json"
        made_of = {"smoke": smoke, "text": digest(text) if text else None, "llm": digest(llm)}
        self.record = self.read() or {"made_of": made_of, "stages": {}}
        if self.record["made_of"] != made_of:
            raise SystemExit(f"error: {work} was begun with another text, LLM or size; choose another folder")
        try:
            (self.work / "logs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SystemExit(f"error: cannot make the folder {work}: {error.strerror}; choose another") from None

    def read(self) -> dict[str, Any] | None:
        """What the record's file says, where there is one."""
        if not self.path.is_file():
            return None
        try:
            record: dict[str, Any] = json.loads(self.path.read_text())
            return {key: record[key] for key in ("made_of", "stages")}
        except (ValueError, KeyError, TypeError):
            raise SystemExit(f"error: {self.path} is damaged: remove it, or choose another folder") from None

    def complete(self, stage: Stage) -> bool:
        """Whether it has run to its end, with these sizes, and its products are still there."""
        known = self.record["stages"].get(stage.name, {})
        return (
            known.get("complete", False)
            and known["command"] == stage.words(self.smoke)
            and all((self.work / product).exists() for product in stage.products)
        )

    def go(self, first: str | None = None, only: list[str] | None = None) -> bool:
        """Run what is not complete, or what is asked for; whether all ended well."""
        names, again = [stage.name for stage in self.stages], only or [first]
        for number, stage in enumerate(self.stages):
            skipped = stage.name not in only if only else first is not None and number < names.index(first)
            if skipped or (stage.name not in again and self.complete(stage)):
                continue
            if not only:
                self.forget(self.stages[number + 1 :])
            if not self.run(stage, stage.name in again):
                return False
        return True

    def run(self, stage: Stage, again: bool) -> bool:
        """Run one stage, from nothing when `again`; whether it ended well."""
        known = self.record["stages"].get(stage.name, {})
        if again or known.get("command", stage.words(self.smoke)) != stage.words(self.smoke):
            self.remove(stage)
        before = Cost(**known["cost"]) if known and not known["complete"] else Cost()
        script, *rest = [word.format(**self.places) for word in stage.words(self.smoke)]
        command = [script, *rest] if script == "-m" else [str(RECIPE / script), *rest]
        print(f"\n== {stage.name}: python {shlex.join(command)}", flush=True)
        code, cost, figure = spend([sys.executable, *command], self.work / "logs" / f"{stage.name}.log")
        # a training that was told to end exits with 0 too, without its product
        complete = code == 0 and all((self.work / product).exists() for product in stage.products)
        entry = {"command": stage.words(self.smoke), "complete": complete, "figure": figure}
        self.record["stages"][stage.name] = entry | {"cost": vars(before + cost)}
        self.save()
        said = f"{stage.name}: {cost}" if complete else f"{stage.name} has not ended well (exit code {code})"
        print(f"== {said}", flush=True)
        return complete

    def forget(self, stages: list[Stage]) -> None:
        """What was made of something that is being made again is no longer complete."""
        for stage in stages:
            if self.record["stages"].pop(stage.name, None):
                self.remove(stage)
        self.save()

    def remove(self, stage: Stage) -> None:
        for name in stage.stale:
            shutil.rmtree(self.work / name, ignore_errors=True)

    def save(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.record, indent=1) + "\n")
        os.replace(part, self.path)

    def table(self) -> str:
        lines, total = [], Cost()
        for stage in self.stages:
            known = self.record["stages"].get(stage.name)
            if known:
                cost = Cost(**known["cost"])
                total += cost
                lines.append(f"{stage.name:14} {cost}  {known['figure'] if known['complete'] else 'not complete'}")
        return "\n".join([*lines, f"{'all':14} {total}"])


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of the weights in it."""
    return hashlib.sha256((path / "model.safetensors" if path.is_dir() else path).read_bytes()).hexdigest()


def spend(command: list[str], log: Path) -> tuple[int, Cost, str]:
    """Run a command to its end, its words also into a file: exit code, cost and last line."""
    began, last, stopped = time.monotonic(), "", 0
    environment = {**ENVIRONMENT, **os.environ}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    )
    try:
        with log.open("a", encoding="utf-8") as file:
            for line in process.stdout:
                print(line, end="", flush=True)
                file.write(line)
                last = line.strip() or last
    except (KeyboardInterrupt, SystemExit):
        process.terminate()
        stopped = STOPPED
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    cost = Cost(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e9)
    return stopped or process.returncode, Cost(*(round(value, 3) for value in vars(cost).values())), last


def check_tools() -> None:
    """Stop before anything is made when a stage could not run."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        packages = " ".join(NEEDED[name] for name in missing)
        raise SystemExit(f"error: the recipe needs {packages}: pip install -e '.[recipe]'")


def main() -> None:
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=f"Stages: {', '.join(names)}.")
    parser.add_argument("work", type=Path, help="folder for all that is made")
    parser.add_argument("--text", type=Path, help="file of sentences, a line each; none: a text is made")
    parser.add_argument("--llm", type=Path, help="GGUF file or folder of the LLM that the text table begins from")
    parser.add_argument("--smoke", action="store_true", help="toy sizes: proves that every stage works")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--from", dest="first", choices=names, metavar="STAGE", help="run it and all after it again")
    group.add_argument("--only", nargs="+", choices=names, metavar="STAGE", help="run these alone, again")
    arguments = parser.parse_args()
    if arguments.text and not arguments.text.is_file():
        parser.error(f"no text file {arguments.text}")
    if arguments.llm and not (arguments.llm.is_file() or (arguments.llm / "model.safetensors").is_file()):
        parser.error(f"no LLM at {arguments.llm}: neither a GGUF file nor a folder with model.safetensors")
    if not arguments.llm and not arguments.smoke:
        parser.error("--llm is needed: a GGUF file or a transformers folder, for instance SmolLM2-135M-Instruct")
    if arguments.text and "prompts" in [arguments.first, *(arguments.only or [])]:
        parser.error("the stage prompts makes a text, and --text gives one")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    check_tools()
    recipe = Recipe(arguments.work, arguments.text, arguments.smoke, arguments.llm or NANO_LLM)
    well = recipe.go(arguments.first, arguments.only)
    print(f"\n{recipe.table()}")
    if not well:
        sys.exit("error: a stage has not ended well; the same command goes on from there")


if __name__ == "__main__":
    main()
