"""Loads the models of a voice, and checks that they belong together."""

from __future__ import annotations

import logging

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import find_projector
from audio_projection.llm.hidden_states import resolve_layers
from audio_projection.llm.language_model import LanguageModel
from audio_projection.models import Models, load_llm, load_projector, load_tts, use_threads
from audio_projection.projector import Projector, ProjectorInfo, check_matches
from audio_projection.tts.finetune import load_finetuned
from audio_projection.tts.model import Qwen3TTS

log = logging.getLogger(__name__)


def load_models(settings: Config, projector: str | None) -> Models:
    """The LLM, the projector and the TTS that a configuration names, set to speak together.

    The LLM's layers, context and prompt are those that the projector was trained with; a talker that was fine-tuned
    with it is loaded too. Raises AudioProjectionError naming what is missing, damaged or doesn't match.
    """
    use_threads(settings.threads)
    folder = find_projector(settings, projector)
    trained = load_projector(folder)
    as_trained = {key: getattr(trained.info, key) for key in ("layers", "context", "prompt")}
    llm = load_llm(settings.model_copy(update={"llm": settings.llm.model_copy(update=as_trained)}))
    if trained.info.head is not None:
        llm = llm.with_head(trained.info.head)
    tts = load_tts(settings)
    if settings.tts.backend == "gguf":
        _check_exported_together(trained.info, tts)
    else:
        load_finetuned(tts, trained.info.finetune, folder)
    return Models(llm, trained.to(tts.device), tts)


def _check_exported_together(info: ProjectorInfo, tts: Qwen3TTS) -> None:
    """Raises AudioProjectionError where projector or GGUF talker were fine-tuned, and not with each other."""
    if info.talker == tts.finetuned and bool(info.talker) == (info.finetune != "none"):
        return
    if info.finetune == "none":
        problem = "talker.gguf holds a talker that was trained with another projector: speak with the projector.gguf"
    else:
        problem = "the projector was trained with a talker that talker.gguf does not hold: speak with the files"
    raise AudioProjectionError(f"{problem} that `audio-projection export gguf --all` wrote together")


def check_models(llm: LanguageModel, tts: Qwen3TTS, projector: Projector) -> None:
    """Raises AudioProjectionError for a projector that was trained with other models, layers or another context."""
    check_matches(projector.info, llm, tts)
    _check_llm_settings(projector.info, llm)
    if projector.info.tts_weights not in ("", tts.embeddings_hash):
        log.warning(
            "the projector was trained with the TTS %s; %s has other weights: speech may be wrong",
            *(projector.info.tts, tts.name),
        )


def _check_llm_settings(info: ProjectorInfo, llm: LanguageModel) -> None:
    given = {"layers": llm.layers, "context": llm.context, "prompt": llm.prompt if llm.context == "chat" else ""}
    trained = {
        "layers": resolve_layers(info.layers, llm.num_layers),
        "context": info.context,
        "prompt": info.prompt if info.context == "chat" else "",
    }
    for what, value in trained.items():
        if given[what] != value:
            raise AudioProjectionError(
                f"the projector was trained with llm.{what} {value!r}, the language model is set to {given[what]!r}"
            )
