"""Binding: the states of LLM tokens made into one state for each TTS token."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from audio_projection.alignment.align import Overlap, align, bind
from audio_projection.text.token_spans import Span


def test_one_to_one_the_states_are_unchanged() -> None:
    states = torch.randn(5, 2, 8)
    assert torch.equal(bind(states, [Overlap((n,), 0) for n in (0, 2, 4)]), states[[0, 2, 4]])


def test_earlier_tokens_are_rotated_by_their_distance_and_later_turns_back() -> None:
    states = torch.randn(4, 2, 8)
    a, b, c, _ = states
    bound = bind(states, [Overlap((0, 1, 2), 0), Overlap((2,), 1), Overlap((1, 2), 2)])
    together = c + b.roll(1, -1) + a.roll(2, -1)
    torch.testing.assert_close(bound, torch.stack((together, c.roll(-1, -1), (c + b.roll(1, -1)).roll(-2, -1))))


def test_the_states_given_stay_as_they_are_and_none_gives_none() -> None:
    states = torch.randn(3, 1, 4)
    before = states.clone()
    bind(states, [Overlap((0, 1), 0), Overlap((1,), 1)])
    assert torch.equal(states, before)
    assert bind(states, []).shape == (0, 1, 4)


PAIR, LETTERS = [(0, 2)], [(0, 1), (1, 2)]


@pytest.mark.parametrize(("llm", "tts"), [(LETTERS, PAIR), (PAIR, LETTERS)], ids=["many to one", "one to many"])
def test_a_linear_map_gives_the_embeddings_of_tokens_that_are_cut_differently(llm: list[Span], tts: list[Span]) -> None:
    """Words of two letters, tokenized alike or not: every state is one of 12, every embedding one of 12."""
    torch.manual_seed(0)
    states, embeddings = torch.randn(12, 1, 32), torch.randn(12, 16)
    bound, last, wanted = [], [], []
    for word in range(4):
        ids = {1: [8 + word], 2: [2 * word, 2 * word + 1]}  # as one token, as two
        for spans, others in ((llm, tts), (llm, llm), (tts, tts)):
            overlaps, read = align(spans, others), states[ids[len(spans)]]
            bound.append(bind(read, overlaps)[:, 0])
            last.append(read[[overlap.tokens[-1] for overlap in overlaps], 0])
            wanted.append(embeddings[ids[len(others)]])
    assert right(torch.cat(bound), torch.cat(wanted), embeddings) == 1.0
    assert right(torch.cat(last), torch.cat(wanted), embeddings) < 0.9  # the last LLM token's state alone


def right(states: torch.Tensor, wanted: torch.Tensor, embeddings: torch.Tensor) -> float:
    """Share of states (N, D) whose least-squares image is nearest to the embedding wanted."""
    found = states @ torch.linalg.lstsq(states, wanted, driver="gelsd").solution
    return float((torch.cdist(found, embeddings).argmin(1) == torch.cdist(wanted, embeddings).argmin(1)).float().mean())


def test_the_benchmark_tells_both_ways_apart(repository: Path, tmp_path: Path) -> None:
    texts = (repository / "src/audio_projection/nano/texts.txt").read_text(encoding="utf-8").splitlines()[:300]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    command = [sys.executable, repository / "benchmarks" / "binding.py", "--held-out", "60"]
    done = subprocess.run(
        [*command, f"data.texts={tmp_path / 'texts.txt'}"], capture_output=True, text=True, cwd=repository, check=True
    )
    shares = [line.split("│")[1:6] for line in done.stdout.splitlines() if "│" in line and "%" in line]
    right = {(kind.strip(), int(layer)): float(several.strip(" %")) for kind, layer, _, _, several in shares[-10:]}
    assert right["bound", 1] > right["last", 1] + 50
