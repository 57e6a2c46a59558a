"""Trains in several CPU processes, forked from this one so that the libraries load once; for test_processes.py.

    python tests/helpers/processes.py FOLDER JOBS.json

A job: name, processes, sharded (FSDP as on GPUs), and the settings of `tuned` in test_finetune.py.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from audio_projection.training.trainer import Trainer
from helpers.paths import REPOSITORY
from helpers.training import make_pairs, train_until, tuned

PAIRS = make_pairs(8)


def main(folder: Path, jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        port = free_port()
        children = [fork(folder, job, rank, port) for rank in range(job["processes"])]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(codes):
            sys.exit(f"{job['name']}: {codes}")


def fork(folder: Path, job: dict[str, Any], rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        count = str(job["processes"])
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        train(folder, job)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def train(folder: Path, job: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    if job["sharded"]:
        shard_on_cpus()
    config, models = tuned(folder / job["folder"], job["finetune"], **job["train"])
    trainer = Trainer(config, models, PAIRS[:6], PAIRS[6:])
    assert all(isinstance(value, DTensor) for value in trainer.optimization.parameters) == job["sharded"]
    train_until(trainer, job["until"])


def shard_on_cpus() -> None:
    """Makes Accelerate shard on CPUs: it sets FSDP up for accelerators only, but then runs it on any device."""
    settings = load_config_from_file(str(REPOSITORY / "configs" / "fsdp.yaml")).fsdp_config
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=settings["fsdp_version"],
        auto_wrap_policy=settings["fsdp_auto_wrap_policy"],
        transformer_cls_names_to_wrap=[settings["fsdp_transformer_layer_cls_to_wrap"]],
        reshard_after_forward=settings["fsdp_reshard_after_forward"],
        cpu_ram_efficient_loading=settings["fsdp_cpu_ram_efficient_loading"],
    )
    begin = AcceleratorState.__init__

    def begin_sharded(state: AcceleratorState, *arguments: Any, **options: Any) -> None:
        begin(state, *arguments, **options)
        state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, plugin

    AcceleratorState.__init__ = begin_sharded  # type: ignore[method-assign]


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
