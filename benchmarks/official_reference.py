"""Outputs of the official package for a checkpoint folder, in the form that parity.py compares with.

    OFFICIAL_PYTHON benchmarks/official_reference.py MODEL_DIR REF.safetensors [--text TEXT]... [--small]

OFFICIAL_PYTHON is an interpreter of an environment made for the official package alone, because it needs another
transformers release than this project (run it with OMP_NUM_THREADS=1):

    pip install torch==2.13.0 transformers==4.57.3 accelerate==1.12.0 librosa soundfile einops
    pip install --no-deps qwen-tts==0.1.1

Decoding is greedy, in both layouts: the first text alone and all texts as one batch with the usual repetition penalty,
then each text alone without it ("norep"). A custom-voice folder speaks with its named speakers, a voice-design folder
with a described voice (--instruct), a base folder with a cloned one (--ref-audio, --ref-text). REF's metadata hold the
SHA-256 of each weight file. --small keeps only a part of long tensors, for a file that is to be committed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

TEXTS = ("Hello world.", "The old dog slept beside the warm stove.")
INSTRUCTION = "A calm, friendly voice."
RATE = 24000  # of the reference recording, Hz: the speaker encoder wants it
LAYOUTS = {"stream": False, "nonstream": True}
PENALTY = 1.05
ENCODED_SECONDS = 1.0
PARTS = {  # what --small keeps along the last axis: (start, size)
    "embeds": (0, 16), "trailing": (0, 16), "pad": (0, 16), "logits": (0, 16), "scores": (0, 16), "cp_logits": (0, 4),
    "wav": (2560, 640),
}  # fmt: skip

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """Texts decoded as one batch. parity.py reads the settings from the name."""

    name: str
    texts: tuple[str, ...]
    whole: bool
    """All text before the first frame (the non-streaming layout)."""
    penalty: float = PENALTY
    x_vector_only: bool = False


def cases(texts: tuple[str, ...], clones: bool) -> Iterator[Case]:
    """All cases for these texts; with `clones` also those of a voice cloned by x-vector only."""
    for name, whole in LAYOUTS.items():
        yield Case(name, texts[:1], whole)
        if len(texts) > 1:
            yield Case(f"{name}_b{len(texts)}", texts, whole)
        for number, text in enumerate(texts, 1):
            yield Case(f"{name}_norep{number}", (text,), whole, penalty=1.0)
        if clones:
            yield Case(f"xvec_{name}", texts[:1], whole, x_vector_only=True)


def load(folder: str | Path, dtype: torch.dtype = torch.float32) -> Any:
    """Loads a folder with the official package."""
    # The 12 Hz models do not use the 25 Hz tokenizer, whose module imports torchaudio, sox and onnxruntime.
    name = "qwen_tts.core.tokenizer_25hz.modeling_qwen3_tts_tokenizer_v1"
    unused = types.ModuleType(name)
    unused.Qwen3TTSTokenizerV1Model = type("Qwen3TTSTokenizerV1Model", (), {})  # type: ignore[attr-defined]
    sys.modules[name] = unused
    from qwen_tts import Qwen3TTSModel
    from transformers import logging

    logging.set_verbosity_error()
    return Qwen3TTSModel.from_pretrained(str(folder), dtype=dtype)


def digests(folder: str | Path) -> dict[str, str]:
    """SHA-256 of every weight file of a checkpoint folder, by its path in the folder."""
    files = sorted(Path(folder).rglob("*.safetensors"))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass
class Recorder:
    """Captures inputs and outputs of `generate` of the talker, the code predictor and the model around them."""

    model: Any
    outputs: Tensors = field(default_factory=dict)
    codes: list[Tensor] = field(default_factory=list)
    rest: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._capture(self.model.talker, self._talker, output_logits=True, output_scores=True)
        self._capture(self.model.talker.code_predictor, self._predictor, output_logits=True)
        self._capture(self.model, self._whole)

    @staticmethod
    def _capture(owner: Any, store: Callable[[dict, Any], None], **options: bool) -> None:
        original = owner.generate

        def generate(**given: Any) -> Any:
            result = original(**given, **options)
            store(given, result)
            return result

        owner.generate = generate

    def _talker(self, given: dict, result: Any) -> None:
        self.outputs = {
            "embeds": given["inputs_embeds"],
            "mask": given["attention_mask"],
            "trailing": given["trailing_text_hidden"],
            "pad": given["tts_pad_embed"],
            "logits": torch.stack(result.logits, 1),
            "scores": torch.stack(result.scores, 1),
            "tokens": result.sequences,
            "cp_logits": torch.stack(self.rest, 1),
        }
        self.rest = []

    def _predictor(self, given: dict, result: Any) -> None:
        self.rest.append(torch.stack(result.logits, 1))

    def _whole(self, given: dict, result: Any) -> None:
        self.codes = result[0]


@dataclass(frozen=True)
class Voice:
    """The voice of a voice-design folder (`instruction`) or of a base folder (a recording and its transcript)."""

    instruction: str
    recording: Any  # (samples, rate) or None
    transcript: str


def speak(wrapper: Any, case: Case, voice: Voice, frames: int) -> list[Any]:
    """The waveforms of a case."""
    config, count = wrapper.model.config.talker_config, len(case.texts)
    known = list(config.codec_language_id)
    language = "english" if "english" in known else (known or ["auto"])[0]
    options = {
        "text": list(case.texts),
        "language": [language] * count,
        "non_streaming_mode": case.whole,
        "repetition_penalty": case.penalty,
        "max_new_tokens": frames + 1,
        "do_sample": False,
        "subtalker_dosample": False,
    }
    kind = wrapper.model.tts_model_type
    if kind == "custom_voice":
        names = list(config.spk_id)
        options["language"] = [language] + ["auto"] * (count - 1)
        spoken, _ = wrapper.generate_custom_voice(speaker=[names[i % len(names)] for i in range(count)], **options)
    elif kind == "voice_design":
        spoken, _ = wrapper.generate_voice_design(instruct=[voice.instruction] * count, **options)
    else:
        spoken, _ = wrapper.generate_voice_clone(
            ref_audio=voice.recording, ref_text=voice.transcript, x_vector_only_mode=case.x_vector_only, **options
        )
    return spoken


def reference(wrapper: Any, texts: tuple[str, ...], voice: Voice, frames: int) -> Tensors:
    """All outputs under the names that parity.py expects; prints a line for each case."""
    recorder, outputs = Recorder(wrapper.model), {}
    kind = wrapper.model.tts_model_type
    for case in cases(texts, kind == "base"):
        waves = speak(wrapper, case, voice, frames)
        captured = dict(recorder.outputs)
        for index, (text, codes, wave) in enumerate(zip(case.texts, recorder.codes, waves, strict=True)):
            captured[f"ids.{index}"] = ids(wrapper, wrapper._build_assistant_text(text))
            captured[f"codes.{index}"] = codes
            captured[f"wav.{index}"] = torch.from_numpy(wave)
        outputs |= {f"{case.name}.{key}": value for key, value in captured.items()}
        lengths = ", ".join(f"{len(codes)} frames" for codes in recorder.codes)
        print(f"{case.name}: {lengths}; closest choice {closest(captured):.1e}", flush=True)
    if kind == "voice_design":
        outputs["instruct"] = ids(wrapper, wrapper._build_instruct_text(voice.instruction))
    if kind == "base":
        samples, rate = voice.recording
        embedding = wrapper.model.extract_speaker_embedding(audio=samples, sr=rate)
        outputs |= {"ref.wav": torch.from_numpy(samples), "ref.x_vector": embedding}
    return outputs | encoded(wrapper, next(value for name, value in outputs.items() if name.endswith("wav.0")))


def ids(wrapper: Any, text: str) -> Tensor:
    """Token ids (N,) of a text in its template."""
    return wrapper._tokenize_texts([text])[0][0]


def closest(captured: Tensors) -> float:
    """The smallest gap between the best two scores of any choice: unless it is far above rounding, codes may differ."""
    gaps = []
    for index in range(len(captured["tokens"])):
        frames = len(captured[f"codes.{index}"])
        for scores in (captured["scores"][index, : frames + 1], captured["cp_logits"][index, :frames].flatten(0, 1)):
            best = scores.topk(2).values
            gaps.append((best[:, 0] - best[:, 1]).min().item())
    return min(gaps)


def encoded(wrapper: Any, wave: Tensor) -> Tensors:
    """Codec input and codes of the first second of `wave`; the samples are rounded to half precision first."""
    codec = wrapper.model.speech_tokenizer
    rate = int(codec.feature_extractor.sampling_rate)
    samples = wave[: int(ENCODED_SECONDS * rate)].half()
    codes = codec.encode([samples.float().numpy()], sr=rate).audio_codes
    return {"enc.in": samples[None], "enc.codes.0": codes[0]}


def cut(outputs: Tensors) -> Tensors:
    """Keeps only a part of the last axis of long tensors, under a key that ends in @ and where the part starts."""
    kept = {}
    for name, value in outputs.items():
        part = PARTS.get(name.split(".")[1]) if "." in name and not name.startswith(("enc.", "ref.")) else None
        if part is None:
            kept[name] = value
        else:
            kept[f"{name}@{part[0]}"] = value[..., part[0] : sum(part)]
    return kept


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path, help="checkpoint folder in the official layout")
    parser.add_argument("reference", type=Path, help="file to write")
    parser.add_argument("--text", action="append", help="text to speak; repeat for more")
    parser.add_argument("--frames", type=int, default=60, help="maximum frames of an utterance")
    parser.add_argument("--small", action="store_true", help="keep only a part of long tensors")
    parser.add_argument("--instruct", default=INSTRUCTION, help="the voice that a voice-design model gets")
    parser.add_argument("--ref-audio", type=Path, help="recording that a base model clones")
    parser.add_argument("--ref-text", help="its transcript; give it to parity.py too")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    wrapper = load(given.model)
    recording = None
    if wrapper.model.tts_model_type == "base":
        if given.ref_audio is None or given.ref_text is None:
            parser.error("a base model clones a voice: give --ref-audio and --ref-text")
        import librosa

        recording = (librosa.load(given.ref_audio, sr=RATE, mono=True)[0], RATE)
    voice = Voice(given.instruct, recording, given.ref_text)
    outputs = reference(wrapper, tuple(given.text or TEXTS), voice, given.frames)
    if given.small:
        outputs = cut(outputs)
    given.reference.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: value.detach().contiguous().clone() for name, value in outputs.items()}
    save_file(contiguous, given.reference, digests(given.model) | {"texts": "\n".join(given.text or TEXTS)})
    print(f"{given.reference}: {len(outputs)} tensors, {given.reference.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
