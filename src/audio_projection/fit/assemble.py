"""The models of a fit or a training run: the LLM at the configured layers, and an untrained projector for it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from audio_projection.files.atomic import write_json
from audio_projection.files.fingerprint import fingerprint
from audio_projection.files.json_reader import read_json
from audio_projection.fit.layer_probe import probe
from audio_projection.llm.hidden_states import layers_to_probe
from audio_projection.models import Models, load_reading_llm
from audio_projection.processes import ALONE, Processes
from audio_projection.projector import Projector, ProjectorInfo, build_projector
from audio_projection.sampling import seeded

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from audio_projection.config import Config, FitConfig
    from audio_projection.llm.language_model import LanguageModel
    from audio_projection.tts.model import Qwen3TTS


def assemble(
    config: Config,
    tts: Qwen3TTS,
    texts: Sequence[str],
    probed: tuple[int, dict[str, Any]] | None = None,
    processes: Processes = ALONE,
    head: Sequence[int] | None = None,
) -> Models:
    """Loads the LLM at the layers that the configuration names, and makes an untrained projector for them.

    With `llm.layers=probe` the layer and its report are `probed`, or come from a probe on `texts` that the first of
    the processes makes. `head`: LLM token ids before every text; None: those of the chat template today.
    """
    log.info("loading the language model %s", config.llm.name)
    llm, report = load_reading_llm(config), None
    if head is not None:
        llm = llm.with_head(head)
    if config.llm.layers == "probe":
        run_probe = partial(_probed_once, config, llm, tts, texts)
        layer, report = probed or processes.first("the probe of the LLM's layers", run_probe)
        llm = llm.select(layer).keep_reading_only()
    models = Models(llm, new_projector(config, llm, tts), tts)
    if report is not None:
        models.projector.info.measurements["probe"] = report
    return models


def new_projector(config: Config, llm: LanguageModel, tts: Qwen3TTS) -> Projector:
    """An untrained projector for the layers that `llm` returns, initialised from `config.seed`, on the TTS's device."""
    info = ProjectorInfo(
        kind=config.projector.kind,
        llm_size=llm.hidden_size,
        tts_size=tts.config.hidden_size,
        layers=list(llm.layers),
        mix=config.projector.mix,
        activation=config.projector.activation,
        rank=config.projector.rank,
        hidden=config.projector.hidden,
        context=llm.context,
        prompt=llm.prompt,
        head=llm.head if llm.context == "chat" else None,
        llm=config.llm.name,
        tts=config.tts.name,
        llm_tokenizer_hash=llm.tokenizer_hash,
        llm_token_ids_hash=llm.token_ids_hash,
        tts_tokenizer_hash=tts.tokenizer_hash,
        tts_weights=tts.embeddings_hash,
        layout=config.tts.layout,
        language=config.tts.language,
    )
    with seeded(config.seed):
        return build_projector(info).to(tts.device)


def _probed_once(config: Config, llm: LanguageModel, tts: Qwen3TTS, texts: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """The probe's result in probe.json of the run's folder, if it was made of the same; else a new one, kept there."""
    path = config.run_dir / "probe.json"
    made_of = fit_conditions(config.fit, llm, tts, texts)
    record = read_json(path) if path.is_file() else None
    found = record.get("report") if isinstance(record, dict) and record.get("made_of") == made_of else None
    if isinstance(found, dict) and isinstance(found.get("chosen"), int):
        log.info("probe: layer %d, as found before (%s)", found["chosen"], path)
        return found["chosen"], found
    layer, report = _probe_layer(config.fit, llm, tts, texts)
    write_json(path, {"made_of": made_of, "report": report})
    return layer, report


def fit_conditions(settings: FitConfig, llm: LanguageModel, tts: Qwen3TTS, texts: Sequence[str]) -> dict[str, Any]:
    """What the results of probe and fit depend on."""
    return {
        "llm": llm.fingerprint,
        "tts": fingerprint(tts.talker),
        "context": [llm.context, llm.prompt, llm.head],
        "texts": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        "fit": settings.model_dump(mode="json"),
    }


def _probe_layer(
    settings: FitConfig, llm: LanguageModel, tts: Qwen3TTS, texts: Sequence[str]
) -> tuple[int, dict[str, Any]]:
    """The layer that the identity probe chooses, and its report."""
    layers = layers_to_probe(settings.probe_layers, llm.num_layers)
    report = probe(settings, llm.select(layers), tts, layers, texts)
    return report.chosen, report.to_json()
