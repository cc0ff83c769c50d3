"""Handlers see the ``contextvars`` of the subscription, and never those of another handler."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
from reactivex import operators as rx

from rxdispatch.operators.tasks._claim_each import claim_each
from rxdispatch.operators.tasks._execute import execute
from rxdispatch.operators.tasks._settle import settle
from rxdispatch.operators.tasks._submit import submit
from rxdispatch.task import Task
from rxdispatch.testing import Probe
from tests.operators.tasks.places import Hand, place

TENANT: ContextVar[str] = ContextVar("tenant", default="nobody")


async def test_a_handler_that_submits_does_not_pass_on_its_context() -> None:
    """A board in memory notifies its streams during the handler's own call."""
    board, _ = place()
    TENANT.set("main")
    seen: list[tuple[Any, str]] = []
    below: list[str] = []

    async def handle(task: Task[Any]) -> None:
        await asyncio.sleep(0.02)
        seen.append((task.payload, TENANT.get()))
        TENANT.set("ACME")
        if task.payload == "first":
            await board.submit(Task("child"))
            await asyncio.sleep(0.2)

    stream = board.claims().pipe(
        rx.do_action(lambda _: below.append(TENANT.get())),
        execute(handle),
        settle(board),
        rx.do_action(lambda _: below.append(TENANT.get())),
    )
    subscription = stream.subscribe(Probe())
    TENANT.set("later")
    await board.submit(Task("first"))
    await asyncio.sleep(0.5)
    await board.submit([Task("second"), Task("third")])
    await asyncio.sleep(5)
    assert [("child", "main"), ("first", "main"), ("second", "main"), ("third", "main")] == sorted(
        seen
    )
    assert {"main"} == set(below)
    subscription.dispose()


@pytest.mark.parametrize("plain", [False, True])
async def test_claims_of_a_broadcast_keep_no_context(plain: bool) -> None:
    """A submission does not keep the context of its caller either."""
    board, _ = place()
    TENANT.set("main")
    seen: list[str] = []

    def note(_: Any) -> None:
        seen.append(TENANT.get())

    hand = Hand()
    operator: Any = submit(board, timespan=0.01) if plain else claim_each(board)
    subscription = hand.stream().pipe(operator, rx.do_action(note)).subscribe(Probe())
    TENANT.set("pusher")
    if plain:
        hand.push(Task(1))
    else:
        await board.submit(Task(1, id="a"))
        hand.push("a")
    await asyncio.sleep(1)
    assert ["main"] == seen
    subscription.dispose()
