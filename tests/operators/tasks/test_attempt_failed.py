"""Failed attempts are visible: one warning each, with a traceback but without values."""

from __future__ import annotations

import asyncio
from typing import Any

from structlog.testing import capture_logs

from rxdispatch.backoff import Backoff
from rxdispatch.operators.tasks._execute import execute
from rxdispatch.operators.tasks._settle import settle
from rxdispatch.task import Task
from rxdispatch.testing import Probe
from tests.operators.tasks.places import filled


async def test_each_failed_attempt_is_one_warning() -> None:
    """The warning names board, task and attempt, what follows, and where the handler failed."""
    board, _ = await filled(1, max_attempts=2, kind="mail")

    async def inner(secret: str) -> None:
        await asyncio.sleep(1)
        raise ValueError("no way") from KeyError(len(secret))

    async def handle(task: Task[Any]) -> None:
        await inner("geheim")

    backoff = Backoff(first=2.0, factor=1.0, maximum=2.0, jitter=0.0)
    with capture_logs() as logs:
        board.claims(until="joined").pipe(
            execute(handle, backoff=backoff), settle(board)
        ).subscribe(Probe())
        await asyncio.sleep(20)
    same = {
        "event": "attempt_failed",
        "log_level": "warning",
        "board": "b",
        "task": "0",
        "kind": "mail",
        "error": "ValueError: no way",
    }
    stacks = [str(entry.pop("stack")) for entry in logs]
    assert [
        {**same, "attempt": 1, "status": "retry", "delay": 2.0},
        {**same, "attempt": 2, "status": "dead", "reason": "failed"},
    ] == [dict(entry) for entry in logs]
    for stack in stacks:
        assert stack.startswith("KeyError: 6\n\nThe above exception was the direct cause")
        assert stack.endswith("ValueError: no way")
        frames = [line.split(", in ")[1] for line in stack.splitlines() if ", in " in line]
        assert ["handle", "inner"] == frames
        assert "geheim" not in stack.replace('inner("geheim")', "")


async def test_what_was_given_back_or_lost_is_no_failure() -> None:
    """Only outcomes that count as an attempt are logged."""
    board, _ = await filled(2)

    async def handle(task: Task[Any]) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            raise ValueError("on the way out")

    with capture_logs() as logs:
        subscription = board.claims().pipe(execute(handle), settle(board)).subscribe(Probe())
        await asyncio.sleep(1)
        subscription.dispose()
        await asyncio.sleep(1)
    assert [] == logs
