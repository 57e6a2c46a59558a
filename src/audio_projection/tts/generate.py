"""Speech codes of one utterance as a stream, or of a batch: text embeddings in, frames of codes out.

Each call has an engine of its own (`engine.engine.Engine`), with one slot for each utterance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from audio_projection.sampling import Sampling, derived_seed
from audio_projection.tts.engine.engine import Engine
from audio_projection.tts.engine.text import PulledText, WholeText
from audio_projection.tts.engine.utterance import Request
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import STREAMING, Prompt, check_layout, open_prompt, text_prompt


def stream(
    tts: Qwen3TTS,
    prefix: Tensor,
    text_embeddings: Iterable[Tensor],
    layout: str = STREAMING,
    sampling: Sampling | None = None,
    seed: int | None = None,
    max_frames: int | None = None,
) -> Iterator[Tensor]:
    """Frames (G,), int64, of one utterance, each as soon as it is decoded.

    The streaming layout pulls one text embedding (H,) a frame and blocks as long as the iterator of `text_embeddings`
    does; at its end it feeds the end of text once, then padding. The non-streaming layout needs the whole text first.
    `seed` makes sampling repeatable.
    """
    check_layout(layout)
    prompt, text = pulled_prompt(tts, prefix, text_embeddings, layout)
    yield from Engine(tts, sampling, slots=1).submit(Request(prompt, text, fresh_seed(seed), max_frames))


def pulled_prompt(
    tts: Qwen3TTS, prefix: Tensor, text_embeddings: Iterable[Tensor], layout: str
) -> tuple[Prompt, PulledText]:
    """The prompt and the text of an utterance that is pulled from an iterable: one text embedding (H,) a frame in the
    streaming layout, else all of them, now."""
    text = PulledText(tts, text_embeddings)
    prompt = open_prompt(tts, prefix) if layout == STREAMING else text_prompt(tts, prefix, text.rest(), layout)
    return prompt, text


def generate(
    tts: Qwen3TTS,
    prompts: Sequence[tuple[Tensor, Tensor]],
    layout: str = STREAMING,
    sampling: Sampling | None = None,
    seed: int | None = None,
    max_frames: int | None = None,
) -> list[Tensor]:
    """Codes (T, G), int64, of a batch of utterances, each given as (prefix (P, H), text embeddings (N, H))."""
    laid_out = [text_prompt(tts, prefix, embeddings, layout) for prefix, embeddings in prompts]
    return decode(tts, laid_out, sampling, seed, max_frames)


def decode(
    tts: Qwen3TTS,
    prompts: Sequence[Prompt],
    sampling: Sampling | None = None,
    seed: int | None = None,
    max_frames: int | None = None,
) -> list[Tensor]:
    """Codes (T, G), int64, of a batch of prompts, also those that clone a voice (`prompt.clone_prefill`).

    Utterance number i samples with `derived_seed(seed, i)`; without a seed, with a new one.
    """
    if not prompts:
        return []
    first = fresh_seed(seed)
    requests = [
        Request(prompt, WholeText(tts, prompt), derived_seed(first, number), max_frames)
        for number, prompt in enumerate(prompts)
    ]
    codes: list[Tensor] = [torch.empty(0, tts.config.code_groups, dtype=torch.int64, device=tts.device)] * len(prompts)
    for number, utterance in Engine(tts, sampling, slots=len(prompts)).run(requests):
        frames = list(utterance)
        codes[number] = torch.stack(frames) if frames else codes[number]
    return codes


def fresh_seed(seed: int | None) -> int:
    """The seed, or a random one of torch's global generator."""
    return int(torch.randint(2**63 - 1, ())) if seed is None else seed


def clone_samples(
    tts: Qwen3TTS, reference_codes: Tensor, codes: Tensor, decode_codes: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Waveform (S,), float32, of codes (T, G) that continue `reference_codes` (R, G).

    The codec decodes the reference first, so that it starts in the state that the recording leaves; the reference's
    share of the samples is cut off again (official: generate_voice_clone). `decode_codes`: the codec's `decode` unless
    given.
    """
    samples = (decode_codes or tts.codec.decode)(torch.cat((reference_codes.to(codes.device), codes)))
    return samples[int(len(reference_codes) / (len(reference_codes) + len(codes)) * len(samples)) :]
