"""Trained stages of nano 2 on the way, kept until the final weights come: written from a run, and restored into one.

    python recipes/nano/legs.py save RUN
    python recipes/nano/legs.py restore RUN

`codec.safetensors` has decoder, critics and encoder in float16 and the codebooks in float32, `talker-0` and `talker-1`
the talker with a byte for each weight and a scale for each row.  Optimisers begin anew, as does what a talker had
not when it was saved.  The run that they are restored into has its text table already.
"""

import argparse
from pathlib import Path

import checkpoint
import decoder
import encoder
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from talker_model import Talker, with_lessons
from text_ids import TextIds
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent / "legs"
SCALE = ".scale"
LARGEST = 14_000_000
"""Bytes of one file of the talker."""


def models(books: dict[str, Tensor]) -> dict[str, nn.Module]:
    """New ones around the codebooks."""
    return {"decoder": decoder.with_critics(decoder.build(books)), "encoder": encoder.build(books)}


def trained(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A checkpoint's tensors without its optimisers', and its metadata."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    return {name: value for name, value in load_file(path).items() if not name.startswith("optim.")}, metadata


def is_table(name: str) -> bool:
    """Whether a tensor of decoder or encoder is a codebook."""
    return name.endswith(("embedding_sum", "embed_sum"))


def rows_in_bytes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 beside the scale of each row, the rest in float16."""
    found = {}
    for name, value in tensors.items():
        if value.ndim == 2:
            scale = value.abs().amax(1, keepdim=True).clamp_min(1e-8) / 127
            found[name], found[name + SCALE] = (value / scale).round().to(torch.int8), scale
        else:
            found[name] = value.half()
    return found


def save(run: Path) -> None:
    HERE.mkdir(exist_ok=True)
    parts = {f"books.{name}": value for name, value in load_file(run / "codebooks.safetensors").items()}
    steps = {}
    for stage in ("decoder", "encoder"):
        tensors, metadata = trained(run / f"{stage}.safetensors")
        parts |= {f"{stage}/{name}": value.half() for name, value in tensors.items() if not is_table(name)}
        steps[stage] = metadata["step"]
    save_file(parts, HERE / "codec.safetensors", steps)
    tensors, metadata = trained(run / "talker.safetensors")
    number, part = 0, {}
    for name, value in sorted(rows_in_bytes(tensors).items()):
        if sum(each.nbytes for each in part.values()) + value.nbytes > LARGEST:
            save_file(part, HERE / f"talker-{number}.safetensors", metadata)
            number, part = number + 1, {}
        part[name] = value
    save_file(part, HERE / f"talker-{number}.safetensors", metadata)


def restore(run: Path) -> None:
    parts = load_file(HERE / "codec.safetensors")
    with safe_open(HERE / "codec.safetensors", "pt") as file:
        steps = file.metadata()
    books = {name.removeprefix("books."): value for name, value in parts.items() if name.startswith("books.")}
    save_file(books, run / "codebooks.safetensors")
    for stage, model in models(books).items():
        tensors = {name.removeprefix(f"{stage}/"): v for name, v in parts.items() if name.startswith(f"{stage}/")}
        model.load_state_dict(tensors, strict=False)  # the codebooks are there
        checkpoint.save(run / f"{stage}.safetensors", model, [], int(steps[stage]))
    talker: dict[str, Tensor] = {}
    for path in sorted(HERE.glob("talker-*.safetensors")):
        talker |= load_file(path)
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    weights = {name: value.float() * talker.get(name + SCALE, 1.0) for name, value in talker.items()}
    source = load_file(run / "text_table.safetensors")["source"]
    model = with_lessons(Talker(TextIds.from_folder(run / "tts")), source)
    model.load_state_dict({name: weights[name] for name in model.state_dict() if name in weights}, strict=False)
    checkpoint.save(run / "talker.safetensors", model, [], step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["save", "restore"])
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    {"save": save, "restore": restore}[arguments.action](arguments.run)


if __name__ == "__main__":
    main()
