"""The process of a measurement, which runs round after round of one way to dispatch."""

from __future__ import annotations

import contextlib
import copy
import gc
import signal
import sys
import time
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from benchmarks.dispatch_ways.dispatch_way import DispatchWay
from benchmarks.dispatch_ways.forked_workers import ForkedWorkers
from benchmarks.dispatch_ways.orphans import end_with_parent
from benchmarks.dispatch_ways.runs import Runs
from benchmarks.dispatch_ways.timed_turn import Spent, TimedTurn, wait_until
from benchmarks.support.usage import cpu_seconds

__all__ = ["stage"]


def stage(line: Connection[Any, Any], way: DispatchWay, count: int) -> None:
    """
    Run rounds as long as the measurement asks for them.

    For each round, messages go over *line*, alternately to this process and back: anything, as a
    request; the seconds of filling; the moment to begin; the
    :class:`~benchmarks.dispatch_ways.timed_turn.Spent` of the round; anything, once memory was
    read; how many tasks were done twice, and how many never.
    """
    end_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGTERM, _leave)
    runs = Runs(count)
    runs.clear()
    way.count = count
    # Otherwise each fork would copy memory that it never uses.
    gc.collect()
    gc.freeze()
    line.send(None)
    with contextlib.suppress(EOFError):
        while True:
            line.recv()
            runs.clear()
            _round(line, copy.copy(way), runs)
            line.send(runs.twice_and_missing())


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _round(line: Connection[Any, Any], way: DispatchWay, runs: Runs) -> None:
    try:
        way.prepare()
        with ForkedWorkers(way, runs) as crew:
            begun = time.monotonic()
            way.fill()
            filled = time.monotonic() - begun
            if way.workers == 0:
                way.work(TimedTurn(line, ready=filled), runs)
                return
            line.send(filled)
            moment = line.recv()
            crew.begin(moment)
            line.send(_timed(way, crew, moment))
            line.recv()
    finally:
        way.close()


def _timed(way: DispatchWay, crew: ForkedWorkers, moment: float) -> Spent:
    others, mine = _cpu(way), time.process_time()
    wait_until(moment)
    way.feed()
    all_spent = crew.spent()
    cpu = _cpu(way) - others + time.process_time() - mine
    return Spent(
        min(spent.begun for spent in all_spent),
        max(spent.ended for spent in all_spent),
        cpu + sum(spent.cpu for spent in all_spent),
    )


def _cpu(way: DispatchWay) -> float:
    return sum(cpu_seconds(pid) for pid in way.servers())
