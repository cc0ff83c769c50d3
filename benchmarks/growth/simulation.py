"""Scenarios in virtual time: boards with their workers, and the heartbeats of a fleet."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from benchmarks.growth.board import US, Board, submit_at_random
from benchmarks.growth.clock import Clock, Thread
from benchmarks.growth.costs import Costs
from benchmarks.growth.worker import Worker

__all__ = ["Seen", "percentile", "queue_at_random", "run_board"]

#: Round trips in a data centre are some half a millisecond.
WIRE: Final = 250e-6


@attrs.frozen(kw_only=True)
class Seen:
    """
    What was seen in the window of a run.

    Attributes:
        rate: Tasks settled a second.
        busy: The share of the time in which the server worked.
        server: Its microseconds of CPU a task.
        calls: Calls a second.
        claims: Calls to claim for each task.
        own: Microseconds of CPU a task in the workers.
        waits: Seconds between the submission of a task and its claim, in order of size.
        seconds: How long the window was; shorter than asked where the events ran out.
        done: Tasks that were settled.
    """

    rate: float
    busy: float
    server: float
    calls: float
    claims: float
    own: float
    waits: Sequence[float]
    seconds: float
    done: int


def run_board(
    costs: Costs,
    *,
    workers: int,
    slots: int = 16,
    duration: float = 0.0,
    rate: float | None = None,
    cores: float = math.inf,
    wire: float = WIRE,
    together: bool = False,
    turns: bool = True,
    lasting: bool = True,
    warm: float = 0.5,
    window: float = 1.0,
    most: int = 300_000,
    seed: int = 0,
) -> Seen:
    """
    Let workers work, and see what they do in a window of steady work.

    Args:
        costs: What it costs.
        workers: How many.
        slots: Handlers at a time in each.
        duration: Seconds of a handler.
        rate: Tasks a second that are submitted one by one, at random; None for a board that
            always has more.
        cores: Which server and workers share; without end where each has its own.
        wire: Seconds to the server, or back.
        together: Whether all workers are in one process.
        turns: Whether many idle workers take turns at a wake-up, as they do, or all claim at once.
        lasting: Whether the server has run for more than a minute.
        warm: Seconds before the window.
        window: Seconds of it.
        most: Events in either, at most.
        seed: Of all that is random.
    """
    rng = random.Random(seed)
    clock = Clock(cores)
    board = Board(clock, costs, wire=wire, endless=rate is None, lasting=lasting, turns=turns)
    process = Thread(clock) if together else None
    crew = [
        Worker(clock, board, rng, slots=slots, duration=duration, thread=process)
        for _ in range(workers)
    ]
    # Not all at one moment, as processes never start so.
    spread = min(warm / 2, duration) if duration else min(warm / 2, 0.01)
    for worker in crew:
        clock.after(rng.uniform(0, spread), worker.start)
    if rate is not None:
        submit_at_random(clock, board, rate, rng)
    clock.run(warm, most)
    threads = [process] if process else [worker.thread for worker in crew]
    started, done, worked = clock.now, board.done, board.worked
    calls, claims, taken = board.calls, board.claims, len(board.taken)
    own = sum(thread.worked for thread in threads)
    clock.run(clock.now + window, most)
    seconds, settled = clock.now - started, board.done - done
    return Seen(
        rate=settled / seconds,
        busy=(board.worked - worked) / seconds,
        server=(board.worked - worked) / US / max(1, settled),
        calls=(board.calls - calls) / seconds,
        claims=(board.claims - claims) / max(1, settled),
        own=(sum(thread.worked for thread in threads) - own) / US / max(1, settled),
        waits=sorted(board.taken[taken:]),
        seconds=seconds,
        done=settled,
    )


def queue_at_random(
    service: Callable[[random.Random], float] | float,
    rate: float,
    *,
    count: int = 20_000,
    seed: int = 0,
) -> tuple[float, list[float]]:
    """
    Let calls come to one thread at random.

    Args:
        service: Seconds that a call takes, always or this time.
        rate: Calls a second.
        count: How many.
        seed: Of all that is random.

    Returns:
        The share of the time in which it worked; the seconds from each call to its end, sorted.
    """
    rng = random.Random(seed)
    clock = Clock()
    thread = Thread(clock)
    took: list[float] = []

    def call(left: int) -> None:
        came = clock.now
        seconds = service(rng) if callable(service) else service
        thread.do(seconds, lambda: took.append(clock.now - came))
        if left > 1:
            clock.after(rng.expovariate(rate), lambda: call(left - 1))

    call(count)
    clock.run(math.inf)
    return thread.worked / clock.now, sorted(took)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return what that share of *ordered* values is not above; 0 of none."""
    if not ordered:
        return 0.0
    if share == 0.5:
        return statistics.median(ordered)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
