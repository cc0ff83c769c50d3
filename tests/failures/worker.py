"""
A worker process that runs one pipeline on one board and writes a journal.

:class:`tests.failures.fleet.Worker` starts it with one argument, the :class:`Orders` as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, Literal

import attrs
import reactivex
import structlog
from reactivex import Observable
from reactivex import operators as rx

import rxdispatch as rxd
from rxdispatch import operators as ops
from tests.failures.handlers import note

Until = Literal["never", "idle", "joined"]


@attrs.frozen(kw_only=True)
class Orders:
    """
    What the worker must do.

    Args:
        url: The server.
        board: The board's name.
        journal: The path of the journal, with a JSON object per line.
        name: The label of the worker.
        flow: ``claims`` takes all tasks, ``each`` races for *ids* once *go* exists, and ``raw``
            claims once, waits for *go* and settles without ever renewing.
        lease: The lease of a claim, in seconds.
        prefetch: How many claims it holds at a time.
        concurrent: How many handlers run at a time.
        until: When the stream of claims completes.
        ids: The ids to race for.
        go: A path to wait for.
    """

    url: str
    board: str
    journal: str
    name: str
    flow: Literal["claims", "each", "raw"] = "claims"
    lease: float = 1.0
    prefetch: int = 64
    concurrent: int = 4
    until: Until = "never"
    ids: list[str] = attrs.field(factory=list[str])
    go: str = ""


class Journal:
    """Appends events, each with the time, to a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, at: str, **facts: Any) -> None:
        """Append one line, which survives even if the process is killed next."""
        note(self._path, json.dumps({"at": at, "time": time.monotonic(), **facts}))

    def outcome(self, outcome: rxd.Outcome[Any, Any]) -> None:
        """Append the outcome of a claim."""
        claim = outcome.claim
        self.write("outcome", task=claim.task.id, token=claim.token, status=outcome.status)

    def log(self, _: Any, method: str, event: MutableMapping[str, Any]) -> str:
        """Append a log entry, as the last processor of structlog."""
        name = event.pop("event")
        self.write("log", event=name, level=method, **{k: str(v) for k, v in event.items()})
        raise structlog.DropEvent


async def handle(task: rxd.Task[dict[str, Any]], journal: Journal) -> str:
    """
    Do what the payload says.

    The payload is ``{"do": ..., "seconds": s}``. *do* is ``sleep``, ``block`` the loop, ``exit``
    the process, or ``stubborn``, which swallows its cancellation. After a crash a task does
    nothing, except that ``exit`` exits each time.
    """
    claim = rxd.current_claim()
    order = task.payload
    journal.write("start", task=task.id, token=claim.token, attempt=claim.attempt)
    if order["do"] == "exit":
        os._exit(3)
    if claim.crashes == 0:
        try:
            if order["do"] == "block":
                time.sleep(order["seconds"])  # noqa: ASYNC251 - on purpose
            else:
                await asyncio.sleep(order["seconds"])
        except asyncio.CancelledError:
            journal.write("cancelled", task=task.id, token=claim.token)
            if order["do"] != "stubborn":
                raise
    journal.write("end", task=task.id, token=claim.token)
    return task.id


async def appears(path: str) -> None:
    """Wait until a file exists."""
    while not Path(path).exists():
        await asyncio.sleep(0.002)


async def raw(board: rxd.Board[Any], orders: Orders, journal: Journal) -> None:
    """Claim once, and settle in each of the four ways when the file appears, without renewing."""
    claims = await board.claim(orders.prefetch, worker=orders.name, lease=orders.lease)
    journal.write("claimed", tasks=[claim.task.id for claim in claims])
    await appears(orders.go)
    ways: list[Callable[[rxd.Claim[Any]], rxd.Settlement]] = [
        lambda c: c.done(),
        lambda c: c.retry("late"),
        lambda c: c.dead("late"),
        lambda c: c.release(),
    ]
    settlements = [ways[i % 4](claim) for i, claim in enumerate(claims)]
    journal.write("lost", answers=[claim.lost for claim in claims])
    journal.write("settled", answers=await board.settle(settlements))
    lost = await board.renew(claims, orders.lease)
    journal.write("renewed", lost=[claim.task.id for claim in lost])


def claims_of(board: rxd.Board[Any], orders: Orders) -> Observable[rxd.Claim[Any]]:
    """Return the source of the pipeline."""
    if orders.flow == "each":
        # Ids come one by one, as from a broadcast.
        scheduler = rxd.LoopScheduler(asyncio.get_running_loop())
        return reactivex.interval(0.002, scheduler=scheduler).pipe(
            rx.take(len(orders.ids)),
            rx.map(orders.ids.__getitem__),
            ops.claim_each(board, lease=orders.lease, worker=orders.name),
        )
    return board.claims(
        prefetch=orders.prefetch, lease=orders.lease, worker=orders.name, until=orders.until
    )


async def work(orders: Orders, journal: Journal) -> None:
    """Connect, run the flow, and leave."""
    async with rxd.connect(orders.url) as hub:
        board: rxd.Board[Any] = hub.board(orders.board)
        journal.write("ready", pid=os.getpid())
        if orders.flow == "raw":
            await raw(board, orders, journal)
            return
        if orders.go:
            await appears(orders.go)

        async def handler(task: rxd.Task[Any]) -> str:
            return await handle(task, journal)

        await rxd.run(
            claims_of(board, orders).pipe(
                ops.execute(handler, max_concurrent=orders.concurrent),
                ops.settle(board),
                rx.do_action(journal.outcome),
            )
        )


def main() -> None:
    """Follow the orders, which are the only argument."""
    orders = Orders(**json.loads(sys.argv[1]))
    journal = Journal(orders.journal)
    structlog.configure(processors=[journal.log])
    try:
        asyncio.run(work(orders, journal))
    except KeyboardInterrupt:
        journal.write("interrupted")
    journal.write("left")


if __name__ == "__main__":
    main()
