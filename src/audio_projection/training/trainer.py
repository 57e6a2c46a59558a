"""The training loop: optimizer steps, validation, samples, checkpoints, and the saved projector at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from audio_projection.data.pairs import Pair
from audio_projection.data_loader import BatchOrder, BatchWalk
from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import is_projector
from audio_projection.models import Models
from audio_projection.processes import current_processes
from audio_projection.projector import Projector, build_projector
from audio_projection.training.audio_samples import SpokenSample
from audio_projection.training.checkpoints import Checkpoints, TrainingState
from audio_projection.training.examples import Examples
from audio_projection.training.fsdp import load_optimizer_state, load_trained, optimizer_state, trained_weights
from audio_projection.training.objective import Objective
from audio_projection.training.optimizer_step import OptimizerStep, learning_rate
from audio_projection.training.resume import check_same, fixed_settings
from audio_projection.training.run_log import RunLog
from audio_projection.training.validation import Validation
from audio_projection.tts.finetune import finetuning

if TYPE_CHECKING:
    from audio_projection.config import Config

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a training run ended, and the losses that it reached."""

    step: int
    steps: int
    projector: Path  # folder of the projector
    loss: float | None  # weighted sum of the losses in the last step; None when no step was taken
    held_out: float | None  # cross-entropy of codebook 0 on held-out pairs, nats
    plain: float | None  # the same with the TTS's own text embeddings
    finished: bool
    interrupted: bool = False  # by Ctrl-C

    def __str__(self) -> str:
        if not self.finished:
            return f"stopped after step {self.step} of {self.steps}; the same command goes on from there"
        held_out = "" if self.held_out is None else f", held-out loss {self.held_out:.3f} (plain text {self.plain:.3f})"
        steps = f"{self.step} steps"
        if self.step < self.steps:
            steps = f"{self.step} of {self.steps} steps, as many as train.max_minutes allowed"
        return f"trained {steps}{held_out}; the projector is in {self.projector}"


class Trainer:
    """One training run: `resume`, then `train`."""

    def __init__(self, config: Config, models: Models, training: Sequence[Pair], held_out: Sequence[Pair]) -> None:
        """Makes trainable in `models` what the configuration says.

        Raises AudioProjectionError when there are no pairs or the configuration cannot be trained.
        """
        if not training:
            raise AudioProjectionError("nothing to train on: give more training pairs (data.limit, data.path)")
        self.config, self.settings, self.models, self.pairs = config, config.train, models, training
        self.finetuning = finetuning(config, models.tts)
        models.projector.info.finetune = self.finetuning.kind
        models.tts.talker.transformer.checkpointing = config.train.activation_checkpointing
        self.examples = [Examples(models, pairs, config.train, config.tts) for pairs in (training, held_out)]
        examples, validation = self.examples
        layout, untuned = config.tts.layout, self.finetuning.untuned
        self.objective = Objective(config.train, layout, models.projector, models.tts, untuned)
        self.optimization = OptimizerStep(config, self.objective, examples)
        self.accelerator = self.optimization.accelerator
        self.processes = current_processes(cpu=models.tts.device.type == "cpu")
        self.validation = Validation(self.optimization.model, self.objective, validation, config.train.batch)
        self.sample = SpokenSample(config, models, [*held_out, *training][0])
        self.order = BatchOrder(examples.frames, config.train.batch, config.seed)
        self.checkpoints = Checkpoints(config.run_dir / "checkpoints", config.train.keep_checkpoints)
        self.run_log = RunLog(config.run_dir, self.accelerator.is_main_process, config.train.tensorboard)
        self.steps = config.train.total_steps(len(training), self.accelerator.num_processes)
        self.step, self.seconds = 0, 0.0
        self.loss: float | None = None
        self.reached: dict[str, dict[str, float]] = {}

    @property
    def needs_llm(self) -> bool:
        """Whether training still reads texts with the LLM, as opposed to states that are cached or kept in memory."""
        return self.settings.sample_every is not None or any(examples.needs_llm for examples in self.examples)

    def resume(self) -> None:
        """Loads the newest checkpoint; without one, saves the weights as they are as the first."""
        fresh = self.checkpoints.latest() is None
        self.processes.wait("the newest checkpoint")
        if fresh:
            self._save()
        folder = self.checkpoints.latest()
        assert folder is not None, "one was found or has just been saved"
        state = self.checkpoints.load(folder)
        check_same(state.settings, self._fixed_settings(), folder, self.settings.extend)

        load_trained(self.objective, state.weights)
        load_optimizer_state(self.optimization.optimizer, state.optimizer)
        self.models.projector.info.measurements = state.settings["projector"]["measurements"]
        self.step, self.seconds = state.step, state.seconds
        self._report_length(state.settings["train"])
        if not fresh:
            log.info("train: resuming from step %d (%s)", self.step, folder)

    def train(self, terminated: threading.Event) -> Outcome:
        """Takes steps until all are done, the time is over or `terminated` is set; then validates and saves.

        A run that is finished already is left as it is.
        """
        if self._over() and self._is_saved():
            return self._outcome(finished=True)
        self.run_log.begin(self.step)
        began, before = time.monotonic(), self.seconds
        if self.step == 0:
            self._evaluate()
        walk = BatchWalk(self.order, self.step * self.optimization.micro_batches)
        with self.run_log.progress(self.steps, self.step) as (progress, task):
            done = self._stopping(terminated)
            while not done:
                rate = learning_rate(self.settings, self.steps, self.step, self.seconds)
                record = self.optimization.take_step(walk, rate)
                self.step, self.loss = self.step + 1, record["loss"]
                self.seconds = self.optimization.mean(before + time.monotonic() - began)  # decides the learning rate
                self.run_log.add({"step": self.step, "training": record, "seconds": round(self.seconds, 2)})
                progress.update(task, completed=self.step, loss=losses_in_words(record, self.objective.weights))
                done = self._stopping(terminated)
                self._after_step(done)
        return self._finish()

    def _after_step(self, done: bool) -> None:
        """Validates, speaks a sample or saves, where this step is due; the last validation is in `_finish`."""
        if self._due(self.settings.eval_every) and not done:
            self._evaluate()
        if self._due(self.settings.sample_every):
            self._speak()
        if self._due(self.settings.checkpoint_every) or done:
            self._save()

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def _over(self) -> bool:
        limit = self.settings.max_minutes
        return self.step >= self.steps or (limit is not None and self.seconds >= 60 * limit)

    def _stopping(self, terminated: threading.Event) -> bool:
        """Whether the run stops: all processes together, whichever of them got the signal."""
        return self.optimization.mean(float(self._over() or terminated.is_set())) > 0

    def _evaluate(self) -> None:
        """Logs the validation losses of the projector beside those of the TTS fed with plain text."""
        if not self.validation:
            return
        plain, reached = self.validation.plain(), self.validation.projected()
        self.reached = {"held_out": reached, "plain": plain}
        self.run_log.add({"step": self.step, **self.reached})
        log.info(
            "step %d: held-out loss %s; with plain text %.3f; codebook 0 right %.1f %% (%.1f %%)",
            *(self.step, losses_in_words(reached, self.objective.weights), plain["talker"]),
            *(100 * reached["accuracy"], 100 * plain["accuracy"]),
        )
        self.run_log.plot()

    def _speak(self) -> None:
        if self.accelerator.is_main_process:
            with self.finetuning.merged():
                sample = self.sample.write(self.step)
            self.run_log.add_sample(sample, self.step)
        self.processes.wait(f"the sample of step {self.step}")

    def _finish(self) -> Outcome:
        finished = self._over()
        if finished:
            self._evaluate()
            self._save_trained()
        self.run_log.close()
        self.processes.wait("the end of the run")
        return self._outcome(finished)

    def _is_saved(self) -> bool:
        """Whether the projector of this very step is in its place, with its losses."""
        folder = self.config.trained_projector
        if not is_projector(folder):
            return False
        info = Projector.from_pretrained(folder).info
        losses = info.measurements.get("train", {})
        self.reached = {name: losses[name] for name in ("held_out", "plain") if losses.get(name)}
        return info.steps == self.step and self.step > 0

    def _report_length(self, begun: Mapping[str, Any]) -> None:
        """Says how the schedule of a run goes on that was begun with another length."""
        if self.settings.total_steps(len(self.pairs), self.accelerator.num_processes) < self.step:
            raise AudioProjectionError(f"the run is at step {self.step} already: set train.steps to more, or leave it")
        now = self.settings.model_dump(mode="json")
        changed = [name for name in ("steps", "epochs", "max_minutes") if begun.get(name) != now[name]]
        for name in changed:
            log.info(
                "train: train.%s was %s and is %s: the %s schedule is that of the longer run from here on",
                *(name, begun.get(name), now[name], self.settings.schedule),
            )

    def _outcome(self, finished: bool) -> Outcome:
        return Outcome(
            step=self.step,
            steps=self.steps,
            projector=self.config.trained_projector,
            loss=self.loss,
            held_out=self.reached["held_out"]["talker"] if self.reached else None,
            plain=self.reached["plain"]["talker"] if self.reached else None,
            finished=finished,
        )

    def _save_trained(self) -> None:
        """Saves the projector, and the fine-tuned talker if there is one."""
        weights = trained_weights(self.objective)
        if self.accelerator.is_main_process:
            folder, info = self.config.trained_projector, self.models.projector.info
            info.steps = self.step
            info.measurements["train"] = {
                "held_out": self.reached.get("held_out"),
                "plain": self.reached.get("plain"),
                "seconds": round(self.seconds, 1),
            }
            self.finetuning.save(folder, _with_prefix("tts.talker.", weights))
            projector = build_projector(info)
            projector.load_state_dict(_with_prefix("projector.", weights))
            projector.voice_vector = self.models.projector.voice_vector
            projector.save_pretrained(folder)

    def _save(self) -> None:
        weights, moments = trained_weights(self.objective), optimizer_state(self.optimization.optimizer)
        if self.accelerator.is_main_process:
            state = TrainingState(
                step=self.step,
                position=self.step * self.optimization.micro_batches,
                weights=weights,
                optimizer=moments,
                settings=self._fixed_settings(),
                seconds=self.seconds,
            )
            self.checkpoints.save(state)
        self.processes.wait(f"the checkpoint of step {self.step}")

    def _fixed_settings(self) -> dict[str, Any]:
        return fixed_settings(self.config, self.models.projector.info, self.pairs, self.optimization.micro_batches)


def losses_in_words(losses: Mapping[str, float], weights: Mapping[str, float]) -> str:
    """The loss that runs are compared by, the cross-entropy of codebook 0, beside the others and their weighted sum."""
    total = sum(weight * losses[name] for name, weight in weights.items() if name in losses)
    others = [f"{name} {losses[name]:.3f}" for name in weights if name != "talker" and name in losses]
    if "talker" not in losses:
        return ", ".join([*others, f"sum {total:.3f}"])
    return (
        f"{losses['talker']:.3f} ({', '.join([*others, f'sum {total:.3f}'])})" if others else f"{losses['talker']:.3f}"
    )


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
