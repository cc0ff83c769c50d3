# pyright: basic
# pytest-benchmark has no types.
"""
What does a task cost when a million tasks wait, beside when a thousand do?

One board for each depth is filled, which is not measured. Each round then submits, claims and
settles 2,560 tasks on each board in turn, 256 at a time, so that the depth stays the same; the cost
is the sum of the three, in microseconds per task, best of the rounds. *server* is the CPU time that
a server reports. In a whole pipeline each settled task is followed by a new one. Beside them the
same is done to the structures of the server and of Python: lists, sorted sets, a sorted set with a
hash, deque and heap. What those cost more when they are large is the cost of the store, not of the
board.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import attrs
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from reactivex import operators as rx

import rxdispatch as rxd
from benchmarks.figures.machine import server_version
from benchmarks.figures.record import FigureRecord
from benchmarks.support import task_queues
from benchmarks.support.task_queues import CHUNK, PAYLOAD, Line
from rxdispatch import operators as ops
from rxdispatch.store.client import Client
from tests.servers import system_redis

DEPTHS = (1_000, 10_000, 100_000, 1_000_000)
CHUNKS = 10
TASKS = CHUNK * CHUNKS
ROUNDS = 4
LIMIT = 1.3
SPARE = 16_384

#: Filling a board with a million tasks takes longer than the default allows.
pytestmark = pytest.mark.timeout(600)

STEPS = ("submit", "claim", "settle")
LINE = "submit, claim and settle"
PIPELINE = "whole pipeline"

SPAWN = multiprocessing.get_context("spawn")

Boards = Mapping[int, rxd.Board[str]]
Cpu = tuple[float, float]


@attrs.frozen
class Cost:
    """Microseconds per task in one round: by the clock, and CPU of client and server."""

    steps: tuple[float, ...]
    client: float
    server: float

    @property
    def cpu(self) -> float:
        """The CPU of both."""
        return self.client + self.server

    @property
    def total(self) -> float:
        """The time of all steps."""
        return sum(self.steps)

    def parts(self) -> dict[str, float]:
        """Return its parts by name."""
        steps = dict(zip(STEPS, self.steps, strict=True)) if len(self.steps) > 1 else {}
        parts = steps | {"client": self.client, "server": self.server}
        return {name: part for name, part in parts.items() if part}


class Measured:
    """
    The costs of all rounds.

    Args:
        client: A client of the server whose CPU is recorded, if there is one.
    """

    def __init__(self, client: Any = None) -> None:
        self._client = client
        self._curves: dict[tuple[str, str], dict[int, list[Cost]]] = {}

    async def _cpu(self) -> tuple[float, float]:
        """Return the CPU seconds so far, of this process and of the server."""
        if self._client is None:
            return time.process_time(), 0.0
        info = await self._client.redis.info("cpu")
        return time.process_time(), float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    async def line(self, case: str, depth: int, line: Line) -> None:
        """Put, take and end tasks."""
        before = await self._cpu()
        took = await task_queues.walk(line, CHUNKS)
        self._keep(LINE, case, depth, took, before, await self._cpu())

    async def pipeline(self, case: str, depth: int, board: rxd.Board[str]) -> None:
        """Run tasks through a pipeline, each followed by a new one."""
        before = await self._cpu()
        begun = time.perf_counter()
        await rxd.run(
            board.claims(prefetch=2 * CHUNK).pipe(
                ops.execute(nothing, max_concurrent=64),
                ops.settle(board),
                rx.take(TASKS),
                rx.map(lambda _: rxd.Task(PAYLOAD)),
                ops.submit(board),
            )
        )
        took = time.perf_counter() - begun
        self._keep(PIPELINE, case, depth, [took], before, await self._cpu())
        await board._intakes.finished()
        # The pipeline settles more tasks than it submits again.
        ready = (await board.counts()).ready
        await board.submit([rxd.Task(PAYLOAD) for _ in range(depth - ready)])

    def _keep(
        self, group: str, case: str, depth: int, took: list[float], before: Cpu, after: Cpu
    ) -> None:
        each = 1e6 / TASKS
        steps = tuple(seconds * each for seconds in took)
        client, server = ((end - begin) * each for begin, end in zip(before, after, strict=True))
        costs = self._curves.setdefault((group, case), {}).setdefault(depth, [])
        costs.append(Cost(steps, client, server))

    def add(
        self, record: FigureRecord, group: str, case: str, base: str | None, limit: float | None
    ) -> None:
        """Record the curve of a case, and how far apart its ends are."""
        curve = self._curves[group, case]
        best = {depth: min(costs, key=lambda cost: cost.total) for depth, costs in curve.items()}
        for depth, cost in best.items():
            median = statistics.median(one.total for one in curve[depth])
            more: dict[str, Any] = cost.parts() | {"median": median}
            record.add(case, cost.total, "us", group=group, x=depth, base=base, **more)
        few, many = (curve[depth] for depth in (min(curve), max(curve)))
        pairs = list(zip(few, many, strict=True))
        apart = f"1M against 1k: {group}"
        record.add(f"{case}, 1k", best[min(curve)].total, "us", group=apart)
        record.add(
            f"{case}, 1M",
            best[max(curve)].total,
            "us",
            group=apart,
            base=f"{case}, 1k",
            at_most=limit,
            median_ratio=statistics.median(b.total / a.total for a, b in pairs),
            cpu_ratio=statistics.median(b.cpu / a.cpu for a, b in pairs),
        )


async def nothing(_: rxd.Task[str]) -> None:
    """Do nothing."""


def compare(
    benchmark: BenchmarkFixture,
    record: FigureRecord,
    runner: asyncio.Runner,
    kinds: Mapping[str, Boards],
    bare: Mapping[str, Mapping[int, Line]],
    client: Client | None = None,
) -> None:
    """Measure boards of several depths and their baselines in turn."""
    measured = Measured(client)
    depths = list(next(iter(kinds.values())))

    async def turn() -> None:
        for depth in depths:
            for name, curve in bare.items():
                await measured.line(name, depth, curve[depth])
            for case, boards in kinds.items():
                await measured.line(case, depth, task_queues.on_board(boards[depth]))
                await measured.pipeline(case, depth, boards[depth])

    benchmark.pedantic(lambda: runner.run(turn()), rounds=ROUNDS)
    for boards in kinds.values():
        for depth, board in boards.items():
            counts = runner.run(board.counts())
            held = (counts.ready, counts.claimed, counts.dead) == (depth, 0, 0)
            record.control("every board is as deep as it was", held)
    if benchmark.stats is None:
        return
    for name in bare:
        measured.add(record, LINE, name, None, None)
    for case in kinds:
        measured.add(record, LINE, case, list(bare)[-1], LIMIT)
        measured.add(record, PIPELINE, case, None, LIMIT)


def fill_shared(names: Mapping[int, str]) -> None:
    """Fill boards in shared memory, in another process."""
    for depth, name in names.items():
        with rxd.SharedMemoryBoard[str].attach(name) as board:
            asyncio.run(task_queues.fill_board(board, depth))


@attrs.frozen
class Filled:
    """Boards by kind and depth, and their baselines."""

    boards: dict[str, Boards]
    bare: dict[str, dict[str, dict[int, Line]]]


async def bare_lines(
    kind: str, client: Client, depths: Iterable[int]
) -> dict[str, dict[int, Line]]:
    """Return the structures of a server, filled."""
    makers = {
        f"list of {kind}": task_queues.list_line,
        f"sorted set of {kind}": task_queues.set_line,
        f"sorted set and hash of {kind}": task_queues.set_and_hash_line,
    }
    return {
        name: {depth: await maker(client, f"{maker.__name__}-{depth}", depth) for depth in depths}
        for name, maker in makers.items()
    }


async def version(hub: rxd.Hub) -> str:
    """Return the name and version of a hub's server."""
    redis: Any = hub.client.redis
    return server_version(await redis.info("server"))


@pytest.fixture(scope="module")
def depths(request: pytest.FixtureRequest) -> tuple[int, ...]:
    """The depths; only a thousand if nothing is measured."""
    return DEPTHS if not request.config.getoption("benchmark_disable") else DEPTHS[:1]


@pytest.fixture(scope="module")
def redis_hub(runner: asyncio.Runner, record: FigureRecord) -> Iterator[rxd.Hub | None]:
    """A hub on the Redis of the system, on a unix socket like the embedded server; or None."""
    if shutil.which("redis-server") is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/redis.sock"
        with system_redis(options={"unixsocket": path}):
            hub = rxd.connect(f"unix://{path}")
            runner.run(hub.__aenter__())
            record.note(redis=runner.run(version(hub)))
            yield hub
            runner.run(hub.__aexit__(None, None, None))


@pytest.fixture(scope="module", autouse=True)
def filled(
    depths: tuple[int, ...],
    hub: rxd.Hub,
    redis_hub: rxd.Hub | None,
    runner: asyncio.Runner,
    record: FigureRecord,
) -> Iterator[Filled]:
    """All filled boards that live outside of this process, and their baselines."""
    record.note(
        x="tasks waiting", payload=len(PAYLOAD), at_a_time=CHUNK, tasks=TASKS, rounds=ROUNDS
    )
    with ExitStack() as stack:
        shared = {
            depth: rxd.SharedMemoryBoard[str].create(
                f"bench-depth-{os.getpid()}-{depth}", capacity=depth + SPARE
            )
            for depth in depths
        }
        for made in shared.values():
            stack.callback(made.close)
            stack.callback(made.unlink)
        names = {depth: board.name for depth, board in shared.items()}
        filling = SPAWN.Process(target=fill_shared, args=(names,), daemon=True)
        stack.callback(filling.join)
        stack.callback(filling.kill)
        filling.start()
        found = Filled({"shared": shared}, {})
        for kind, server in (("Valkey", hub), ("Redis", redis_hub)):
            if server is not None:
                boards: Boards = {depth: server.board(f"depth-{depth}") for depth in depths}
                for depth, board in boards.items():
                    runner.run(task_queues.fill_board(board, depth))
                found.boards[kind] = boards
                found.bare[kind] = runner.run(bare_lines(kind, server.client, depths))
        filling.join()
        assert filling.exitcode == 0
        for made in shared.values():
            made.unlink()
        yield found


@pytest.mark.parametrize("kind", ["Valkey", "Redis"])
@pytest.mark.benchmark(group="depth")
def bench_server(
    benchmark: BenchmarkFixture,
    record: FigureRecord,
    runner: asyncio.Runner,
    filled: Filled,
    hub: rxd.Hub,
    redis_hub: rxd.Hub | None,
    kind: str,
) -> None:
    """Boards on a server, beside its lists, sorted sets and hashes."""
    server = hub if kind == "Valkey" else redis_hub
    if server is None:
        pytest.skip("needs redis-server")
    boards = {f"board on {kind}": filled.boards[kind]}
    compare(benchmark, record, runner, boards, filled.bare[kind], server.client)


@pytest.mark.benchmark(group="depth")
def bench_memory(
    benchmark: BenchmarkFixture,
    record: FigureRecord,
    runner: asyncio.Runner,
    filled: Filled,
    depths: tuple[int, ...],
) -> None:
    """Boards of this process and in shared memory, beside a deque and a heap."""
    boards: Boards = {depth: rxd.MemoryBoard(f"depth-{depth}") for depth in depths}
    for depth, board in boards.items():
        runner.run(task_queues.fill_board(board, depth))
    bare = {
        "deque": {depth: task_queues.deque_line(depth) for depth in depths},
        "heapq": {depth: task_queues.heap_line(depth) for depth in depths},
    }
    kinds = {"MemoryBoard": boards, "SharedMemoryBoard": filled.boards["shared"]}
    compare(benchmark, record, runner, kinds, bare)
