"""Requests made up from the published schema, most of them wrong: none breaks the server."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error

from audio_projection.config import ServerConfig
from audio_projection.inference import Voice
from helpers.serving import Running, serving

MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


@pytest.fixture(scope="module")
def brief(voice: Voice) -> Iterator[Running]:
    """A server that says half a second of each sentence."""
    short = copy.copy(voice)
    short.defaults = replace(voice.defaults, max_frames=6, max_new_tokens=8)
    with serving({"linear": short}, ServerConfig(port=0, text=100)) as server:
        yield server


def fuzz(running: Running, requests: int) -> Counter[int]:
    """So many requests, as many for each operation that takes a body; gives how often each status came."""
    schema = schemathesis.openapi.from_url(f"{running.address}/openapi.json")
    operations = [operation.ok() for operation in schema.get_all_operations()]
    taking = [(operation, mode) for operation in operations if operation.body for mode in MODES]
    statuses: Counter[int] = Counter()
    for operation in operations:
        if not operation.body:  # no parameters, or a word of a path, of which none is wrong
            ask_many(operation, MODES[0], 5, statuses)
    for operation, mode in taking:
        ask_many(operation, mode, requests // len(taking), statuses)
    return statuses


def ask_many(
    operation: schemathesis.APIOperation, mode: schemathesis.GenerationMode, requests: int, statuses: Counter[int]
) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=requests,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        answer = case.call(timeout=30)
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=[not_a_server_error])

    ask()


def check(statuses: Counter[int], requests: int) -> None:
    assert sum(statuses.values()) >= 0.8 * requests, statuses  # some operations have few different requests
    assert statuses[200] and statuses[400], statuses
    assert max(statuses) < 500, statuses


def test_a_hundred_requests(brief: Running) -> None:
    check(fuzz(brief, 100), 100)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_two_thousand_requests(brief: Running) -> None:
    statuses = fuzz(brief, 2500)
    print(dict(statuses))
    check(statuses, 2500)
