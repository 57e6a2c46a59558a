"""Input embeddings of the talker: the prefill of an utterance and teacher-forced training sequences.

The talker is a causal transformer that takes one embedding of size H at each position. It is the sum of two channels:

- the text channel: the embedding of a text token (`Talker.text_embeddings`), or a projector's output in its place;
- the codec channel: the embedding of a control code, or the sum of the G code embeddings of the frame before.

Where one channel is empty, its pad embedding is added to the other. An utterance begins with a prefix: an
optional instruction and the role `<|im_start|>assistant`, which have the text channel alone, then the language tag and
the speaker in the codec channel. Text follows in one of two layouts. `streaming` feeds one text embedding a frame, so
that speech can begin as soon as the first token of a text is known:

    text channel    role  pad       pad      bos    t1      t2      t3      eos     pad    ...
    codec channel         language  speaker  pad    bos     frame1  frame2  frame3  frame4 ...
    predicted                                       frame1  frame2  frame3  frame4  frame5 ...

`nonstreaming` puts the whole text before the first frame:

    text channel    role  pad       pad      bos    t1   t2   t3   eos  pad     pad     pad    ...
    codec channel         language  speaker  pad    pad  pad  pad  pad  bos     frame1  frame2 ...
    predicted                                                           frame1  frame2  frame3 ...

Official source: Qwen3TTSForConditionalGeneration.generate (qwen-tts 0.1.1).
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
    """The prefill of an utterance and the text embeddings that follow it.

    `embeds` (S, H) is the prefill. Every later position is a text embedding plus a code embedding: `last` (H,) at the
    first, then that of the frame before. `text_embeddings` (N, H) are fed one a frame, then the pad embedding to the
    end. `text_length` counts the text embeddings of the whole utterance, for the length guard.
    """

    embeds: Tensor
    last: Tensor
    text_embeddings: Tensor
    text_length: int


@dataclass(frozen=True)
class TrainingSequence:
    """A teacher-forced input `embeds` (S, H).

    The talker's state at position first + t predicts codes[t, 0], that at first + T the end of speech.
    """

    embeds: Tensor
    first: int


@dataclass(frozen=True)
class Reference:
    """A reference recording for in-context voice cloning, on the model's device: speech continues it.

    `voice` (H,): its x-vector; `codes` (T, G), int64; `text_embeddings` (R, H): the TTS's own, of its transcript.
    """

    voice: Tensor
    codes: Tensor
    text_embeddings: Tensor


def prefix(
    tts: SpeechModel, speaker: str | Tensor | None, language: str = "auto", instruct: str | None = None
) -> Tensor:
    """Input embeddings (P, H) of everything before the text: instruction, role, language tag and speaker.

    `speaker`: a name of the checkpoint's, an x-vector (H,), or None for no speaker embedding. AudioProjectionError
    names the choices when a speaker or language is unknown.
    """
    talker, config = tts.talker, tts.config.talker
    ids = [config.codec_nothink, config.codec_think_bos, config.codec_think_eos]
    number = _language_id(tts, speaker, language)
    if number is not None:
        ids = [config.codec_think, config.codec_think_bos, number, config.codec_think_eos]
    tags = talker.codec_embedding(_ids(tts, ids))
    voice = _speaker_embedding(tts, speaker)
    if voice is not None:
        tags = torch.cat((tags, voice[None]))
    parts = [tts.text_embeddings(_ids(tts, tts.role_ids)), tags + special_embeddings(tts).pad]
    if instruct and _follows_instructions(tts):
        parts.insert(0, tts.text_embeddings(_ids(tts, tts.instruct_ids(instruct))))
    return torch.cat(parts)


_LANGUAGES = {
    "german": "de deu ger deutsch",
    "english": "en eng",
    "spanish": "es spa español castellano",
    "french": "fr fra fre français",
    "italian": "it ita italiano",
    "japanese": "ja jpn 日本語",
    "korean": "ko kor 한국어",
    "portuguese": "pt por português",
    "russian": "ru rus русский",
    "chinese": "zh zho chi cmn mandarin 中文 汉语 普通话",
}
LANGUAGE_CODES = {code: name for name, codes in _LANGUAGES.items() for code in codes.split()}
"""ISO 639 codes of Qwen3-TTS's languages, and their names in themselves."""


def language_name(language: str) -> str:
    """The language by the name that Qwen3-TTS has for it: of "English", "en", "en-US" or "en_GB" it is "english"."""
    name = language.strip().lower()
    code = name.replace("_", "-").partition("-")[0]
    return LANGUAGE_CODES.get(code, name)


def _language_id(tts: SpeechModel, speaker: str | Tensor | None, language: str) -> int | None:
    """The codec id of the language tag, None for automatic detection.

    A speaker of a dialect turns 'auto' and 'chinese' into that dialect (official: Qwen3TTS generate).
    """
    config, name = tts.config.talker, language_name(language)
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


def _speaker_embedding(tts: SpeechModel, speaker: str | Tensor | None) -> Tensor | None:
    """The speaker embedding (H,): a codec embedding for a name, an x-vector as it is."""
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
    """Text embeddings (H,) of the three special text tokens: begin of text, end of text and padding."""

    bos: Tensor
    eos: Tensor
    pad: Tensor


def special_embeddings(tts: SpeechModel) -> SpecialEmbeddings:
    """The text embeddings of `tts` that begin, end and pad a text."""
    config = tts.config
    return SpecialEmbeddings(*tts.text_embeddings(_ids(tts, [config.tts_bos, config.tts_eos, config.tts_pad])))


def open_prompt(tts: SpeechModel, prefix_embeddings: Tensor) -> Prompt:
    """A prompt without its text, which is fed one embedding a frame (streaming layout): for live text."""
    special, codec = special_embeddings(tts), _codec_embeddings(tts)
    embeds = torch.cat((prefix_embeddings, (special.bos + codec.pad)[None]))
    return Prompt(embeds, codec.bos, embeds[:0], 0)


def text_prompt(tts: SpeechModel, prefix_embeddings: Tensor, text_embeddings: Tensor, layout: str) -> Prompt:
    """A prompt for a whole text, given as its embeddings (N, H) without begin and end, in `layout`."""
    check_layout(layout)
    embeddings = _checked_embeddings(tts, text_embeddings)
    start, special = open_prompt(tts, prefix_embeddings), special_embeddings(tts)
    text = torch.cat((embeddings, special.eos[None]))
    if layout == STREAMING:
        return Prompt(start.embeds, start.last, text, len(embeddings))
    embeds = torch.cat((start.embeds, text + _codec_embeddings(tts).pad))
    return Prompt(embeds, start.last, embeds[:0], len(embeddings))


def clone_prefill(
    tts: SpeechModel,
    prefix_embeddings: Tensor,
    text_embeddings: Tensor,
    reference_embeddings: Tensor,
    reference_codes: Tensor,
    layout: str,
) -> Prompt:
    """A prompt for in-context voice cloning: speech that continues a recording.

    `text_embeddings` (N, H) are those of the text to speak, `reference_embeddings` (R, H) and `reference_codes` (T, G)
    those of the recording, as in `Reference`. In the streaming layout as many text embeddings as there are reference
    frames are added to those frames, the others follow one a frame.
    """
    check_layout(layout)
    embeddings = _checked_embeddings(tts, text_embeddings)
    if reference_codes.ndim != 2 or reference_codes.shape[1] != tts.config.code_groups or not len(reference_codes):
        raise AudioProjectionError(
            f"reference codes have shape {tuple(reference_codes.shape)}, need (frames, {tts.config.code_groups})"
        )
    start, special, codec = open_prompt(tts, prefix_embeddings), special_embeddings(tts), _codec_embeddings(tts)
    text = torch.cat((_checked_embeddings(tts, reference_embeddings), embeddings, special.eos[None]))
    codes = torch.cat((codec.bos[None], tts.frame_embedding(reference_codes.to(tts.device))))
    # The last reference frame is not in the prefill: the first decoding step adds it to a text embedding.
    if layout == NONSTREAMING:
        embeds = torch.cat((start.embeds, text + codec.pad, codes[:-1] + special.pad))
        return Prompt(embeds, codes[-1], embeds[:0], len(embeddings))
    before = len(codes) - 1
    padding = special.pad.expand(max(0, before - len(text)), -1)
    embeds = torch.cat((start.embeds, torch.cat((text[:before], padding)) + codes[:-1]))
    return Prompt(embeds, codes[-1], text[before:], len(embeddings))


def training_sequence(
    tts: SpeechModel, prefix_embeddings: Tensor, text_embeddings: Tensor, codes: Tensor, layout: str
) -> TrainingSequence:
    """Teacher-forced talker input of an utterance with text embeddings (N, H) and codes (T, G).

    Differentiable in the text embeddings. Those that a streaming utterance is too short to reach (the end of text
    included, N + 1 > T + 1) are left out, as in decoding.
    """
    prompt = text_prompt(tts, prefix_embeddings, text_embeddings, layout)
    frames = torch.cat((prompt.last[None], tts.frame_embedding(codes)))
    text = prompt.text_embeddings[: len(frames)]
    padding = special_embeddings(tts).pad.expand(len(frames) - len(text), -1)
    return TrainingSequence(torch.cat((prompt.embeds, torch.cat((text, padding)) + frames)), len(prompt.embeds))


def check_layout(layout: str) -> None:
    """Raises AudioProjectionError for a layout that is not one of `LAYOUTS`."""
    if layout not in LAYOUTS:
        raise AudioProjectionError(f"unknown layout {layout!r}; choose one of {', '.join(LAYOUTS)}")


@dataclass(frozen=True)
class _CodecEmbeddings:
    """Codec embeddings (H,) of padding and of the begin of speech."""

    pad: Tensor
    bos: Tensor


def _codec_embeddings(tts: SpeechModel) -> _CodecEmbeddings:
    config = tts.config.talker
    return _CodecEmbeddings(*tts.talker.codec_embedding(_ids(tts, [config.codec_pad, config.codec_bos])))


def _checked_embeddings(tts: SpeechModel, embeddings: Tensor) -> Tensor:
    """Text embeddings (N, H) in the model's dtype and on its device: a projector may be float32 beside bfloat16."""
    if embeddings.ndim != 2 or embeddings.shape[1] != tts.config.hidden_size or not len(embeddings):
        raise AudioProjectionError(
            f"text embeddings have shape {tuple(embeddings.shape)}, need (at least 1, {tts.config.hidden_size})"
        )
    return embeddings.to(tts.device, tts.dtype)


def _follows_instructions(tts: SpeechModel) -> bool:
    if tts.config.kind == "custom_voice" and tts.config.model_size == "0b6":
        log.warning("the 0.6B custom voices follow no instructions: the instruction is left out")
        return False
    return True


def _ids(tts: SpeechModel, ids: list[int]) -> Tensor:
    return torch.tensor(ids, device=tts.device)


def _find(table: Mapping[str, _Value], name: str) -> _Value | None:
    """The entry of `name`, ignoring case."""
    return {key.lower(): value for key, value in table.items()}.get(name.lower())
