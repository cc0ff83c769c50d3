# pyright: basic
# The types of redis-py commands are partial.
"""
Measures what busy and idle workers cost, and checks the formula for the server.

The formula computes the server's CPU per task from the number of calls that real workers make;
:func:`compare` puts it beside the CPU that was measured.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from contextlib import ExitStack
from typing import Any, Final

import attrs

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.growth.costs import Costs
from benchmarks.growth.formulas import SLOTS, server_share
from benchmarks.growth.roles import Child
from benchmarks.growth.server import US, MeasuredServer
from rxdispatch.boards.redis.keys import BoardKeys

__all__ = ["compare", "measure_workers"]

HERDS: Final = (1, 50, 200)
HERD: Final = "one task among idle workers"
WORKERS: Final = (1, 2, 4, 8)
TASKS: Final = {0.0: 80_000, 0.01: 14_000}
WARM: Final = 0.4
LONGEST: Final = 1.5
TOLERANCE: Final = 0.25

names = (f"workers-{number}" for number in itertools.count())


async def measure_workers(
    server: MeasuredServer, record: FigureRecord, found: dict[str, Any]
) -> dict[str, Any]:
    """Return the costs of handlers and of idle workers; *found* has the costs of calls."""
    return await _handlers(server, record, found) | await _idle_workers(server, record)


async def _handlers(
    server: MeasuredServer, record: FigureRecord, found: dict[str, Any]
) -> dict[str, Any]:
    """Measure a worker's CPU per task, less the CPU of its calls, which is known."""
    handlers: dict[str, float] = {}
    claim, settle = found["own_claim"], found["own_settle"]
    group = "client CPU a task"
    cases = {"own_handler": ("no-op", 0.0, 64, 12_000), "own_waiting": ("10 ms", 0.01, 64, 3_000)}
    with Child("work", server.url) as child:
        await child.ready()
        for name, (title, duration, slots, tasks) in cases.items():
            whole: list[float] = []
            rest: list[float] = []
            for number in range(3):
                board = server.hub.board(next(names))
                await board.submit(rxd.Task("x" * 20) for _ in range(tasks))
                start = await child.ask("go", board.name, duration, slots)
                await board.join()
                end = await child.ask("stop")
                own = (end["cpu"] - start["cpu"]) * US
                calls = claim.a * end["claims"] + settle.a * end["settles"]
                if number:
                    whole.append(own / tasks)
                    rest.append(max(1.0, (own - calls) / tasks - claim.b - settle.b))
            handlers[name] = statistics.median(rest)
            for what, each in (("pipeline", whole), ("handler and what is around it", rest)):
                record.add(f"{what}, {title}", statistics.median(each), "us",
                           group=group, low=min(each), high=max(each))  # fmt: skip
    return handlers


async def _idle_workers(server: MeasuredServer, record: FigureRecord) -> dict[str, Any]:
    """Measure idle workers, and a single task among them."""
    idle: dict[str, float] = {}
    quiet = await _quiet(server)
    for workers in HERDS:
        name = next(names)
        with Child("idle", server.url, name, workers) as child:
            await child.ready()
            if workers == HERDS[-2]:
                idle = await _idle(server, record, workers, quiet)
            await _herd(server, record, child, server.hub.board(name), workers, quiet)
    return idle


async def _quiet(server: MeasuredServer) -> float:
    """Return the server's CPU in a second without any call."""
    before = await server.cpu()
    await asyncio.sleep(1)
    return await server.cpu() - before


async def _idle(
    server: MeasuredServer, record: FigureRecord, workers: int, quiet: float
) -> dict[str, float]:
    seconds = 3.0
    before, scripts = await server.cpu(), await server.scripts()
    await asyncio.sleep(seconds)
    worked = (await server.cpu() - before) / seconds
    claims = (await server.scripts() - scripts) / seconds / workers
    each = max(0.0, worked - quiet) / workers
    group = f"{workers} idle workers, each"
    record.add("claims", claims, "1/s", group=group, budget="<= 2 commands a second")
    record.add("server CPU a second", each, "us", group=group)
    return {"idle_claims": claims, "idle_worker": each}


async def _herd(
    server: MeasuredServer,
    record: FigureRecord,
    child: Child,
    board: rxd.Board[str],
    workers: int,
    quiet: float,
) -> None:
    """Measure single tasks that find all workers idle."""
    # Long enough for all workers to become idle again.
    tasks, pause = 6, 0.2 + 0.003 * workers
    parked = BoardKeys.of("rxd", board.name).key("parked")
    while await server.redis.zcard(parked) < workers:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await asyncio.sleep(pause)
    own = (await child.ask("cpu"))["cpu"]
    cpu, scripts, start = await server.cpu(), await server.scripts(), time.perf_counter()
    for _ in range(tasks):
        await board.submit(rxd.Task("x" * 20))
        await asyncio.sleep(pause)
    quiet *= time.perf_counter() - start
    cpu, scripts = await server.cpu() - cpu - quiet, await server.scripts() - scripts
    own = ((await child.ask("cpu"))["cpu"] - own) * US
    record.control("a task among idle workers is done", (await board.counts()).done == tasks)
    # One script submits the task and one settles it; the others are polls, and few claims by which
    # a worker parks again.
    claims = max(0.0, scripts / tasks - 2)
    record.add("claims", claims, "", group=HERD, x=workers)
    record.add("server CPU", cpu / tasks, "us", group=HERD, x=workers)
    record.add("CPU of the workers", own / tasks, "us", group=HERD, x=workers)


@attrs.frozen(kw_only=True)
class Look:
    """What had been done by a moment: tasks, calls, and seconds of CPU."""

    at: float
    done: int
    claims: float
    settles: float
    server: float
    own: float


async def compare(server: MeasuredServer, costs: Costs, record: FigureRecord) -> None:
    """Measure 1 to 8 real workers, and the server's CPU a task beside the formula."""
    with ExitStack() as stack:
        crew = [stack.enter_context(Child("work", server.url)) for _ in range(max(WORKERS))]
        for child in crew:
            await child.ready()
        for duration, tasks in TASKS.items():
            for workers in WORKERS:
                first, last = await _run(server, crew[:workers], duration, tasks)
                _add(record, costs, "no-op" if not duration else "10 ms", workers, first, last)


def _add(
    record: FigureRecord, costs: Costs, case: str, workers: int, first: Look, last: Look
) -> None:
    done = last.done - first.done
    if not done:
        return  # On a busy machine the tasks may run out before the first look.
    claims, settles = (last.claims - first.claims) / done, (last.settles - first.settles) / done
    group, base = "real workers", f"{case}, server CPU a task"
    rate = done / (last.at - first.at)
    record.add(f"{case}, tasks a second", rate, "1/s", group=group, x=workers)
    measured = (last.server - first.server) * US / done
    record.add(base, measured, "us", group=group, x=workers, tasks_a_claim=1 / claims)
    computed = server_share(costs, claims, settles)
    # Only a busy server is judged: on a mostly idle server a call costs more, as caches are cold.
    busy = case == "no-op"
    record.add(
        f"{base}, by formula", computed, "us", group=group, x=workers, base=base,
        at_least=1 - TOLERANCE if busy else None, at_most=1 + TOLERANCE if busy else None,
    )  # fmt: skip
    own = (last.own - first.own) * US / done
    record.add(f"{case}, worker CPU a task", own, "us", group=group, x=workers)


async def _run(
    server: MeasuredServer, crew: list[Child], duration: float, tasks: int
) -> tuple[Look, Look]:
    """Return a first and a last look at workers that always have more to do."""
    board = server.hub.board(next(names))
    for _ in range(tasks // 5_000 + 1):
        await board.submit(rxd.Task("x" * 20) for _ in range(5_000))
    total = (await board.counts()).ready
    for child in crew:
        await child.ask("go", board.name, duration, SLOTS)
    await asyncio.sleep(WARM)
    first = await _look(server, board, crew)
    until = first.at + LONGEST
    while time.perf_counter() < until and (await board.counts()).done < 0.8 * total:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    last = await _look(server, board, crew)
    for child in crew:
        await child.ask("stop")
    await server.forget(board)
    return first, last


async def _look(server: MeasuredServer, board: rxd.Board[str], crew: list[Child]) -> Look:
    answers = [await child.ask("cpu") for child in crew]
    return Look(
        at=time.perf_counter(),
        done=(await board.counts()).done,
        claims=sum(answer["claims"] for answer in answers),
        settles=sum(answer["settles"] for answer in answers),
        server=await server.cpu() / US,
        own=sum(answer["cpu"] for answer in answers),
    )
