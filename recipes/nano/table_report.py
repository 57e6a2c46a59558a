"""How far the trained text table is from the LLM's embeddings that it began as.

    python recipes/nano/table_report.py work

R2, on tokens that were not fitted, of a linear map from the LLM's raw embeddings to the trained table and to the text
embeddings that the talker gets (the table through `text_projection`), and to the table as it began.
"""

import argparse
from pathlib import Path

import torch
from checkpoint import load
from safetensors.torch import load_file
from talker_model import Talker, with_lessons
from text_ids import TextIds
from torch import Tensor

HELD_OUT = 10
"""One token of so many is left out of the fit."""
RIDGE = 1e-3
"""Added to the covariance, in parts of its mean."""


def linear_r2(source: Tensor, target: Tensor) -> float:
    """Share of the variance of `target` (N, D) that a linear map of `source` (N, S) explains, on held-out rows."""
    test = torch.arange(len(source)) % HELD_OUT == 0
    x, y = (each.double() - each[~test].double().mean(0) for each in (source, target))
    covariance = x[~test].T @ x[~test]
    penalty = RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    weights = torch.linalg.solve(covariance + penalty, x[~test].T @ y[~test])
    return float(1 - (y[test] - x[test] @ weights).square().sum() / y[test].square().sum())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    source = load_file(work / "text_table.safetensors")["source"]
    both = with_lessons(Talker(TextIds.from_folder(work / "tts")), source)
    talker = both["talker"]
    talker.begin_from(source)
    began = linear_r2(source, talker.model.text_embedding.weight)
    step = load(work / "talker.safetensors", both, [])
    table = linear_r2(source, talker.model.text_embedding.weight)
    rows = linear_r2(source, talker.text_embeddings(torch.arange(len(source))))
    print(f"talker: step {step}; R2 of the table {table:.3f} (begun at {began:.3f}), of the embeddings {rows:.3f}")


if __name__ == "__main__":
    main()
