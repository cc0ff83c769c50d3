# pyright: basic
# The types of redis-py commands are partial.
"""What fits this machine, simulated and measured: the control of the simulation."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import ExitStack
from typing import Final

import attrs
import psutil

import rxdispatch as rxd
from benchmarks.figures.record import Record
from benchmarks.growth.child import Child
from benchmarks.growth.costs import Costs
from benchmarks.growth.measure import HERD, HERDS, US, Server, herd_pause
from benchmarks.growth.simulation import run_board

__all__ = ["validate"]

GROUP: Final = "simulated beside measured"
TOLERANCE: Final = 0.25
WORKERS: Final = (1, 2, 4, 8)
TASKS: Final = {0.0: 40_000, 0.01: 14_000}
WARM: Final = 0.4
LONGEST: Final = 1.5


@attrs.frozen(kw_only=True)
class _Real:
    """A window of a real run: tasks a second, microseconds a task, cores that were to be had."""

    rate: float
    server: float
    own: float
    cores: float


async def validate(server: Server, costs: Costs, record: Record) -> float:
    """
    Run the scenarios that fit here, for real and simulated.

    Returns:
        The largest error of a rate, as a share of what was measured.
    """
    _herds(costs, record)
    worst = 0.0
    with ExitStack() as stack:
        crew = [stack.enter_context(Child("work", server.url)) for _ in range(max(WORKERS))]
        for child in crew:
            await child.ready()
        for duration, tasks in TASKS.items():
            for workers in WORKERS:
                real = await _run(server, crew[:workers], duration, tasks)
                made = run_board(
                    costs,
                    workers=workers,
                    duration=duration,
                    cores=real.cores,
                    wire=costs.wire / US,
                    lasting=False,
                    warm=WARM,
                )
                case = "no-op" if not duration else f"{duration * 1000:g} ms"
                pairs = [
                    ("tasks a second", "1/s", real.rate, made.rate),
                    ("server CPU a task", "us", real.server, made.server),
                    ("worker CPU a task", "us", real.own, made.own),
                ]
                for what, unit, measured, simulated in pairs:
                    title = f"{case}, {what}"
                    error = simulated / measured - 1
                    record.add(f"{title}, measured", measured, unit, group=GROUP, x=workers,
                               cores=real.cores)  # fmt: skip
                    record.add(f"{title}, simulated", simulated, unit, group=GROUP, x=workers,
                               base=f"{title}, measured",
                               budget=f"within {TOLERANCE:.0%}", error=error)  # fmt: skip
                worst = max(worst, abs(made.rate / real.rate - 1))
    return worst


def _herds(costs: Costs, record: Record) -> None:
    """Simulate single tasks among idle workers, which were measured with the costs."""
    for workers in HERDS:
        pause = herd_pause(workers)
        made = run_board(
            costs,
            workers=workers,
            rate=1 / pause,
            cores=os.cpu_count() or 1,
            wire=costs.wire / US,
            together=True,
            lasting=False,
            warm=2.5,
            window=40 * pause,
        )
        for what, unit, value in (
            ("claims", "", made.claims),
            ("server CPU", "us", made.server),
            ("CPU of the workers", "us", made.own),
        ):
            record.add(f"{what}, simulated", value, unit, group=HERD, x=workers,
                       base=f"{what}, measured", budget=f"within {TOLERANCE:.0%}")  # fmt: skip


async def _run(server: Server, crew: list[Child], duration: float, tasks: int) -> _Real:
    """Let real workers work, and look at a window of it."""
    board = server.hub.board(f"validation-{duration}-{len(crew)}")
    for _ in range(tasks // 5_000 + 1):
        await board.submit(rxd.Task("x" * 20) for _ in range(5_000))
    total = (await board.counts()).ready
    for child in crew:
        await child.ask("go", board.name, duration, 16)
    await asyncio.sleep(WARM)
    first = await _look(server, board, crew)
    until = first.at + LONGEST
    for _ in range(100):
        await asyncio.sleep(0.05)
        if time.perf_counter() > until or (await board.counts()).done > 0.8 * total:
            break
    last = await _look(server, board, crew)
    for child in crew:
        await child.ask("stop")
    await server.forget(board)
    seconds, done = last.at - first.at, last.done - first.done
    ours = (last.server - first.server) + (last.own - first.own)
    others = max(0.0, (last.busy - first.busy) - ours - (last.me - first.me))
    return _Real(
        rate=done / seconds,
        server=(last.server - first.server) * US / done,
        own=(last.own - first.own) * US / done,
        # What everybody else computes meanwhile is not to be had.
        cores=max(0.1, (os.cpu_count() or 1) - (others + last.me - first.me) / seconds),
    )


@attrs.frozen(kw_only=True)
class _Look:
    """Seconds of CPU, and what is done, at a moment."""

    at: float
    done: int
    server: float
    own: float
    me: float
    busy: float


async def _look(server: Server, board: rxd.Board[str], crew: list[Child]) -> _Look:
    own = [(await child.ask("cpu"))["cpu"] for child in crew]
    times = psutil.cpu_times()
    return _Look(
        at=time.perf_counter(),
        done=(await board.counts()).done,
        server=await server.cpu() / US,
        own=sum(own),
        me=time.process_time(),
        busy=sum(times[:8]) - times.idle - getattr(times, "iowait", 0.0),
    )
