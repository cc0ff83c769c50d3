"""
What do metrics and traces cost a task?

Tasks go through ``claims | execute | settle``, on a ``MemoryBoard`` and on the embedded server,
without telemetry, with metrics, and with traced handlers; all in turn, so that noise of the machine
affects all. The figures are the median time of a task, and its ratio to the time without telemetry.
Tasks are submitted before the clock starts. Handlers do nothing, or work for 1 ms.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import attrs
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from prometheus_client import CollectorRegistry

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.nodes.fleet import note_server
from rxdispatch import operators as ops

PACKAGES = ("prometheus-client", "opentelemetry-sdk")
ROUNDS = 3
NOTHING = "nothing"

Handler = Callable[[rxd.Task[int]], Any]


@attrs.frozen
class TelemetryCase:
    """The instruments that are switched on."""

    name: str
    metrics: bool = False
    events: bool = False
    spans: bool = False
    share: float | None = None


CASES = (
    TelemetryCase(NOTHING),
    TelemetryCase("metrics", metrics=True),
    TelemetryCase("metrics, events counted here", metrics=True, events=True),
    TelemetryCase("traced, API alone", spans=True),
    TelemetryCase("metrics, 1 % of traces", metrics=True, spans=True, share=0.01),
    TelemetryCase("metrics, all traces", metrics=True, spans=True, share=1.0),
)
JUDGED = ("metrics", "metrics, 1 % of traces", "metrics, all traces")


async def idle(_: rxd.Task[int]) -> None:
    """Do nothing."""


async def busy(_: rxd.Task[int]) -> None:
    """Work for 1 ms."""
    until = time.perf_counter() + 0.001
    while time.perf_counter() < until:
        pass


HANDLERS: dict[str, tuple[Handler, int]] = {
    "no-op handler": (idle, 3_000),
    "handler of 1 ms": (busy, 300),
}
SERVERS = {"MemoryBoard": "memory://", "embedded server": None}


async def cost(case: TelemetryCase, handler: Handler, board: rxd.Board[Any], count: int) -> float:
    """Return microseconds per task."""
    # The public API sets a provider once; here it changes from round to round.
    provider: Any = trace.NoOpTracerProvider()
    if case.share is not None:
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(case.share)))
    tracer = provider.get_tracer("bench")
    work = _with(provider, handler) if case.spans else handler
    tasks = [rxd.Task(n) for n in range(count)]
    if case.share is not None:
        for at, task in enumerate(tasks):
            with tracer.start_as_current_span("submit"):
                tasks[at] = rxd.inject_trace(task)
    async with AsyncExitStack() as stack:
        if case.metrics:
            metrics = await stack.enter_async_context(rxd.Metrics(CollectorRegistry()))
            metrics.watch_board(board, events=case.events)
            metrics.watch_meters(rxd.measurements)
        await board.submit(tasks)
        start = time.perf_counter()
        await rxd.run(board.claims(until="idle").pipe(ops.execute(work), ops.settle(board)))
        return (time.perf_counter() - start) / count * 1e6


def _with(provider: Any, handler: Handler) -> Handler:
    from rxdispatch.telemetry import tracing  # noqa: PLC0415 - to exchange what it uses

    api = tracing._api()
    made = api._replace(tracer=provider.get_tracer("rxdispatch"))
    tracing._api = lambda: made  # type: ignore[assignment]
    return rxd.traced(handler)


async def measure(
    record: FigureRecord, group: str, handler: Handler, count: int, url: str | None
) -> None:
    """Record the table of one handler on one board."""
    found: dict[str, list[float]] = {case.name: [] for case in CASES}
    async with rxd.connect(url) as hub:
        for round_ in range(ROUNDS):
            for at, case in enumerate(CASES):
                board = hub.board(f"board-{round_}-{at}")
                found[case.name].append(await cost(case, handler, board, count))
                done = (await board.counts()).done
                record.control("every task was settled once", done == count)
        if url is None:
            await note_server(record, hub)
    for name, times in found.items():
        record.add(
            name,
            statistics.median(times),
            "us",
            group=group,
            base=None if name == NOTHING else NOTHING,
            at_most=1.10 if name in JUDGED else None,
        )


@pytest.mark.parametrize("where", SERVERS)
@pytest.mark.parametrize("about", HANDLERS)
def bench_telemetry(record: FigureRecord, about: str, where: str) -> None:
    """All cases in turn, by handler and board."""
    record.note(rounds=ROUNDS)
    handler, count = HANDLERS[about]
    asyncio.run(measure(record, f"{about}, {where}", handler, count, SERVERS[where]))
