# pyright: basic
# pytest-benchmark has no types.
"""
What do 1,000 and 100,000 tasks take by status marks, by a queue and by a lock?

A table of seconds, peak of CPU, memory and the tasks done twice; seconds are compared with a
``multiprocessing.Queue``. Each way is measured in a process of its own with four workers, or with
none if one process does all, as with ``MemoryBoard`` and ``asyncio.Queue``. A task is 27 bytes of
MessagePack; a worker decodes it and adds one to its counter in shared memory.

- ``s`` is from the first take to the last. All workers begin at an agreed moment, at the same task,
  so that they collide as often as possible. By then the processes have started and the tasks have
  been put, which took ``fill`` seconds; a ``SimpleQueue`` is filled while they work.
- ``cpu_peak`` is the highest use in any tenth of a second, in percent of one core, or the mean if
  that is higher, as in rounds that take less time; ``cpu_seconds`` is the whole. Workers, server,
  manager and feeder all count.
- ``memory_mib`` is how much more memory the processes use at their peak in the first round than the
  first process used before it made tasks and workers. What they share counts once; programs and
  libraries do not count.
- ``twice`` and ``missing`` are tasks of all rounds; only ``confirm n`` may have any. With it a
  worker reads the mark, writes its own, reads it again *n* times (``status_retry_count``), and goes
  on if the mark is still its own.

The seconds are those of the best round.
"""

from __future__ import annotations

import sys

import attrs
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.dispatch_ways.boards import CLAIMED, InMemory, InSharedMemory, OnRedis
from benchmarks.dispatch_ways.dispatch_way import WORKERS, DispatchWay
from benchmarks.dispatch_ways.managed import ManagedMarks, ManagedPop
from benchmarks.dispatch_ways.marks import Confirmed, Locked, Swapped
from benchmarks.dispatch_ways.measurement import WayMeasurement
from benchmarks.dispatch_ways.queues import LoopQueue, PlainQueue, ProcessQueue
from benchmarks.dispatch_ways.runs import PAYLOAD_SIZE
from benchmarks.figures.record import FigureRecord

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="shared memory and CPU clocks of other processes need Linux"
)

QUEUE = "multiprocessing.Queue, one at a time"
ROUNDS = {1_000: 3, 100_000: 2}
FEW = 200


@attrs.frozen
class WayCase:
    """
    A row of the table.

    Attributes:
        name: Its name.
        way: The way to dispatch.
        exact: Whether every task must be done once.
        slow: Whether 100,000 tasks are done in one round only.
        most: The largest number of tasks.
        at_most: The budget for 100,000 tasks, relative to the queue.
    """

    name: str
    way: DispatchWay
    exact: bool = True
    slow: bool = False
    most: int = 100_000
    at_most: float | None = None


CASES = [
    WayCase(QUEUE, ProcessQueue()),
    WayCase("multiprocessing.Queue, lists of 64", ProcessQueue(64)),
    WayCase("multiprocessing.SimpleQueue", PlainQueue()),
    WayCase("asyncio.Queue, one process", LoopQueue()),
    WayCase("multiprocessing.Lock around marks", Locked()),
    WayCase("Manager().list(), pop", ManagedPop(), slow=True),
    WayCase("Manager().list() of marks under a Lock", ManagedMarks(), most=1_000),
    WayCase("marks, confirm 0", Confirmed(0), exact=False),
    WayCase("marks, confirm 1", Confirmed(1), exact=False),
    WayCase("marks, confirm 3", Confirmed(3), exact=False),
    WayCase("marks, compare-and-swap", Swapped(), at_most=0.10),
    WayCase("MemoryBoard, claims | execute | settle", InMemory(), slow=True),
    WayCase("SharedMemoryBoard", InSharedMemory(), slow=True, at_most=0.25),
    WayCase("board on an embedded server", OnRedis(), slow=True),
]


@pytest.fixture(scope="module", autouse=True)
def settings(record: FigureRecord) -> None:
    """Note the settings that the figures depend on."""
    record.note(workers=WORKERS, payload_bytes=PAYLOAD_SIZE, claimed_at_once=CLAIMED)
    record.note(rounds={f"{count:,} tasks": rounds for count, rounds in ROUNDS.items()})
    record.note(one_round_of_100_000=[case.name for case in CASES if case.slow])
    record.note(not_with_100_000=[case.name for case in CASES if case.most < 100_000])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("count", ROUNDS)
def bench_way(benchmark: BenchmarkFixture, record: FigureRecord, case: WayCase, count: int) -> None:
    """One way with *count* tasks."""
    if count > case.most:
        pytest.skip("it takes too long")
    large, group = count == 100_000, f"{count:,} tasks"
    benchmark.group = group
    with WayMeasurement(case.way, FEW if benchmark.disabled else count) as measurement:
        benchmark.pedantic(
            measurement.run,
            setup=measurement.prepare,
            rounds=1 if large and case.slow else ROUNDS[count],
        )
        measurement.finish()
    twice = sum(measured.twice for measured in measurement.rounds)
    missing = sum(measured.missing for measured in measurement.rounds)
    if case.exact:
        record.control("every task was done once, but by confirmed marks", twice == missing == 0)
    if benchmark.stats is None:
        return
    base = QUEUE if measured_before(record, group) else None
    best = min(measurement.rounds, key=lambda measured: measured.seconds)
    record.add(
        case.name,
        best.seconds,
        "s",
        group=group,
        base=base,
        at_most=case.at_most if large and base else None,
        fill=best.fill,
        cpu_peak=best.cpu_peak,
        cpu_seconds=best.cpu,
        memory_mib=measurement.rounds[0].memory,
        twice=twice,
        missing=missing,
    )


def measured_before(record: FigureRecord, group: str) -> bool:
    """Return whether the queue was measured; ``-k`` may have left it out."""
    return any((row.case, row.group) == (QUEUE, group) for row in record.rows)
