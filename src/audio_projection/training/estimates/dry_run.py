"""`train --dry-run`: parameters, shapes, memory, data and time of a run, from configuration numbers alone.

No weights are read or needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from audio_projection.config import NANO
from audio_projection.data.pairs import PairFolder
from audio_projection.data_loader import corpus_recordings, held_out_count, read_texts
from audio_projection.errors import AudioProjectionError
from audio_projection.files.json_reader import read_json
from audio_projection.files.locations import NANO_FOLDER, find_llm_file
from audio_projection.fit.layer_probe import TOKENS
from audio_projection.llm.hidden_states import layers_to_probe, resolve_layers
from audio_projection.projector import Projector, ProjectorInfo, build_projector
from audio_projection.training.estimates.flops import (
    PEAKS,
    PREFIX,
    REACHED,
    LLMSizes,
    SpeechAmount,
    StackSizes,
    TTSSizes,
    fit_flops,
    hours,
    refines,
    training_flops,
)
from audio_projection.training.estimates.memory import GPUS, RESERVE, Batch, Peaks, fits, memory_peaks
from audio_projection.tts.config import Qwen3TTSConfig, TransformerConfig

if TYPE_CHECKING:
    from audio_projection.config import Config, DataConfig, LLMConfig, TTSConfig

FRAME_RATE = 12.5
_TOKENS_A_SECOND = 3.5  # text tokens of read English

# Sizes of the models of configs/default.yaml, for a machine that has not downloaded them yet.
KNOWN_LLMS = {"meta-llama/Llama-3.1-8B-Instruct": LLMSizes(4096, 32, 8_030_261_248, 128_256)}
KNOWN_TTS = {
    f"Qwen/Qwen3-TTS-12Hz-{name}": TTSSizes(
        *(StackSizes(*sizes, 2048, 1024), StackSizes(1024, 5, 3072, 2048, 1024), 151_936, 3072, 2048, 16),
        *(parameters, 170_000_000, talker_stack, 78_655_744, lora),
    )
    for names, sizes, parameters, talker_stack, lora in (
        (
            ("1.7B-Base", "1.7B-CustomVoice", "1.7B-VoiceDesign"),
            (2048, 28, 6144),
            1_917_000_000,
            1_409_410_048,
            917_504,
        ),
        (("0.6B-Base", "0.6B-CustomVoice"), (1024, 28, 3072), 906_000_000, 440_467_456, 544_768),
    )
    for name in names
}
# Utterances and hours of the published subsets.
LIBRISPEECH = {
    "train-clean-100": (28_539, 100.6),
    "train-clean-360": (104_014, 363.6),
    "train-other-500": (148_688, 496.7),
    "dev-clean": (2_703, 5.4),
    "test-clean": (2_620, 5.4),
}


@dataclass(frozen=True)
class RunEstimate:
    """Sizes, data and steps of a run, as `describe` prints them."""

    llm: LLMSizes
    tts: TTSSizes
    projector: Projector  # on the meta device
    layers: str  # of the LLM, for people
    utterances: int | None  # None: not known before the corpus is downloaded
    hours: float | None
    steps: int | None

    @property
    def parameters(self) -> int:
        """Number of the projector's parameters."""
        return self.projector.parameter_count


def estimate_run(config: Config) -> RunEstimate:
    """Estimates a run. Raises AudioProjectionError when the sizes of a model are unknown without its config.json."""
    llm, tts = _llm_sizes(config.llm, config.models_dir), _tts_sizes(config.tts, config.models_dir)
    if config.llm.layers == "probe":
        candidates = layers_to_probe(config.fit.probe_layers, llm.layers)
        layers, named = candidates[-1:], f"one of {', '.join(map(str, candidates))} by the probe,"
    else:
        layers = resolve_layers(config.llm.layers, llm.layers)
        named = ", ".join(map(str, layers))
    info = ProjectorInfo(
        kind=config.projector.kind,
        llm_size=llm.hidden,
        tts_size=tts.hidden,
        layers=layers,
        mix=config.projector.mix,
        activation=config.projector.activation,
        rank=config.projector.rank,
        hidden=config.projector.hidden,
    )
    with torch.device("meta"):
        projector = build_projector(info)
    utterances, hours = _data(config.data, config.tts.normalise)
    known = utterances if utterances is not None or config.train.steps is None else 0
    trained = None if known is None else max(1, known - held_out_count(known, config.data.held_out))
    return RunEstimate(
        llm=llm,
        tts=tts,
        projector=projector,
        layers=named,
        utterances=utterances,
        hours=hours,
        steps=None if trained is None else config.train.total_steps(trained),
    )


def describe(config: Config) -> str:
    """The estimate as text, line by line: parameters, shapes, memory, data, FLOPs and time."""
    return "\n".join(_lines(config, estimate_run(config)))


def _lines(config: Config, estimate: RunEstimate) -> Iterator[str]:
    llm, tts, train, projector = estimate.llm, estimate.tts, config.train, estimate.projector
    batch, groups = train.batch, tts.code_groups
    frames, tokens = round(config.data.max_seconds * FRAME_RATE), round(config.data.max_seconds * _TOKENS_A_SECOND)
    millions = f"{estimate.parameters / 1e6:.2f}M"
    yield f"trained parameters: {estimate.parameters:,} ({millions}), projector {config.projector.kind}"
    for name, tensor in projector.state_dict().items():
        yield f"  {name} {tuple(tensor.shape)}"
    yield f"frozen: LLM {config.llm.name} {llm.parameters / 1e6:,.1f}M, layer {estimate.layers} of {llm.layers}"
    yield f"        TTS {config.tts.name} {tts.parameters / 1e6:,.1f}M, codec {tts.codec_parameters / 1e6:,.1f}M"
    if config.tts.finetune != "none":
        yield f"trained in the talker too, tts.finetune={config.tts.finetune}: {tts.finetuned(config.tts):,}"
    yield f"shapes of the longest batch ({batch} x {config.data.max_seconds:g} s, about {tokens} tokens a text):"
    states, projected = (batch, tokens, len(projector.info.layers), llm.hidden), (batch, tokens, tts.hidden)
    joined = f", side by side {(batch, tokens, projector.input_size)}" if projector.info.mix == "concat" else ""
    yield f"  LLM states {states}{joined} -> projected embeddings {projected}"
    yield f"  codes ({batch}, {frames}, {groups}) -> talker input ({batch}, {frames + tokens + PREFIX}, {tts.hidden})"
    yield from _memory(peaks_of(config, estimate, Batch(batch, tokens, frames, frames + tokens + PREFIX)), config.llm)
    yield f"data: {_source(config.data, config.tts.name)}"
    if estimate.utterances is None:
        yield "  utterances: not known before the data are there"
    else:
        length = estimate.hours
        spoken = "" if length is None else f", {length:.1f} h, {length * 3600 * FRAME_RATE:,.0f} frames"
        held_out = held_out_count(estimate.utterances, config.data.held_out)
        yield f"  utterances: {estimate.utterances:,}{spoken}; held out: {held_out}"
    if config.llm.layers == "probe":
        yield f"  probe: the layers in one pass over up to {min(TOKENS, config.fit.tokens):,} text tokens"
    yield f"  fit: up to {config.fit.tokens:,} text tokens, {config.fit.held_out} texts held out, no audio"
    if refines(config):
        learned = min(config.fit.refine_tokens, config.fit.tokens)
        held = 2 * learned * len(projector.info.layers) * llm.hidden
        yield (
            f"  refinement of the fit: {config.fit.refine_steps:,} steps of softmax over text embeddings, on "
            f"{learned:,} of its tokens ({held / 1e9:.2f} GB of main memory)"
        )
    steps = f"{train.epochs:g} epochs" if estimate.steps is None else f"{estimate.steps:,} steps"
    stop = f", at most {train.max_minutes:g} minutes" if train.max_minutes is not None else ""
    losses = ", ".join(f"{weight:g} {name}" for name, weight in train.loss.model_dump().items() if weight)
    yield f"  losses: {losses}"
    yield f"  training: {steps} of {batch} x {train.grad_accumulation} utterances{stop}; written to {config.run_dir}"
    yield from _compute(config, estimate)


def _compute(config: Config, estimate: RunEstimate) -> Iterator[str]:
    """FLOPs of the fit and of the training, and their time."""
    layer = max(estimate.projector.info.layers)
    total = fit_flops(config, estimate.llm, estimate.tts, layer, estimate.projector)
    if estimate.steps is None:
        yield "FLOPs and time: not known before the data are there"
        return
    count = estimate.steps * config.train.batch * config.train.grad_accumulation
    known = estimate.hours is not None and estimate.utterances
    mean = estimate.hours * 3600 / estimate.utterances if known else config.data.max_seconds / 2  # type: ignore[operator]
    seen = SpeechAmount(count, count * mean * _TOKENS_A_SECOND, count * mean * FRAME_RATE)
    parts = training_flops(config, estimate.llm, estimate.tts, layer, estimate.parameters, seen)
    total += sum(parts.values())
    guessed = "" if known else f", assumed to be half of {config.data.max_seconds:g} s each"
    yield f"  processed: {count:,} utterances, {seen.tokens:,.0f} tokens, {seen.frames:,.0f} frames{guessed}"
    listed = ", ".join(f"{name} {value:.2g}" for name, value in parts.items() if value)
    yield f"FLOPs, about: {total:.2g} (fit {total - sum(parts.values()):.2g}, training: {listed})"
    times = ", ".join(f"{name} {_time(hours(total, peak))}" for name, peak in PEAKS.items())
    yield f"time on one GPU at {REACHED:.0%} of its peak, about: {times}; loading and encoding recordings come on top"


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{max(hours * 60, 0.1):.1f} min"


def _memory(peaks: Peaks, llm: LLMConfig) -> Iterator[str]:
    for name, parts in (("fit", peaks.fitting), ("training", peaks.training)):
        listed = ", ".join(f"{part} {size / 1e9:.2f}" for part, size in parts.items())
        yield f"GPU memory at the peak of the {name}, about: {sum(parts.values()) / 1e9:.2f} GB ({listed})"
    if llm.by_llama_cpp:
        yield "  the LLM's weights are in main memory: llama.cpp computes its states on the CPU"
    yield f"GPU memory in total, about: {peaks.total / 1e9:.2f} GB and {RESERVE / 1e9:.0f} GB for CUDA itself"
    for size, names in GPUS.items():
        verdict = "fits" if fits(peaks.total, size) else "does not fit"
        yield f"  {verdict} a GPU of {size} GB ({names}: {size * 2**30 / 1e9:.1f} GB of 1e9 bytes)"
    if not fits(peaks.total, min(GPUS)):
        yield (
            "  less memory: train.batch (and more train.grad_accumulation), train.activation_checkpointing=true, "
            "llm.quantise=4bit, llm.backend=gguf, or states made before by `data features --states`"
        )


def peaks_of(config: Config, estimate: RunEstimate, batch: Batch) -> Peaks:
    tokens = None if estimate.hours is None else round(estimate.hours * 3600 * _TOKENS_A_SECOND)
    cached = _states_are_cached(config.data)
    return memory_peaks(config, estimate.llm, estimate.tts, estimate.projector, batch, tokens, cached)


def _states_are_cached(data: DataConfig) -> bool:
    """Whether the ready pairs have their LLM states with them."""
    try:
        return data.source == "pairs" and "states" in PairFolder(data.path or Path()).conditions
    except AudioProjectionError:
        return False


def _source(data: DataConfig, tts_name: str) -> str:
    if data.source == "self":
        return f"codes that the text-fed TTS makes of the texts {data.texts}"
    names = {"librispeech": "LibriSpeech", "libritts": "LibriTTS"}
    what = f"{names[data.source]} {data.subset}" if data.source in names else data.source
    voices = ", each recording's x-vector as its voice" if tts_name.endswith("Base") else ""
    there = "" if data.path is not None and Path(data.path).exists() else " (not there yet)"
    return f"{what} in {data.path}{there}{voices}"


def _data(data: DataConfig, normalise: str) -> tuple[int | None, float | None]:
    """Utterances and hours, from texts or transcripts, or from the table when LibriSpeech is not downloaded yet."""
    hours = None
    try:
        if data.source == "self":
            count = len(read_texts(data, normalise))
        elif data.source == "pairs":
            pairs = PairFolder(data.path or Path()).read()
            count, hours = len(pairs), sum(len(pair.codes) for pair in pairs) / FRAME_RATE / 3600
        else:
            count = len(corpus_recordings(data))
    except AudioProjectionError:
        if data.source != "librispeech" or data.subset not in LIBRISPEECH:
            return data.limit if data.source == "self" else None, None
        count, hours = LIBRISPEECH[data.subset]
    if data.limit is None or count <= data.limit:
        return count, hours
    return data.limit, None if hours is None else hours * data.limit / count


def _llm_sizes(llm: LLMConfig, models_dir: Path | None) -> LLMSizes:
    file = find_llm_file(llm, models_dir)
    if file is not None and file.is_file():
        return _file_sizes(file)
    path = _config_file(llm, NANO_FOLDER / "llm", models_dir)
    if path is None:
        return _known(KNOWN_LLMS, llm.name)
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        settings: Any = AutoConfig.from_pretrained(str(path.parent), local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings)
    except (OSError, ValueError, KeyError) as error:
        raise AudioProjectionError(f"{path} is not the config.json of a causal language model ({error})") from None
    tied = bool(getattr(settings, "tie_word_embeddings", False))
    return LLMSizes(settings.hidden_size, settings.num_hidden_layers, _count(model), settings.vocab_size, tied)


def _file_sizes(path: Path) -> LLMSizes:
    from audio_projection.gguf import llm_file

    file = llm_file.check_llm(path)
    sizes, rows = llm_file.StackSizes.of(file), len(file.texts("tokenizer.ggml.tokens"))
    parameters = sum(math.prod(tensor.shape) for tensor in file.tensors.values())
    return LLMSizes(sizes.width, sizes.layers, parameters, rows, tied="output.weight" not in file.tensors)


def _tts_sizes(settings: TTSConfig, models_dir: Path | None) -> TTSSizes:
    path = _config_file(settings, NANO_FOLDER / "tts", models_dir)
    if path is None:
        return _known(KNOWN_TTS, settings.name)
    from audio_projection.tts.codec.codec import Codec
    from audio_projection.tts.codec.config import CodecConfig
    from audio_projection.tts.model import Qwen3TTS

    sizes = Qwen3TTSConfig.from_folder(path.parent)
    codec_path = path.parent / "speech_tokenizer" / "config.json"
    with torch.device("meta"):
        tts = Qwen3TTS(sizes)
        parameters = _count(tts)
        codec = Codec(CodecConfig.from_dict(read_json(codec_path))) if codec_path.is_file() else None
        codec_parameters = 0 if codec is None else _count(codec.decoder) + _count(codec.encoder)
    stack = tts.talker.transformer
    return TTSSizes(
        talker=_stack_sizes(sizes.talker.transformer),
        predictor=_stack_sizes(sizes.predictor.transformer),
        vocabulary=sizes.talker.text_vocab_size,
        codes=sizes.talker.vocab_size,
        predictor_codes=sizes.predictor.vocab_size,
        code_groups=sizes.code_groups,
        parameters=parameters,
        codec_parameters=codec_parameters,
        talker_stack=_count(stack),
        predictor_stack=_count(tts.code_predictor.transformer),
        lora=sum(each.in_features + each.out_features for each in stack.modules() if isinstance(each, torch.nn.Linear)),
    )


def _stack_sizes(stack: TransformerConfig) -> StackSizes:
    query, key = stack.num_heads * stack.head_dim, stack.num_kv_heads * stack.head_dim
    return StackSizes(stack.hidden_size, stack.num_layers, stack.intermediate_size, query, key)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _known(table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise AudioProjectionError(
            f"the sizes of {name} are not known without its config.json; get it with `audio-projection download`"
        )
    return table[name]


def _config_file(model: LLMConfig | TTSConfig, shipped: Path, models_dir: Path | None) -> Path | None:
    """config.json of a model wherever it is on this machine, even without its weights; never downloaded."""
    if model.name == NANO:
        return shipped / "config.json" if (shipped / "config.json").is_file() else None
    folders = [Path(model.name).expanduser()]
    if models_dir is not None:
        folders.append(models_dir / model.name)
    for folder in folders:
        if (folder / "config.json").is_file():
            return folder / "config.json"
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model.name, "config.json", revision=model.revision)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None
