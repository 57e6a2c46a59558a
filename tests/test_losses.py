from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from audio_projection.losses import chosen_count, count_targets, predictor_loss, sequence_losses, talker_loss
from audio_projection.tts.prompt import training_sequence
from training_parts import load_tts, make_pairs, parity_file


def test_losses_and_gradient_equal_the_official_ones() -> None:
    reference, tts = load_file(parity_file("tiny_custom_voice.train.safetensors")), load_tts()
    features, codes = reference["feats"].requires_grad_(), reference["codes"]
    prefix = reference["pre"].shape[1]
    embeds = torch.cat((reference["pre"], tts.frame_embedding(codes) + features), 1)
    hidden = tts.talker(embeds)[:, prefix - 1 : -1].flatten(0, 1)  # the state before a frame predicts it
    frames = codes.flatten(0, 1)
    first = talker_loss(tts.talker, hidden, frames[:, 0])[0] / len(frames)
    rest = predictor_loss(tts.code_predictor, hidden, frames) / frames[:, 1:].numel()
    (first + rest).backward()
    assert abs(first.item() - reference["l0"].item()) < 1e-5
    assert abs(rest.item() - reference["l1"].item()) < 1e-5
    assert (features.grad - reference["grad"]).abs().max() < 1e-6


@pytest.mark.parametrize("layout", ["streaming", "nonstreaming"])
def test_batched_sums_equal_one_utterance_at_a_time_by_definition(layout: str) -> None:
    """Each utterance alone, each position written out, without the padding and gathering of the batch."""
    tts, pairs = load_tts(), make_pairs(4)
    prefix = tts.prefix("ada", "english")
    rows = [tts.text_rows(torch.tensor(tts.tokenize(pair.text)[0])) for pair in pairs]
    codes = [pair.codes for pair in pairs]
    sequences = [training_sequence(tts, prefix, r, c, layout) for r, c in zip(rows, codes, strict=True)]
    sums = sequence_losses(tts, sequences, codes, 1.0, torch.Generator())
    talker, predictor, hits = 0.0, 0.0, 0
    for sequence, frames in zip(sequences, codes, strict=True):
        hidden = tts.talker(sequence.embeds[None])[0]
        for place, label in enumerate([*frames[:, 0].tolist(), tts.config.talker.codec_eos]):
            scores = tts.talker.codec_head(hidden[sequence.first + place])
            talker += float(torch.logsumexp(scores, 0) - scores[label])
            hits += int(scores.argmax() == label)
        for place, frame in enumerate(frames):
            logits = tts.code_predictor(hidden[sequence.first + place][None], frame[None])[0]
            predictor += float(F.cross_entropy(logits, frame[1:], reduction="sum"))
    assert float(sums.talker) == pytest.approx(talker, rel=1e-5)
    assert float(sums.predictor) == pytest.approx(predictor, rel=1e-5)
    assert int(sums.hits) == hits
    assert sums.talker_targets == sum(len(c) + 1 for c in codes)
    assert sums.predictor_targets == sum(len(c) * 15 for c in codes)


def test_a_share_of_frames_is_drawn_by_seed_and_counted() -> None:
    tts, pairs = load_tts(), make_pairs(3)
    prefix = tts.prefix("ada")
    codes = [pair.codes for pair in pairs]
    sequences = [training_sequence(tts, prefix, torch.zeros(2, 64), c, "streaming") for c in codes]
    results = [sequence_losses(tts, sequences, codes, 0.25, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert float(results[0].predictor) == float(results[1].predictor) != float(results[2].predictor)
    assert float(results[0].talker) == float(results[2].talker)
    counted = count_targets([len(c) for c in codes], 16, 0.25)
    assert (results[0].talker_targets, results[0].predictor_targets) == (counted.talker, counted.predictor)
    assert counted.predictor == 15 * round(0.25 * sum(len(c) for c in codes))


def test_at_least_one_frame_and_at_most_all() -> None:
    assert chosen_count(3, 0.01) == 1 and chosen_count(10, 1.0) == 10 and chosen_count(0, 0.5) == 0


def test_gradient_reaches_the_rows_and_no_frozen_weight() -> None:
    tts, (pair,) = load_tts(), make_pairs(1)
    rows = torch.zeros(3, 64, requires_grad=True)
    sequence = training_sequence(tts, tts.prefix("ada"), rows, pair.codes, "nonstreaming")
    sums = sequence_losses(tts, [sequence], [pair.codes], 0.5, torch.Generator())
    (sums.talker + sums.predictor).backward()
    assert rows.grad is not None and rows.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in tts.parameters())
