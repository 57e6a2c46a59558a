"""How text, voice and codes are laid out before and during decoding.

At every position a text row and a code embedding are summed. `prefix` makes the rows before the text; the layouts
place the text rows: `streaming` feeds one a frame, `nonstreaming` puts all of them before the first frame.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.tts.interface import SpeechModel

_Value = TypeVar("_Value")
log = logging.getLogger(__name__)

STREAMING, NONSTREAMING = "streaming", "nonstreaming"
LAYOUTS = (STREAMING, NONSTREAMING)


@dataclass(frozen=True)
class Prompt:
    """Where decoding starts.

    `embeds` (S, H) is the prefill; every later position is one text row plus a code embedding: `last` (H,) at the
    first, afterwards that of the frame before. `rows` (N, H) are the text rows still to come, one a frame, then the
    pad row for ever. `text_length` counts the text rows of the whole utterance, for the length guard.
    """

    embeds: Tensor
    last: Tensor
    text_embeddings: Tensor
    text_length: int


@dataclass(frozen=True)
class TrainingSequence:
    """A teacher-forced input: `embeds` (S, H); hidden[first + t] predicts codes[t, 0], hidden[first + T] the end."""

    embeds: Tensor
    first: int


@dataclass(frozen=True)
class Reference:
    """A recording that speech continues (in-context cloning), on the model's device.

    `voice` (H,): its x-vector; `codes` (T, G), int64; `rows` (R, H): the TTS's own text rows of what it says.
    """

    voice: Tensor
    codes: Tensor
    text_embeddings: Tensor


def prefix(
    tts: SpeechModel, speaker: str | Tensor | None, language: str = "auto", instruct: str | None = None
) -> Tensor:
    """Rows (P, H) of everything before the text: instruction, role, language tag and voice.

    `speaker`: a name of the checkpoint's, an x-vector (H,), or None for no voice row. AudioProjectionError names the
    choices when a speaker or language is unknown.
    """
    talker, config = tts.talker, tts.config.talker
    ids = [config.codec_nothink, config.codec_think_bos, config.codec_think_eos]
    number = language_id(tts, speaker, language)
    if number is not None:
        ids = [config.codec_think, config.codec_think_bos, number, config.codec_think_eos]
    tags = talker.codec_embedding(_ids(tts, ids))
    voice = speaker_embedding(tts, speaker)
    if voice is not None:
        tags = torch.cat((tags, voice[None]))
    rows = [tts.text_embeddings(_ids(tts, tts.role_ids)), tags + special_embeddings(tts).pad]
    if instruct and _follows_instructions(tts):
        rows.insert(0, tts.text_embeddings(_ids(tts, tts.instruct_ids(instruct))))
    return torch.cat(rows)


def language_id(tts: SpeechModel, speaker: str | Tensor | None, language: str) -> int | None:
    """The codec id of the language tag, None for automatic.

    A speaker of a dialect turns 'auto' and 'chinese' into that dialect (official: Qwen3TTS generate).
    """
    config, name = tts.config.talker, language.lower()
    if name in ("auto", "chinese") and isinstance(speaker, str):
        dialect = _find(config.dialects, speaker) or False
        if dialect:
            if dialect not in config.languages:
                raise AudioProjectionError(
                    f"config.json: dialect {dialect!r} of speaker {speaker!r} has no language id"
                )
            return config.languages[str(dialect)]
    if name == "auto":
        return None
    number = _find(config.languages, name)
    if number is None:
        raise AudioProjectionError(
            f"unknown language {language!r}; choose one of {', '.join(tts.config.language_names)}"
        )
    return int(number)


def speaker_embedding(tts: SpeechModel, speaker: str | Tensor | None) -> Tensor | None:
    """The voice row (H,): a codec embedding for a name, an x-vector as it is."""
    config = tts.config
    if speaker is None or isinstance(speaker, Tensor):
        if speaker is None:
            return None
        if speaker.shape != (config.hidden_size,):
            raise AudioProjectionError(
                f"the voice vector has shape {tuple(speaker.shape)}, this checkpoint needs ({config.hidden_size},)"
            )
        return speaker.to(tts.device, tts.dtype)
    number = _find(config.talker.speakers, speaker)
    if number is None:
        names = ", ".join(config.talker.speakers)
        known = f"choose one of {names}" if names else "this checkpoint has no named speakers: give a reference voice"
        raise AudioProjectionError(f"unknown speaker {speaker!r}; {known}")
    return tts.talker.codec_embedding(_ids(tts, [int(number)]))[0]


@dataclass(frozen=True)
class SpecialEmbeddings:
    """Text rows (H,) of the three special text tokens."""

    bos: Tensor
    eos: Tensor
    pad: Tensor


def special_embeddings(tts: SpeechModel) -> SpecialEmbeddings:
    config = tts.config
    return SpecialEmbeddings(*tts.text_embeddings(_ids(tts, [config.tts_bos, config.tts_eos, config.tts_pad])))


def open_prompt(tts: SpeechModel, prefix_embeddings: Tensor) -> Prompt:
    """A prompt whose text rows are still to come, one a frame: what a live stream starts from."""
    special, codec = special_embeddings(tts), _codec_embeddings(tts)
    embeds = torch.cat((prefix_embeddings, (special.bos + codec.pad)[None]))
    return Prompt(embeds, codec.bos, embeds[:0], 0)


def text_prompt(tts: SpeechModel, prefix_embeddings: Tensor, rows: Tensor, layout: str) -> Prompt:
    """A prompt for all text rows (N, H) of an utterance in `layout`."""
    check_layout(layout)
    rows = _checked_embeddings(tts, rows)
    start, special = open_prompt(tts, prefix_embeddings), special_embeddings(tts)
    text = torch.cat((rows, special.eos[None]))
    if layout == STREAMING:
        return Prompt(start.embeds, start.last, text, len(rows))
    embeds = torch.cat((start.embeds, text + _codec_embeddings(tts).pad))
    return Prompt(embeds, start.last, embeds[:0], len(rows))


def clone_prefill(
    tts: SpeechModel,
    prefix_embeddings: Tensor,
    rows: Tensor,
    reference_embeddings: Tensor,
    reference_codes: Tensor,
    layout: str,
) -> Prompt:
    """A prompt that continues a recording: its text rows (R, H) and codes (T, G), as in `Reference`.

    In the streaming layout all text rows that fit are summed over the reference codes, the others follow one a frame.
    """
    check_layout(layout)
    rows = _checked_embeddings(tts, rows)
    if reference_codes.ndim != 2 or reference_codes.shape[1] != tts.config.code_groups or not len(reference_codes):
        raise AudioProjectionError(
            f"reference codes have shape {tuple(reference_codes.shape)}, need (frames, {tts.config.code_groups})"
        )
    start, special, codec = open_prompt(tts, prefix_embeddings), special_embeddings(tts), _codec_embeddings(tts)
    text = torch.cat((_checked_embeddings(tts, reference_embeddings), rows, special.eos[None]))
    codes = torch.cat((codec.bos[None], tts.frame_embedding(reference_codes.to(tts.device))))
    # The last reference frame is no part of the prefill: it is what the first decoding step adds its text row to.
    if layout == NONSTREAMING:
        embeds = torch.cat((start.embeds, text + codec.pad, codes[:-1] + special.pad))
        return Prompt(embeds, codes[-1], embeds[:0], len(rows))
    before = len(codes) - 1
    padding = special.pad.expand(max(0, before - len(text)), -1)
    embeds = torch.cat((start.embeds, torch.cat((text[:before], padding)) + codes[:-1]))
    return Prompt(embeds, codes[-1], text[before:], len(rows))


def training_sequence(
    tts: SpeechModel, prefix_embeddings: Tensor, rows: Tensor, codes: Tensor, layout: str
) -> TrainingSequence:
    """Teacher-forced input of an utterance: text rows (N, H) and its codes (T, G). Differentiable in the rows.

    Text rows that a streaming utterance never reaches (N + 1 > T + 1) are left out, as in decoding.
    """
    prompt = text_prompt(tts, prefix_embeddings, rows, layout)
    frames = torch.cat((prompt.last[None], tts.frame_embedding(codes)))
    text = prompt.text_embeddings[: len(frames)]
    padding = special_embeddings(tts).pad.expand(len(frames) - len(text), -1)
    return TrainingSequence(torch.cat((prompt.embeds, torch.cat((text, padding)) + frames)), len(prompt.embeds))


def check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise AudioProjectionError(f"unknown layout {layout!r}; choose one of {', '.join(LAYOUTS)}")


@dataclass(frozen=True)
class _CodecEmbeddings:
    pad: Tensor
    bos: Tensor


def _codec_embeddings(tts: SpeechModel) -> _CodecEmbeddings:
    config = tts.config.talker
    return _CodecEmbeddings(*tts.talker.codec_embedding(_ids(tts, [config.codec_pad, config.codec_bos])))


def _checked_embeddings(tts: SpeechModel, rows: Tensor) -> Tensor:
    """The rows (N, H) in the model's dtype and on its device: a projector may work in float32 beside bfloat16."""
    if rows.ndim != 2 or rows.shape[1] != tts.config.hidden_size or not len(rows):
        raise AudioProjectionError(
            f"text rows have shape {tuple(rows.shape)}, need (at least 1, {tts.config.hidden_size})"
        )
    return rows.to(tts.device, tts.dtype)


def _follows_instructions(tts: SpeechModel) -> bool:
    if tts.config.kind == "custom_voice" and tts.config.model_size == "0b6":
        log.warning("the 0.6B custom voices follow no instructions: the instruction is left out")
        return False
    return True


def _ids(tts: SpeechModel, ids: list[int]) -> Tensor:
    return torch.tensor(ids, device=tts.device)


def _find(table: Mapping[str, _Value], name: str) -> _Value | None:
    """The entry of `name`, upper and lower case alike."""
    return {key.lower(): value for key, value in table.items()}.get(name.lower())
