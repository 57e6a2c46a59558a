"""Audio-token training of the projector: cross-entropy through the frozen talker, the gradient to the projector only.

The loop is plain torch; Accelerate brings devices and processes. Whatever a step draws at random comes from
(seed, position), so a run that was killed and resumed takes the very same steps.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator, PartialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from audio_projection.checkpoint import Checkpoints, TrainingState
from audio_projection.data_loader import (
    BatchOrder,
    BatchWalk,
    load_pairs,
    split_held_out,
    texts_to_fit,
)
from audio_projection.errors import AudioProjectionError
from audio_projection.examples import Examples, RowsOf
from audio_projection.features import chunks
from audio_projection.fit import fit
from audio_projection.losses import count_targets
from audio_projection.metrics import MetricsLog, draw_losses
from audio_projection.pairs import Pair
from audio_projection.parts import Parts, assemble, choose_device, load_tts
from audio_projection.projector import ProjectorInfo
from audio_projection.voices import default_voice

if TYPE_CHECKING:
    from audio_projection.config import Config, TrainConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    steps: int
    projector: Path  # folder of the projector
    loss: float | None  # of the last step, None when none was taken
    held_out: float | None  # codebook 0, nats
    plain: float | None  # the same with the TTS's own text rows
    finished: bool

    def __str__(self) -> str:
        if not self.finished:
            return f"stopped after step {self.step} of {self.steps}; the same command goes on from there"
        held_out = "" if self.held_out is None else f", held-out loss {self.held_out:.3f} (plain text {self.plain:.3f})"
        return f"trained {self.step} steps{held_out}; the projector is in {self.projector}"


def run(config: Config, resume: bool = True) -> Outcome:
    """Trains the projector of a configuration from the models and data it names; see `train_projector`."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    processes = PartialState(cpu=choose_device(config).type == "cpu")
    tts = load_tts(config)
    with processes.main_process_first():  # makes the codes that the others then find
        pairs = load_pairs(config, tts)
    training, held_out = split_held_out(pairs, config.data.held_out, config.seed)
    voice, source = default_voice(config, tts, training)
    texts = texts_to_fit(config, training, held_out)
    checkpoints = _checkpoints(config, resume)
    parts = assemble(config, tts, texts, _probed_before(checkpoints))
    if checkpoints.latest() is None:
        fit(config.fit, parts.llm, tts, parts.projector, texts)
    parts.projector.set_voice(voice, source)
    return train_projector(config, parts, training, held_out)


def train_projector(config: Config, parts: Parts, training: Sequence[Pair], held_out: Sequence[Pair]) -> Outcome:
    """Trains `parts.projector` in place, from the newest checkpoint in `config.run_dir` on, and saves it at the end.

    Writes metrics.jsonl, loss.png, checkpoints/ and projector/ there. SIGTERM ends it with a checkpoint. Raises
    AudioProjectionError when the checkpoint is damaged or was made with other settings, models or data.
    """
    trainer = Trainer(config, parts, training, held_out)
    trainer.resume()
    with _terminated() as terminated:
        return trainer.train(terminated)


class Trainer:
    """One run: the loop, its checkpoints and its records."""

    def __init__(self, config: Config, parts: Parts, training: Sequence[Pair], held_out: Sequence[Pair]) -> None:
        if not training:
            raise AudioProjectionError("nothing to train on: give more training pairs (data.limit, data.path)")
        self.config, self.settings, self.parts = config, config.train, parts
        self.accelerator = Accelerator(cpu=choose_device(config).type == "cpu")
        self.parameters = list(parts.projector.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.train.learning_rate, weight_decay=config.train.weight_decay
        )
        self.training = Examples(config, parts, training)
        self.held_out = Examples(config, parts, held_out)
        self.order = BatchOrder(self.training.frames, config.train.batch, config.seed)
        self.checkpoints = Checkpoints(config.run_dir / "checkpoints", config.train.keep_checkpoints)
        self.steps = config.train.total_steps(len(training))
        self.step, self.seconds = 0, 0.0
        self.last_loss: float | None = None
        self.metrics: MetricsLog | None = None
        self.plain: dict[str, float] | None = None

    def resume(self) -> None:
        """Takes up the newest checkpoint; without one the projector as it is becomes the first."""
        fresh = self.checkpoints.latest() is None
        self.accelerator.wait_for_everyone()
        if fresh:
            self._save()
        folder = self.checkpoints.latest()
        assert folder is not None, "there is one, or it has just been written"
        state = self.checkpoints.load(folder)
        _check_same(state.settings, self._fixed_settings(), folder)
        self.parts.projector.load_state_dict(state.projector)
        self.parts.projector.info.measurements = state.settings["projector"]["measurements"]
        self.optimizer.load_state_dict(state.optimizer)
        self.step, self.seconds = state.step, state.seconds
        if not fresh:
            log.info("train: going on from step %d (%s)", self.step, folder)
        if self.accelerator.is_main_process:
            self.metrics = MetricsLog(self.config.run_dir / "metrics.jsonl", self.step)

    def train(self, terminated: threading.Event) -> Outcome:
        """Steps until all are done, the time is over or the process is told to end."""
        began, before = time.monotonic(), self.seconds
        held_out = self._evaluate() if self.step == 0 else None
        walk = BatchWalk(self.order, self.step * self._batches_a_step)
        with self._progress() as (progress, task):
            done = self._stopping(terminated)
            while not done:
                record = self._take_step(walk)
                self.seconds = before + time.monotonic() - began
                self._write({"step": self.step, "training": record, "seconds": round(self.seconds, 2)})
                progress.update(task, completed=self.step, loss=f"{record['talker']:.3f}")
                done = self._stopping(terminated)
                if self.step % self.settings.eval_every == 0 and not done:
                    held_out = self._evaluate()
                if self.step % self.settings.checkpoint_every == 0 or done:
                    self._save()
        finished = self._over()
        if finished:
            held_out = self._evaluate()
        return self._finish(held_out, finished)

    @property
    def _batches_a_step(self) -> int:
        return self.settings.grad_accumulation * self.accelerator.num_processes

    def _over(self) -> bool:
        limit = self.settings.max_minutes
        return self.step >= self.steps or (limit is not None and self.seconds >= 60 * limit)

    def _stopping(self, terminated: threading.Event) -> bool:
        """Whether any of the processes wants to stop: they do it together."""
        wanted = torch.tensor(float(self._over() or terminated.is_set()), device=self.parts.tts.device)
        return bool(self.accelerator.reduce(wanted, "sum") > 0)

    def _take_step(self, walk: BatchWalk) -> dict[str, float]:
        """One optimizer step over all micro-batches of all processes, normalised by all their valid targets."""
        first = walk.position
        batches = [next(walk) for _ in range(self._batches_a_step)]
        counts = [
            count_targets(
                [self.order.lengths[index] for index in batch],
                self.parts.tts.config.code_groups,
                self.settings.predictor_share,
            )
            for batch in batches
        ]
        targets = sum(count.talker for count in counts), sum(count.predictor for count in counts)
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(3, device=self.parts.tts.device)
        for place in range(self.accelerator.process_index, len(batches), self.accelerator.num_processes):
            sums += self._backward(batches[place], first + place, targets)
        sums = self.accelerator.reduce(sums, "sum")
        for parameter in self.parameters:
            parameter.grad = self.accelerator.reduce(parameter.grad, "sum")
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        rate = learning_rate(self.settings, self.steps, self.step, self.seconds)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            log.warning("train: step %d left out, its gradient is not finite", self.step)
        self.step += 1
        self.last_loss = float(sums[0] / targets[0])
        return {
            "talker": self.last_loss,
            "predictor": float(sums[1] / targets[1]),
            "accuracy": float(sums[2] / targets[0]),
            "gradient": float(norm),
            "learning_rate": rate,
        }

    def _backward(self, batch: Sequence[int], position: int, targets: tuple[int, int]) -> Tensor:
        generator = torch.Generator().manual_seed(_seed_at(self.config.seed, position))
        with self._precision():
            losses = self.training.losses(batch, self.training.projected, generator)
        weighted = self.settings.predictor_weight * losses.predictor / targets[1]
        (losses.talker / targets[0] + weighted).backward()
        return torch.stack((losses.talker.detach(), losses.predictor.detach(), losses.hits.float()))

    def _precision(self) -> torch.autocast:
        # not Accelerate's, whose precision can be set only once in a process
        enabled = self.settings.precision == "bf16"
        return torch.autocast(self.parts.tts.device.type, torch.bfloat16, enabled=enabled)

    def _evaluate(self) -> dict[str, float] | None:
        """Held-out losses of the projector, written beside those of the TTS fed with plain text."""
        if not self.held_out.pairs:
            return None
        if self.plain is None:
            self.plain = self._held_out_losses(self.held_out.plain)
        reached = self._held_out_losses(self.held_out.projected)
        self._write({"step": self.step, "held_out": reached, "plain": self.plain})
        log.info(
            "step %d: held-out loss %.3f (plain text %.3f), codebook 0 right %.1f %% (%.1f %%)",
            *(self.step, reached["talker"], self.plain["talker"]),
            *(100 * reached["accuracy"], 100 * self.plain["accuracy"]),
        )
        self._draw()
        return reached

    @torch.no_grad()
    def _held_out_losses(self, rows_of: RowsOf) -> dict[str, float]:
        frames = self.held_out.frames
        order = sorted(range(len(frames)), key=lambda index: (frames[index], index))
        sums, targets = torch.zeros(3), [0, 0]
        for number, batch in enumerate(chunks(order, self.settings.batch)):
            with self._precision():
                losses = self.held_out.losses(batch, rows_of, torch.Generator().manual_seed(number))
            sums += torch.stack((losses.talker, losses.predictor, losses.hits.float())).cpu()
            targets = [targets[0] + losses.talker_targets, targets[1] + losses.predictor_targets]
        return {
            "talker": float(sums[0] / targets[0]),
            "predictor": float(sums[1] / targets[1]),
            "accuracy": float(sums[2] / targets[0]),
        }

    def _finish(self, held_out: dict[str, float] | None, finished: bool) -> Outcome:
        projector, folder = self.parts.projector, self.config.trained_projector
        if finished and self.accelerator.is_main_process:
            projector.info.steps = self.step
            results = {"held_out": held_out, "plain": self.plain, "seconds": round(self.seconds, 1)}
            projector.info.measurements["train"] = results
            projector.save_pretrained(folder)
        self._draw()
        self.accelerator.wait_for_everyone()
        outcome = Outcome(
            step=self.step,
            steps=self.steps,
            projector=folder,
            loss=self.last_loss,
            held_out=held_out["talker"] if held_out else None,
            plain=self.plain["talker"] if self.plain else None,
            finished=finished,
        )
        log.info("train: %s", outcome)
        return outcome

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            state = TrainingState(
                step=self.step,
                position=self.step * self._batches_a_step,
                projector=self.parts.projector.state_dict(),
                optimizer=self.optimizer.state_dict(),
                settings=self._fixed_settings(),
                seconds=self.seconds,
            )
            self.checkpoints.save(state)
        self.accelerator.wait_for_everyone()

    def _fixed_settings(self) -> dict[str, Any]:
        """Everything that the weights of the coming steps depend on."""
        free = {"checkpoint_every", "keep_checkpoints", "eval_every"}
        pairs = [f"{pair.id} {len(pair.codes)} {pair.text}" for pair in self.training.pairs]
        return {
            "projector": self.parts.projector.info.to_json(),
            "train": self.settings.model_dump(mode="json", exclude=free),
            "data": hashlib.sha256("\n".join(pairs).encode()).hexdigest(),
            "seed": self.config.seed,
            "processes": self.accelerator.num_processes,
        }

    def _write(self, record: dict[str, Any]) -> None:
        if self.metrics is not None:
            self.metrics.add(record)

    def _draw(self) -> None:
        if self.metrics is not None:
            draw_losses(self.metrics.records(), self.config.run_dir / "loss.png")

    @contextmanager
    def _progress(self) -> Iterator[tuple[Progress, TaskID]]:
        columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}")
        hidden = not self.accelerator.is_main_process
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=hidden) as progress:
            yield progress, progress.add_task("training", total=self.steps, completed=self.step, loss="-")


def learning_rate(settings: TrainConfig, steps: int, step: int, seconds: float = 0.0) -> float:
    """The rate of step `step` (from 0) of `steps`: linear warm-up, then constant, or a half cosine down to a tenth.

    With `max_minutes` the cosine follows whichever of steps and time is further on.
    """
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup) / max(1, steps - settings.warmup)
    if settings.max_minutes is not None:
        done = max(done, seconds / (60 * settings.max_minutes))
    return settings.learning_rate * (0.55 + 0.45 * math.cos(math.pi * min(1.0, done)))


def _checkpoints(config: Config, resume: bool) -> Checkpoints:
    folder = config.run_dir / "checkpoints"
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    return Checkpoints(folder, config.train.keep_checkpoints)


def _probed_before(checkpoints: Checkpoints) -> tuple[int, dict[str, Any]] | None:
    """The layer and report of the probe that the run to be resumed began with."""
    folder = checkpoints.latest()
    if folder is None:
        return None
    info = ProjectorInfo.from_json(checkpoints.settings(folder)["projector"], folder / "state.json")
    return info.layers[0], info.measurements.get("probe", {})


def _check_same(saved: dict[str, Any], present: dict[str, Any], folder: Path) -> None:
    """Raises AudioProjectionError naming the first setting that differs; results and the voice may."""
    for name, value in _flat(saved).items():
        if name.startswith(("projector.measurements", "projector.voice")):
            continue
        now = _flat(present).get(name)
        if now != value:
            raise AudioProjectionError(
                f"the run in {folder.parent.parent} was begun with another {name} ({str(value)[:40]}, now "
                f"{str(now)[:40]}); set it back, start anew with --no-resume, or choose another output_dir"
            )


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{key}" if isinstance(content, dict) else section: value
        for section, content in values.items()
        for key, value in (content.items() if isinstance(content, dict) else [("", content)])
    }


def _seed_at(seed: int, position: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {position}".encode()).digest()[:7], "big")


@contextmanager
def _terminated() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; only the main thread may listen to signals."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, previous)
