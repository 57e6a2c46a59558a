"""Turns: so many at once, the others in their order, those who go away give theirs back."""

from __future__ import annotations

import asyncio

import pytest

from audio_projection.server.admission import Admission, Ticket
from audio_projection.server.errors import APIError


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_turns_come_in_order_and_the_queue_ends() -> None:
    async def scene() -> None:
        admission = Admission(streams=1, queue=2)
        first = await admission.enter()
        order: list[int] = []

        async def come(number: int) -> Ticket:
            ticket = await admission.enter()
            order.append(number)
            return ticket

        waiting = [asyncio.create_task(come(number)) for number in range(2)]
        await settle()
        assert (admission.speaking, admission.waiting) == (1, 2)
        with pytest.raises(APIError) as caught:
            await admission.enter()
        assert caught.value.status == 429 and int((caught.value.headers or {})["Retry-After"]) >= 1
        for leaving in (first, waiting[0]):
            (await leaving if isinstance(leaving, asyncio.Task) else leaving).leave()
            await settle()
        assert order == [0, 1]
        (await waiting[1]).leave()
        assert (admission.speaking, admission.waiting) == (0, 0)

    asyncio.run(scene())


def test_a_ticket_counts_once() -> None:
    async def scene() -> None:
        admission = Admission(streams=2, queue=0)
        one, _ = await admission.enter(), await admission.enter()
        one.leave()
        one.leave()
        assert admission.speaking == 1

    asyncio.run(scene())


@pytest.mark.parametrize("its_turn_has_come", [False, True])
def test_whoever_goes_away_while_waiting_takes_no_turn(its_turn_has_come: bool) -> None:
    async def scene() -> None:
        admission = Admission(streams=1, queue=2)
        first = await admission.enter()
        impatient, patient = (asyncio.create_task(admission.enter()) for _ in range(2))
        await settle()
        if its_turn_has_come:
            first.leave()
        impatient.cancel()
        await settle()
        if not its_turn_has_come:
            first.leave()
        (await asyncio.wait_for(patient, 1)).leave()
        assert (admission.speaking, admission.waiting) == (0, 0)

    asyncio.run(scene())


def test_nobody_comes_in_while_the_server_ends() -> None:
    async def scene() -> None:
        admission = Admission(streams=1, queue=1)
        admission.draining = True
        with pytest.raises(APIError) as caught:
            await admission.enter()
        assert caught.value.status == 503

    asyncio.run(scene())
