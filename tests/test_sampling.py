"""The context manager that seeds torch's global random generators."""

from __future__ import annotations

import pytest
import torch

from audio_projection.errors import AudioProjectionError
from audio_projection.sampling import Choice, seeded


def test_seeded_draws_what_manual_seed_draws_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected_after = torch.rand(3)
    torch.manual_seed(7)
    expected_inside = torch.rand(3)

    torch.manual_seed(5)
    with seeded(7):
        inside = torch.rand(3)
    assert torch.equal(inside, expected_inside)
    assert torch.equal(torch.rand(3), expected_after)


def test_seeded_restores_the_global_generator_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(7):
        raise KeyError(torch.rand(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("temperature", [0.0, -1.0, 5e-324, float("nan"), float("inf")])
def test_temperatures_that_leave_no_distribution_are_refused(temperature: float) -> None:
    with pytest.raises(AudioProjectionError, match="temperature"):
        Choice(temperature=temperature)
