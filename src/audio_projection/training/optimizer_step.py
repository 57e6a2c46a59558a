"""One optimizer step over micro-batches and processes, and the learning rate schedule.

Accelerate provides devices, processes, DDP and FSDP. What a micro-batch samples at random is seeded by the run's seed
and the micro-batch's position in the data, whichever process computes it.
"""

from __future__ import annotations

import hashlib
import logging
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType
from torch import Tensor

from audio_projection.data_loader import BatchWalk
from audio_projection.devices import choose_device
from audio_projection.errors import AudioProjectionError
from audio_projection.training.examples import Examples
from audio_projection.training.fsdp import gathered, lay_out_in_rows
from audio_projection.training.objective import Objective, means

if TYPE_CHECKING:
    from audio_projection.config import Config, TrainConfig

log = logging.getLogger(__name__)


class OptimizerStep:
    """Gradient accumulation, clipping and AdamW for the objective, shared between the processes.

    Frozen weights are in no parameter group: they get neither gradient nor optimizer state.
    """

    def __init__(self, config: Config, objective: Objective, training: Examples) -> None:
        """Raises AudioProjectionError under FSDP when the settings do not allow sharding."""
        self.objective, self._training = objective, training
        self._settings, self._seed = config.train, config.seed
        self.accelerator = Accelerator(
            cpu=choose_device(config.device).type == "cpu",
            mixed_precision="no",  # train.precision decides, whatever the launcher's configuration says
            device_placement=False,  # the models are where the configuration wants them
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        if self.accelerator.distributed_type == DistributedType.FSDP:
            _check_fsdp(config.tts.finetune, config.train.sample_every)
            lay_out_in_rows(objective)
        groups = [{"params": list(objective.projector.parameters()), "share": 1.0}]
        tuned = [parameter for parameter in objective.tts.parameters() if parameter.requires_grad]
        if tuned:
            groups.append({"params": tuned, "share": config.tts.finetune_rate})
        optimizer = torch.optim.AdamW(groups, lr=config.train.learning_rate, weight_decay=config.train.weight_decay)
        with warnings.catch_warnings():
            # the buffers are the codec's and frozen; Accelerate knows only the deprecated name of this option
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self.model, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]

    @property
    def micro_batches(self) -> int:
        """Number of micro-batches in an optimizer step, over all processes."""
        return self._settings.grad_accumulation * self.accelerator.num_processes

    def take_step(self, walk: BatchWalk, rate: float) -> dict[str, float]:
        """One optimizer step at the learning rate `rate`; returns the mean of each loss and their weighted sum.

        Means are over all targets of all micro-batches. Every process computes its share of the micro-batches. A
        gradient that is not finite changes no weight.
        """
        first, processes = walk.position, self.accelerator.num_processes
        batches = [next(walk) for _ in range(self.micro_batches)]
        targets = self._targets(batches)
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(len(targets), device=self.objective.tts.device)
        for place in range(self.accelerator.process_index, len(batches), processes):
            last = place + processes >= len(batches)
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                sums += self._backward(batches[place], _seed_at(self._seed, first + place), targets)
        norm = self._apply_gradients(rate)
        totals = dict(zip(targets, self.accelerator.reduce(sums, "sum").tolist(), strict=True))
        reached = means(totals, targets)
        loss = sum(weight * reached[name] for name, weight in self.objective.weights.items())
        return {"loss": loss, **reached, "gradient": norm, "learning_rate": rate}

    def mean(self, value: float) -> float:
        """The mean of a number over all processes, the same in each; every process must call this."""
        return float(self.accelerator.reduce(torch.tensor(value, device=self.objective.tts.device), "mean"))

    def _targets(self, batches: Sequence[Sequence[int]]) -> dict[str, int]:
        """Number of targets of each loss in all micro-batches of a step."""
        total: Counter[str] = Counter()
        lengths = self._training.frames, self._training.tokens
        for batch in batches:
            frames, tokens = ([each[index] for index in batch] for each in lengths)
            total.update(self.objective.targets(self.objective.names, frames, tokens))
        return {name: total[name] for name in self.objective.names}

    def _backward(self, batch: Sequence[int], seed: int, targets: dict[str, int]) -> Tensor:
        """Accumulates the gradients of one micro-batch; returns its sums, in the order of `targets`."""
        sums = self.model(self._training, batch, self.objective.projected, list(targets), seed)
        # DDP averages the gradients over the processes; they must be summed
        self.accelerator.backward(self.objective.weighted(sums, targets) * self.accelerator.num_processes)
        return torch.stack([sums[name].detach() for name in targets])

    def _apply_gradients(self, rate: float) -> float:
        """Clips the gradient and updates the weights; returns the norm before clipping."""
        norm = gathered(self.accelerator.clip_grad_norm_(self.parameters, self._settings.clip))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            log.warning("train: a step is skipped, its gradient is not finite")
        return float(norm)


def learning_rate(settings: TrainConfig, steps: int, step: int, seconds: float = 0.0) -> float:
    """Learning rate of step `step` (from 0) of `steps`: linear warm-up, then constant, or cosine decay to a tenth.

    With `max_minutes` the cosine follows steps or time, whichever is further on.
    """
    warmup = settings.warmup_steps(steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - warmup) / max(1, steps - warmup)
    if settings.max_minutes is not None:
        done = max(done, seconds / (60 * settings.max_minutes))
    return settings.learning_rate * (0.55 + 0.45 * math.cos(math.pi * min(1.0, done)))


def _check_fsdp(finetune: str, sample_every: int | None) -> None:
    if finetune != "full":
        raise AudioProjectionError("FSDP shards what trains: use it with tts.finetune=full, else launch without it")
    if sample_every is not None:
        raise AudioProjectionError(
            "under FSDP no process has all weights, so none can speak a sample: set train.sample_every=null"
        )


def _seed_at(seed: int, position: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {position}".encode()).digest()[:7], "big")
