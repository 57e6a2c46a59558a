"""The committed part of the parity kit as checkpoint folders, and the benchmark scripts as modules."""

from __future__ import annotations

import atexit
import importlib.util
import json
import re
import shutil
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers import paths

FIXTURES = paths.FIXTURES / "parity"
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


CHECKPOINTS = ("tiny_base", "tiny_custom_voice", "tiny_voice_design", "odd")


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="parity-kit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def checkpoint(name: str) -> Path:
    """The folder of one of CHECKPOINTS, for reading only: all tests share it."""
    folder = _folder() / name
    return folder if folder.is_dir() else assemble(name, _folder())


def assemble(name: str, folder: Path) -> Path:
    """Writes the checkpoint `name`, one of CHECKPOINTS, as `folder`/`name`, for a test that changes it."""
    base, target = FIXTURES / "tiny_base", folder / name
    target.mkdir(parents=True)
    for file in (*TOKENIZER_FILES, "generation_config.json"):
        shutil.copyfile(base / file, target / file)
    (target / "speech_tokenizer").mkdir()
    for file in (base / "speech_tokenizer").iterdir():
        shutil.copyfile(file, target / "speech_tokenizer" / file.name)
    if name == "tiny_base":
        shutil.copyfile(base / "config.json", target / "config.json")
        shutil.copyfile(base / "model.safetensors", target / "model.safetensors")
        return target
    shutil.copyfile(FIXTURES / f"{name}.config.json", target / "config.json")
    if name == "odd":
        shutil.copyfile(FIXTURES / "odd.safetensors", target / "model.safetensors")
        _keep_code_groups(target / "speech_tokenizer", 6)
    else:
        weights = load_file(base / "model.safetensors")
        save_file({k: v for k, v in weights.items() if k.startswith("talker.")}, target / "model.safetensors")
    return target


def _keep_code_groups(folder: Path, groups: int) -> None:
    """Removes the codebooks beyond `groups` code groups from a codec folder."""
    config = json.loads((folder / "config.json").read_text())
    config["encoder_valid_num_quantizers"] = config["decoder_config"]["num_quantizers"] = groups
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    layer = re.compile(r"decoder\.quantizer\.rvq_rest\.vq\.layers\.(\d+)\.")
    beyond = [name for name in weights if (found := layer.match(name)) and int(found[1]) >= groups - 1]
    save_file({k: v for k, v in weights.items() if k not in beyond}, folder / "model.safetensors")


def reference(name: str) -> dict[str, Tensor]:
    """The committed outputs of the official package, with the recordings that were its inputs."""
    outputs = load_file(FIXTURES / f"{name}.ref.safetensors")
    if "enc.codes.0" in outputs:
        outputs["enc.in"] = 0.2 * torch.randn(2, 72777, generator=torch.Generator().manual_seed(7))
    if "ref.x_vector" in outputs:
        samples = 9000 if name == "short" else 48000
        outputs["ref.wav"] = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(5))
    return outputs


def script(name: str) -> ModuleType:
    """benchmarks/`name`.py as a module, which finds those beside it as when it is run."""
    path = paths.REPOSITORY / "benchmarks" / f"{name}.py"
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module
