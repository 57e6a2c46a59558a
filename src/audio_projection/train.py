"""Trains the projector: the closed-form fit, then gradient descent through the frozen TTS on `train.loss`."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from audio_projection.data.pairs import Pair
from audio_projection.data.speakers import default_voice
from audio_projection.data_loader import check_data, load_pairs, split_held_out, texts_to_fit
from audio_projection.devices import choose_device
from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import write_json
from audio_projection.files.interruption import Interrupted, stop_requested
from audio_projection.files.json_reader import read_json
from audio_projection.files.locations import given_projector
from audio_projection.files.lock import folder_lock
from audio_projection.fit.assemble import assemble, fit_conditions
from audio_projection.fit.closed_form import fit_projector
from audio_projection.models import Models, check_layers, load_projector, load_tts, use_threads
from audio_projection.processes import Processes, current_processes
from audio_projection.projector import Projector
from audio_projection.training.checkpoints import Checkpoints
from audio_projection.training.resume import check_settings, head_before, probed_before
from audio_projection.training.run_log import summary_writer
from audio_projection.training.trainer import Outcome, Trainer
from audio_projection.tts.finetune import check_finetuning

if TYPE_CHECKING:
    from audio_projection.config import Config

log = logging.getLogger(__name__)


def run_training(config: Config, resume: bool = True) -> Outcome:
    """Loads the models and data that a configuration names, fits the projector and trains it; see `train_projector`.

    What settings alone can show is refused before anything is loaded. What the layer probe found is kept, so that a
    run that is stopped before its first checkpoint need not probe again.
    """
    use_threads(config.threads)
    if config.train.tensorboard:
        summary_writer()  # fails before anything that takes long
    processes = current_processes(cpu=choose_device(config.device).type == "cpu")
    with processes.ending_together(), folder_lock(config.run_dir) if processes.index == 0 else nullcontext():
        check_layers(config)  # what is refused loses no checkpoint, also with resume=False
        checkpoints = _checkpoints(config, resume, processes)
        check_settings(config, checkpoints)
        check_data(config.data)
        start = None if config.train.start is None else _start(config, checkpoints)
        try:
            trainer = _prepared(config, processes, checkpoints, start)
        except KeyboardInterrupt:
            raise Interrupted("interrupted before the first step: the same command begins again") from None
        return _run(trainer)


def _prepared(config: Config, processes: Processes, checkpoints: Checkpoints, start: Projector | None) -> Trainer:
    """The trainer of a run: models loaded, pairs read or made, the projector fitted, or to be resumed."""
    log.info("train: loading the speech model %s", config.tts.name)
    tts = load_tts(config)
    check_finetuning(config.tts.finetune, config.train.loss, tts)
    pairs = load_pairs(config, tts, processes)
    training, held_out = split_held_out(pairs, config.data.held_out, config.seed)
    voice, source = default_voice(config.tts, tts, training, config.data.voice_speaker)
    texts = texts_to_fit(config, training, held_out)
    log.info("train: %d utterances to train on, %d held out", len(training), len(held_out))
    known = probed_before(checkpoints)
    if start is not None:
        known = start.info.layers[0], start.info.measurements.get("probe", {})
    models = assemble(config, tts, texts, known, processes, head_to_read(checkpoints, training))
    if checkpoints.latest() is None and start is not None:
        _take_over(models.projector, start)
    elif checkpoints.latest() is None:  # the other processes get the weights with the first checkpoint
        processes.first("the closed-form fit", lambda: _fit_once(config, models, texts))
    models.projector.set_voice(voice, source)
    trainer = Trainer(config, models, training, held_out)
    if not trainer.needs_llm:
        models.llm.release()
    return trainer


def _fit_once(config: Config, models: Models, texts: Sequence[str]) -> None:
    """Fits the projector, and keeps it in fit/ of the run's folder: a run that is stopped then need not fit again."""
    projector, folder = models.projector, config.run_dir / "fit"
    made_of = fit_conditions(config.fit, models.llm, models.tts, texts) | {
        "layers": models.llm.layers,
        "projector": config.projector.model_dump(mode="json", exclude={"path"}),
    }
    if (folder / "made_of.json").is_file() and read_json(folder / "made_of.json") == made_of:
        fitted = load_projector(folder)
        projector.load_state_dict(fitted.state_dict())
        projector.info.measurements["fit"] = fitted.info.measurements["fit"]
        log.info("fit: as it was done before (%s)", folder)
    elif fit_projector(config.fit, models.llm, models.tts, projector, texts) is not None:
        (folder / "made_of.json").unlink(missing_ok=True)
        projector.save_pretrained(folder)
        write_json(folder / "made_of.json", made_of)


def _start(config: Config, checkpoints: Checkpoints) -> Projector | None:
    """The projector that `train.start` names; None when the run has begun and goes on from its checkpoint."""
    if checkpoints.latest() is not None:
        return None
    assert config.train.start is not None
    projector = load_projector(given_projector(config.train.start))
    log.info("train: starts from the projector %s", config.train.start)
    return projector


def _take_over(projector: Projector, start: Projector) -> None:
    """Copies the weights of `start`; AudioProjectionError when it is for other layers, models or sizes."""
    models = ("llm_size", "tts_size", "llm_tokenizer_hash", "tts_tokenizer_hash")
    names = ("kind", "layers", "mix", "activation", "rank", "hidden", *models)
    for name in names:
        one, other = getattr(start.info, name), getattr(projector.info, name)
        if one != other and one != "":
            raise AudioProjectionError(
                f"train.start is a projector with another {name} ({str(one)[:20]}, this run's is {str(other)[:20]}); "
                "give one of the same kind, layers and models"
            )
    projector.load_state_dict(start.state_dict())
    projector.info.measurements["start"] = {"steps": start.info.steps, **start.info.measurements}


def train_projector(config: Config, models: Models, training: Sequence[Pair], held_out: Sequence[Pair]) -> Outcome:
    """Trains `models.projector` in place, resuming from the newest checkpoint in `config.run_dir`, and saves it there.

    With `tts.finetune` the talker of `models.tts` trains too. Writes metrics.jsonl, loss.png, samples/, checkpoints/
    and projector/. SIGTERM and Ctrl-C end the run with a checkpoint. Raises AudioProjectionError when the checkpoint is
    damaged or was made with other settings, models or data.
    """
    return _run(Trainer(config, models, training, held_out))


def _run(trainer: Trainer) -> Outcome:
    try:
        trainer.resume()
    except KeyboardInterrupt:
        raise Interrupted("interrupted before a step was done: the same command goes on from there") from None
    with stop_requested("this step", signal.SIGTERM) as stop:
        outcome = trainer.train(stop)
    return replace(outcome, interrupted=stop.by_keyboard and not outcome.finished)


def head_to_read(checkpoints: Checkpoints, pairs: Sequence[Pair]) -> list[int] | None:
    """LLM token ids before every text: of the run that is resumed, else of the cached states; None: today's.

    A chat template may write the date; states must not change overnight.
    """
    cached = [pair.states.conditions.get("head") for pair in pairs if pair.states is not None]
    return head_before(checkpoints) or (cached[0] if cached and len(cached) == len(pairs) else None)


def _checkpoints(config: Config, resume: bool, processes: Processes) -> Checkpoints:
    folder = config.run_dir / "checkpoints"
    if not resume and processes.index == 0:
        shutil.rmtree(folder, ignore_errors=True)
    processes.wait("the list of the checkpoints")
    return Checkpoints(folder, config.train.keep_checkpoints)
