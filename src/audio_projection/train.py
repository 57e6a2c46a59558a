"""Trains the projector: the closed-form fit, then gradient descent through the frozen TTS on `train.loss`."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from audio_projection.data.pairs import Pair
from audio_projection.data.speakers import default_voice
from audio_projection.data_loader import load_pairs, split_held_out, texts_to_fit
from audio_projection.devices import choose_device
from audio_projection.fit.assemble import assemble
from audio_projection.fit.closed_form import fit_projector
from audio_projection.models import Models, load_tts, use_threads
from audio_projection.processes import Processes, current_processes
from audio_projection.training.checkpoints import Checkpoints
from audio_projection.training.resume import head_before, probed_before
from audio_projection.training.run_log import summary_writer
from audio_projection.training.trainer import Outcome, Trainer
from audio_projection.tts.finetune import check_finetuning

if TYPE_CHECKING:
    from audio_projection.config import Config


def run_training(config: Config, resume: bool = True) -> Outcome:
    """Loads the models and data that a configuration names, fits the projector and trains it; see `train_projector`."""
    use_threads(config.threads)
    if config.train.tensorboard:
        summary_writer()  # fails before anything that takes long
    processes = current_processes(cpu=choose_device(config.device).type == "cpu")
    with processes.ending_together():
        tts = load_tts(config)
        check_finetuning(config.tts.finetune, config.train.loss, tts)
        pairs = load_pairs(config, tts, processes)
        training, held_out = split_held_out(pairs, config.data.held_out, config.seed)
        voice, source = default_voice(config.tts, tts, training, config.data.voice_speaker)
        texts = texts_to_fit(config, training, held_out)
        checkpoints = _checkpoints(config, resume, processes)
        models = assemble(
            config, tts, texts, probed_before(checkpoints), processes, head_to_read(checkpoints, training)
        )
        if checkpoints.latest() is None:  # the other processes get the weights with the first checkpoint
            processes.first("the closed-form fit", lambda: _fit(config, models, texts))
        models.projector.set_voice(voice, source)
        trainer = Trainer(config, models, training, held_out)
        if not trainer.needs_llm:
            models.llm.release()
        return _run(trainer)


def train_projector(config: Config, models: Models, training: Sequence[Pair], held_out: Sequence[Pair]) -> Outcome:
    """Trains `models.projector` in place, resuming from the newest checkpoint in `config.run_dir`, and saves it there.

    With `tts.finetune` the talker of `models.tts` trains too. Writes metrics.jsonl, loss.png, samples/, checkpoints/
    and projector/. SIGTERM ends the run with a checkpoint. Raises AudioProjectionError when the checkpoint is damaged
    or was made with other settings, models or data.
    """
    return _run(Trainer(config, models, training, held_out))


def _run(trainer: Trainer) -> Outcome:
    trainer.resume()
    with _terminated() as terminated:
        return trainer.train(terminated)


def head_to_read(checkpoints: Checkpoints, pairs: Sequence[Pair]) -> list[int] | None:
    """LLM token ids before every text: of the run that is resumed, else of the cached states; None: today's.

    A chat template may write the date; states must not change overnight.
    """
    cached = [pair.states.conditions.get("head") for pair in pairs if pair.states is not None]
    return head_before(checkpoints) or (cached[0] if cached and len(cached) == len(pairs) else None)


def _fit(config: Config, models: Models, texts: Sequence[str]) -> None:
    fit_projector(config.fit, models.llm, models.tts, models.projector, texts)


def _checkpoints(config: Config, resume: bool, processes: Processes) -> Checkpoints:
    folder = config.run_dir / "checkpoints"
    if not resume and processes.index == 0:
        shutil.rmtree(folder, ignore_errors=True)
    processes.wait("the list of the checkpoints")
    return Checkpoints(folder, config.train.keep_checkpoints)


@contextmanager
def _terminated() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; never set outside the main thread, which alone can handle signals."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, previous)
