"""benchmarks/two_llms.py: which tokens two LLMs share, and the fit of one's states to the other's embeddings."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import torch

from audio_projection.alignment.token_states import TokenStates
from helpers import parity_kit

benchmark = parity_kit.script("two_llms")


def test_tokens_are_the_same_by_their_strings() -> None:
    one = SimpleNamespace(get_vocab=lambda: {"Ġthe": 5, "ing": 2, "Ġdog": 9, "only": 1})
    other = SimpleNamespace(get_vocab=lambda: {"▁the": 0, "▁dog": 3, "ing": 2, "else": 1})
    table = torch.tensor([[1.0, 4.0], [9.0, 9.0], [3.0, 0.0], [5.0, 2.0]])
    common = benchmark.common_tokens(one, other, table)
    assert common.places == {2: 0, 5: 1, 9: 2}, "ing, the, dog"
    rows = table[[2, 0, 3]]
    torch.testing.assert_close(common.embeddings, (rows - rows.mean(0)) / rows.std(0, correction=0))


def test_a_layer_that_tells_its_token_is_told_from_one_that_does_not() -> None:
    """Two layers: the token's own embedding, and noise. Token 39 occurs in the held-out sentences alone."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(40, 12, generator=generator)
    pairs = []
    for number in range(300):
        ids = torch.randint(40 if number < 20 else 39, (10,), generator=generator)
        states = torch.stack([embeddings[ids], torch.randn(10, 12, generator=generator)], 1)
        pairs.append((f"sentence {number}", TokenStates(ids.tolist(), states.half(), embeddings[ids])))
    given = argparse.Namespace(tokens=2000, held_out=20, refine_steps=0)
    common = benchmark.Common({}, embeddings)
    lines = [*benchmark.measure(pairs, [0], [1], given, common), *benchmark.measure(pairs, [1], [2], given, common)]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert cells[0][1:3] == ["1", "ridge"] and float(cells[0][4].split()[0]) > 99
    unseen = sum(item.ids.count(39) for _, item in pairs[:20])
    assert cells[0][5].endswith(f"% of {unseen}") and unseen > 0
    assert float(cells[1][4].split()[0]) < 15
