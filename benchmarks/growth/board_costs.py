# pyright: basic
# The types of redis-py commands are partial.
"""Measures what the calls of a board cost a server, and the memory of tasks that wait."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Awaitable, Callable
from typing import Any, Final

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.growth.roles import Child
from benchmarks.growth.server import MeasuredServer, Points, spent

__all__ = ["measure_board"]

SIZES: Final = (1, 16, 64, 256, 1000)
CALLS: Final = {1: 150, 16: 50, 64: 20, 256: 8, 1000: 3}
ROUNDS: Final = 3
LISTENERS: Final = (0, 1, 10, 50, 200)
WAITING: Final = 100_000

names = (f"growth-{number}" for number in itertools.count())


async def measure_board(server: MeasuredServer, record: FigureRecord) -> dict[str, Any]:
    """Return the costs of calls, of wake-ups and of waiting tasks."""
    found = await _calls(server, record)
    found |= await _nothing(server, record)
    found |= await _hints(server, record)
    return found | await _memory(server, record)


async def _calls(server: MeasuredServer, record: FigureRecord) -> dict[str, Any]:
    """Measure the calls of a board by the number of tasks."""
    board = server.hub.board(next(names))
    points, own = Points(), Points()
    for number, size in itertools.product(range(-1, ROUNDS), SIZES):
        calls = CALLS[size] if number >= 0 else 2
        made = [[rxd.Task("x" * 20) for _ in range(size)] for _ in range(calls)]
        steps: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "submit": board.submit,
            "claim": lambda tasks: board.claim(len(tasks)),
            "renew": lambda claims: board.renew(claims, 30.0),
            "settle": lambda claims: board.settle([claim.done() for claim in claims]),
        }
        inputs: list[Any] = made
        for name, step in steps.items():
            cpu, ours, results = await spent(server, [step(given) for given in inputs])
            inputs = results if name == "claim" else inputs
            if number >= 0:
                points.add(name, size, cpu)
                own.add(name, size, ours)
    counts = await board.counts()
    record.control("every measured task was settled", counts == rxd.Counts(0, 0, 0, counts.done, 0))
    points.show(record, "server CPU a call, by tasks in it")
    own.show(record, "client CPU a call, by tasks in it")
    lines = {name: points.line(name) for name in ("submit", "claim", "settle", "renew")}
    return lines | {f"own_{name}": own.line(name) for name in ("claim", "settle")}


async def _nothing(server: MeasuredServer, record: FigureRecord) -> dict[str, Any]:
    """Measure claims that find nothing."""
    board = server.hub.board(next(names))
    alone: list[float] = []
    for _ in range(ROUNDS):
        cpu, _, _ = await spent(server, [board.claim(1) for _ in range(200)])
        alone.append(cpu)
    nothing = statistics.median(alone)
    group = "server CPU of calls that find nothing"
    record.add("a claim", nothing, "us", group=group, low=min(alone), high=max(alone))
    return {"nothing": nothing}


async def _hints(server: MeasuredServer, record: FigureRecord) -> dict[str, Any]:
    """Measure a wake-up by the number of listeners."""
    points = Points()
    with Child("listen", server.path, "hints") as child:
        await child.ready()
        for count in LISTENERS:
            await child.ask(count)
            for number in range(ROUNDS):
                steps = [server.redis.publish("hints", b"r") for _ in range(60 if number else 5)]
                cpu, _, results = await spent(server, steps)
                assert results[-1] == count
                if number:
                    points.add("PUBLISH", count, cpu)
    points.show(record, "server CPU of a wake-up, by listeners")
    return {"hint": points.line("PUBLISH")}


async def _memory(server: MeasuredServer, record: FigureRecord) -> dict[str, Any]:
    """Measure the bytes of waiting tasks, and whether a claim costs more when more tasks wait."""
    board = server.hub.board(next(names))
    reply = await _reply_bytes(server)
    group = "server CPU to claim 64, by tasks that wait"
    before = await server.memory()
    kept = await server.redis.dbsize()
    depth = 0
    for target in (1_000, 10_000, WAITING):
        while depth < target:
            step = min(10_000, target - depth)
            await board.submit([rxd.Task("x" * 20) for _ in range(step)])
            depth += step
        waiting = await server.memory() - before
        found: list[float] = []
        for _ in range(ROUNDS):
            cpu, _, results = await spent(server, [board.claim(64) for _ in range(4)])
            found.append(cpu)
            await board.settle([claim.done() for claims in results for claim in claims])
            depth -= sum(map(len, results))
        record.add(
            "claim",
            statistics.median(found),
            "us",
            group=group,
            x=target,
            low=min(found),
            high=max(found),
        )
    grown = await server.redis.dbsize() - kept
    await server.forget(board)
    bytes_each = (waiting - reply * grown) / WAITING
    group = "memory of the server"
    record.add("a waiting task", bytes_each, "B", group=group, budget="<= 240 B")
    record.add("a reply that is kept for a minute", reply, "B", group=group)
    return {"task_bytes": bytes_each, "reply_bytes": reply}


async def _reply_bytes(server: MeasuredServer) -> float:
    """Return the bytes of the reply that an empty claim leaves for a minute."""
    board = server.hub.board(next(names))
    calls = 2_000
    await board.claim(0)
    before = await server.memory()
    for _ in range(calls):
        await board.claim(0)
    return (await server.memory() - before) / calls
