"""Compare this implementation with outputs of the official package on the same checkpoint folder.

    python benchmarks/parity.py MODEL_DIR REF.safetensors [--train TRAIN.safetensors] [--dump OUT.safetensors]

REF, which official_reference.py writes, holds for each case (stream, nonstream, stream_b2 ...; which ones exist is
read from its keys) what the official package computed greedily: prefill, raw logits, scores, tokens, codes,
waveforms; for base checkpoints also the reference recording and its x-vector; and codec input and output. TRAIN holds
teacher-forced losses and their gradient with respect to the text embeddings (`feats`). Every tensor of the files is
recomputed from the folder alone and compared; the table shows the largest difference and, for whole numbers, how many
are equal. A key may end in `@N`: then it holds only the entries from N on, along the last axis. The exit code is 1 when
anything differs by more than the tolerance or is missing.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from audio_projection.errors import AudioProjectionError
from audio_projection.tts import Decoder, Qwen3TTS, Sampling, clone_prefill
from audio_projection.tts.generate import clone_samples
from audio_projection.tts.prompt import NONSTREAMING, STREAMING, Prompt, Reference, special_embeddings, text_prompt

# Settings of the script that makes the references which its files do not record.
RATE = 24000  # of enc.in and ref.wav, Hz, unless the number of encoded frames says that it is the codec's own
SECOND_INPUT = 40000  # samples of the second recording in enc.in that are encoded
REFERENCE_TEXT = "the dog"
LANGUAGE = "english"  # the second speaker of a custom_voice batch speaks "auto"

TEMPLATE = "<|im_start|>assistant\n{}<|im_end|>\n<|im_start|>assistant\n"
INSTRUCTION = "<|im_start|>user\n{}<|im_end|>\n"
INPUTS = ("enc.in", "dec.codes", "ref.wav", "pre", "feats", "codes")  # given to both sides, so not compared
TOLERANCES = {"l0": 1e-5, "l1": 1e-5, "grad": 1e-6}
TOLERANCE = 1e-4

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Comparison:
    """The comparison of one tensor. `equal` is the share of equal entries, `error` the largest difference."""

    name: str
    passed: bool
    error: float = float("nan")
    equal: float = float("nan")
    note: str = ""


def run(tts: Qwen3TTS, reference: Mapping[str, Tensor], reference_text: str = REFERENCE_TEXT) -> Tensors:
    """This implementation's outputs under the reference's names, from its inputs (ids, recordings, codes) alone."""
    outputs: Tensors = {}
    voice = _reference(tts, reference, reference_text, outputs)
    for case in cases(reference):
        outputs |= {f"{case}.{key}": value for key, value in run_case(tts, case, reference, voice).items()}
    if "instruct" in reference:
        outputs["instruct"] = torch.tensor(tts.instruct_ids(_instruction(tts, reference) or ""))
    if "enc.in" in reference:
        rate = _rate(tts, reference)
        waves = [reference["enc.in"][0], *(wave[:SECOND_INPUT] for wave in reference["enc.in"][1:])]
        outputs["enc.in"] = reference["enc.in"]
        outputs |= {f"enc.codes.{i}": codes for i, codes in enumerate(tts.codec.encode_batch(waves, rate))}
    if "dec.codes" in reference:
        outputs["dec.codes"] = reference["dec.codes"]
        outputs["dec.wav"] = tts.codec.chunked_decode(reference["dec.codes"])[0]
    return outputs


def cases(reference: Iterable[str]) -> list[str]:
    """Names of the cases in a reference."""
    return sorted(key.removesuffix(".tokens") for key in reference if key.endswith(".tokens"))


@torch.no_grad()
def run_case(tts: Qwen3TTS, case: str, reference: Mapping[str, Tensor], voice: Reference | None) -> Tensors:
    """Outputs of one case; its name gives layout, repetition penalty or none, and voices cloned by x-vector only."""
    batch = sum(key.startswith(f"{case}.ids.") for key in reference)
    ids = [reference[f"{case}.ids.{index}"] for index in range(batch)]
    layout = NONSTREAMING if "nonstream" in case else STREAMING
    cloned = None if case.startswith("xvec") else voice
    prompts = []
    for index, one in enumerate(ids):
        prefix = _prefix(tts, index, voice, _instruction(tts, reference))
        embeddings = tts.text_embeddings(one[3:-5])  # without the template's tokens
        if cloned is None:
            prompts.append(text_prompt(tts, prefix, embeddings, layout))
        else:
            prompts.append(clone_prefill(tts, prefix, embeddings, cloned.text_embeddings, cloned.codes, layout))
    outputs = _prefill(tts, prompts)
    sampling = Sampling.greedy(1.0 if "norep" in case else 1.05)
    outputs |= _decode(tts, prompts, sampling, reference[f"{case}.tokens"].shape[1])
    codes = _until_end(outputs.pop("codes"), tts.config.talker.codec_eos)
    for index, one in enumerate(codes):
        outputs[f"codes.{index}"] = one
        outputs[f"ids.{index}"] = _tokenized(tts, ids[index])
        if cloned is None:
            outputs[f"wav.{index}"] = tts.codec.chunked_decode(one)
        else:
            outputs[f"wav.{index}"] = clone_samples(tts, cloned.codes, one, tts.codec.chunked_decode)
    return outputs


def run_training(tts: Qwen3TTS, reference: Mapping[str, Tensor]) -> Tensors:
    """Teacher-forced losses and their gradient, from a training reference's `pre`, `feats` and `codes`."""
    prefix, codes = reference["pre"], reference["codes"]
    embeddings = reference["feats"].clone().requires_grad_()
    embeds = torch.cat((prefix, tts.frame_embedding(codes) + embeddings), 1)
    hidden = tts.talker(embeds)[:, prefix.shape[1] - 1 : -1]
    frames = codes.flatten(0, 1)
    first = functional.cross_entropy(tts.talker.logits(hidden).flatten(0, 1), frames[:, 0])
    logits = tts.code_predictor(hidden.flatten(0, 1), frames)
    rest = functional.cross_entropy(logits.flatten(0, 1), frames[:, 1:].flatten())
    (gradient,) = torch.autograd.grad(first + rest, embeddings)
    outputs = {"l0": first, "l1": rest, "grad": gradient, "cp_logits": logits}
    return {key: reference[key] for key in ("pre", "feats", "codes")} | {k: v.detach() for k, v in outputs.items()}


def compare(outputs: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> list[Comparison]:
    """Compares each tensor of the reference that is not an input."""
    return [_compare(name, outputs, wanted) for name, wanted in sorted(reference.items()) if name not in INPUTS]


def _compare(name: str, outputs: Mapping[str, Tensor], wanted: Tensor) -> Comparison:
    key, _, start = name.partition("@")
    if key not in outputs:
        return Comparison(name, False, note="missing: not computed here")
    got = outputs[key]
    if start:
        got = got[..., int(start) : int(start) + wanted.shape[-1]]
    if got.shape != wanted.shape:
        return Comparison(name, False, note=f"shape {list(got.shape)}, reference {list(wanted.shape)}")
    if not wanted.is_floating_point():
        equal = (got == wanted).double().mean().item()
        return Comparison(name, equal == 1.0, equal=equal)
    same = got == wanted  # also where both are infinite
    error = torch.where(same, 0.0, (got - wanted).abs()).nan_to_num(torch.inf, torch.inf).max().item()
    return Comparison(name, error <= TOLERANCES.get(key, TOLERANCE), error=error)


def first_differences(outputs: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> list[str]:
    """For each utterance whose codes differ: where they begin to, and how close the reference's best two scores are.

    Two scores that differ by no more than rounding may be ordered either way; then everything after differs too.
    """
    found = []
    for name in sorted(reference):
        case, _, rest = name.partition(".codes.")
        shapes = {tuple(side[name].shape) for side in (outputs, reference) if name in side}
        if not rest or case in ("enc", "dec") or len(shapes) != 1 or name not in outputs:
            continue
        places = (outputs[name] != reference[name]).nonzero().tolist()
        if not places:
            continue
        (frame, group), gap = places[0], ""
        scores = reference.get(f"{case}.cp_logits" if group else f"{case}.scores")
        if scores is not None:
            logits = scores[int(rest), frame]
            best = (logits[group - 1] if group else logits).topk(2).values
            gap = f"; its best two scores there are {(best[0] - best[1]).item():.1e} apart"
        found.append(f"{name}: differs from the reference from frame {frame}, codebook {group} on{gap}")
    return found


def table(compared: Sequence[Comparison]) -> str:
    """One line for each case and kind of tensor: largest error, equal entries, verdict; failures one by one below."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for one in compared:
        first, _, rest = one.name.partition("@")[0].partition(".")
        groups.setdefault((first, rest.partition(".")[0]), []).append(one)
    lines = [f"{'case':<18}{'tensor':<12}{'largest error':>14}{'equal':>9}  verdict"]
    for (case, kind), members in groups.items():
        errors = [one.error for one in members if not math.isnan(one.error)]
        equal = [one.equal for one in members if not math.isnan(one.equal)]
        largest = f"{max(errors):.2e}" if errors else ""
        share = f"{100 * min(equal):.1f} %" if equal else ""
        verdict = "ok" if all(one.passed for one in members) else "DIFFERS"
        lines.append(f"{case:<18}{kind:<12}{largest:>14}{share:>9}  {verdict}")
    lines += [f"{one.name}: {one.note}" for one in compared if one.note]
    return "\n".join(lines)


def _reference(tts: Qwen3TTS, reference: Mapping[str, Tensor], text: str, outputs: Tensors) -> Reference | None:
    """The recording that a base checkpoint clones, None for the other kinds; it and its x-vector go to `outputs`."""
    if "ref.wav" not in reference:
        return None
    if tts.speaker_encoder is None:
        raise AudioProjectionError("the reference clones a voice (ref.wav), but the checkpoint is of no 'base' kind")
    wave, rate = reference["ref.wav"], _rate(tts, reference)
    outputs["ref.wav"], outputs["ref.x_vector"] = wave, tts.speaker_encoder.embed(wave, rate)
    embeddings = tts.text_embeddings(torch.tensor(tts.tokenize(text)[0]))
    return Reference(outputs["ref.x_vector"], tts.codec.encode(wave, rate), embeddings)


def _rate(tts: Qwen3TTS, reference: Mapping[str, Tensor]) -> int:
    """Sample rate of the recordings, which is not in the files: the one that gives as many frames as enc.codes.0."""
    codec = tts.codec.config
    if "enc.in" in reference and "enc.codes.0" in reference:
        for rate in (RATE, codec.input_sample_rate):
            samples = reference["enc.in"].shape[1] * codec.input_sample_rate / rate
            if math.ceil(samples / codec.encode_downsample_rate) == len(reference["enc.codes.0"]):
                return rate
    return RATE


def _prefix(tts: Qwen3TTS, index: int, voice: Reference | None, instruction: str | None) -> Tensor:
    talker = tts.config.talker
    language = LANGUAGE if LANGUAGE in talker.languages else next(iter(talker.languages), "auto")
    if voice is not None:
        return tts.prefix(voice.voice, language)
    if tts.config.kind == "custom_voice":
        speakers = list(talker.speakers)
        return tts.prefix(speakers[index % len(speakers)], "auto" if index else language)
    return tts.prefix(None, language, instruction)


def _instruction(tts: Qwen3TTS, reference: Mapping[str, Tensor]) -> str | None:
    if "instruct" not in reference:
        return None
    return _inside(INSTRUCTION, tts.tokenizer.text(reference["instruct"].tolist()))


def _tokenized(tts: Qwen3TTS, ids: Tensor) -> Tensor:
    """Token ids of the text that `ids` stand for, tokenised again: the template around the bare text's tokens."""
    text = _inside(TEMPLATE, tts.tokenizer.text(ids.tolist()))
    around = tts.tokenizer.ids(TEMPLATE.format(""))
    return torch.tensor([*around[:3], *tts.tokenize(text)[0], *around[3:]])


def _inside(template: str, text: str) -> str:
    before, after = template.split("{}")
    return text.removeprefix(before).removesuffix(after)


def _prefill(tts: Qwen3TTS, prompts: Sequence[Prompt]) -> Tensors:
    """Prefill and remaining text embeddings as the official package has them: its prefill includes the first step."""
    pad = special_embeddings(tts).pad
    first = [prompt.last + (prompt.text_embeddings[0] if len(prompt.text_embeddings) else pad) for prompt in prompts]
    embeds = [torch.cat((prompt.embeds, one[None])) for prompt, one in zip(prompts, first, strict=True)]
    longest = max(len(one) for one in embeds)
    trailing = [prompt.text_embeddings[1:] if len(prompt.text_embeddings) > 1 else pad[None] for prompt in prompts]
    last = max(len(one) for one in trailing)
    return {
        "embeds": torch.stack([functional.pad(one, (0, 0, longest - len(one), 0)) for one in embeds]),
        "mask": torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in embeds]),
        "trailing": torch.stack([torch.cat((one, pad.expand(last - len(one), -1))) for one in trailing]),
        "pad": pad[None, None],
    }


def _decode(tts: Qwen3TTS, prompts: Sequence[Prompt], sampling: Sampling, steps: int) -> Tensors:
    """Decode up to `steps` tokens of codebook 0; the last one gets no other codes, as in the official package."""
    decoder, pad = Decoder(tts, prompts, sampling), special_embeddings(tts).pad
    logits, scores, tokens, codes, code_logits = [], [], [], [], []
    for step in range(steps):
        text = [prompt.text_embeddings[step] if step < len(prompt.text_embeddings) else pad for prompt in prompts]
        tokens.append(decoder.advance(torch.stack(text)))
        logits.append(decoder.logits)
        scores.append(decoder.scores)
        if decoder.ended.all() or step == steps - 1:
            break
        codes.append(decoder.complete())
        code_logits.append(torch.stack(decoder.code_logits, 1))
    named = {"logits": logits, "scores": scores, "tokens": tokens, "codes": codes, "cp_logits": code_logits}
    return {name: torch.stack(values, 1).clone() for name, values in named.items()}


def _until_end(codes: Tensor, end: int) -> list[Tensor]:
    return [one[: (one[:, 0] == end).int().argmax() if bool((one[:, 0] == end).any()) else len(one)] for one in codes]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path, help="checkpoint folder in the official layout")
    parser.add_argument("reference", type=Path, help="outputs of the official package")
    parser.add_argument("--train", type=Path, help="training losses and gradient of the official package")
    parser.add_argument(
        "--dump", type=Path, help="write this implementation's outputs here, under the reference's names"
    )
    parser.add_argument(
        "--ref-text", default=REFERENCE_TEXT, help="transcript of the reference recording of a base model"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tts = Qwen3TTS.from_pretrained(given.model)
    reference = load_file(given.reference)
    outputs = run(tts, reference, given.ref_text)
    compared = compare(outputs, reference)
    print("\n".join([table(compared), *first_differences(outputs, reference)]))
    if given.train:
        wanted = load_file(given.train)
        trained = run_training(tts, wanted)
        compared_training = compare(trained, wanted)
        print("\ntraining\n" + table(compared_training))
        compared += compared_training
        outputs |= trained
    if given.dump:
        save_file({name: value.contiguous().clone() for name, value in outputs.items()}, given.dump)
    failed = [one.name for one in compared if not one.passed]
    listed = f"; not: {', '.join(failed)}" if failed else ""
    print(f"\n{len(compared) - len(failed)} of {len(compared)} tensors agree{listed}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (AudioProjectionError, OSError) as error:
        sys.exit(f"parity: {error}")
