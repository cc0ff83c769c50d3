"""The simulation of growth, held against what is known of queues."""

from __future__ import annotations

import math
import random
from functools import partial
from pathlib import Path

import attrs
import pytest

from benchmarks.figures.record import Record
from benchmarks.growth.board import Board, submit_at_random
from benchmarks.growth.clock import Clock, Thread
from benchmarks.growth.costs import Costs, Line, fit
from benchmarks.growth.simulation import percentile, queue_at_random, run_board
from benchmarks.growth.worker import Worker

COSTS = Costs(
    submit=Line(100, 6),
    claim=Line(150, 9),
    settle=Line(100, 6),
    renew=Line(100, 5),
    nothing=100,
    wake=10,
    expire=1,
    hint=Line(20, 3),
    own_submit=Line(150, 6),
    own_claim=Line(200, 6),
    own_settle=Line(150, 5),
    own_handler=20,
    own_waiting=60,
    own_hint=100,
    wire=50,
    news=Line(150, 17),
    touch=Line(150, 16),
    to_feed_news=Line(3, 0.1),
    to_feed_touch=Line(3, 0.1),
    apply_news=Line(20, 14),
    apply_touch=Line(20, 5),
    list_server=9,
    list_feed=25,
    pulse=150,
    idle_claims=0.7,
    idle_worker=150,
    idle_feed=150,
    task_bytes=210,
    reply_bytes=140,
    node_bytes=340,
    feed_bytes=670,
)


def test_fit_finds_a_line() -> None:
    """Points on a line give that line."""
    line = Line.through({1: 12, 10: 30, 100: 210})
    assert (10, 2) == pytest.approx((line.a, line.b))


def test_fit_has_nothing_below_zero() -> None:
    """What would be negative is nothing."""
    assert [0, 2] == pytest.approx(fit([((1.0, x), 2 * x - 1) for x in (1000.0, 2000.0)]), rel=0.01)


def test_a_thread_does_one_thing_after_the_other() -> None:
    """Two things of a second end after one and two."""
    clock, ends = Clock(), list[float]()
    thread = Thread(clock)
    for _ in range(2):
        thread.do(1.0, lambda: ends.append(clock.now))
    clock.run(math.inf)
    assert [1.0, 2.0] == ends
    assert thread.worked == 2.0


def test_threads_take_turns_on_the_cores() -> None:
    """Three threads on two cores take half as long again; who begins later, ends later."""
    clock, ends = Clock(2), list[float]()
    for _ in range(3):
        Thread(clock).do(1.0, lambda: ends.append(clock.now))
    clock.run(math.inf)
    assert [1.5, 1.5, 1.5] == pytest.approx(ends, abs=0.01)

    clock, ends = Clock(1), list[float]()
    Thread(clock).do(1.0, lambda: ends.append(clock.now))
    clock.after(0.5, lambda: Thread(clock).do(1.0, lambda: ends.append(clock.now)))
    clock.run(math.inf)
    assert [1.5, 2.0] == pytest.approx(ends, abs=0.01)


def test_a_turn_is_for_several_things() -> None:
    """Who goes on at once keeps the core until its turn is over; half a core is a slower one."""
    clock, ends = Clock(0.5, turn=1.0), list[tuple[str, float]]()

    def note(name: str) -> None:
        ends.append((name, clock.now))

    for name in "ab":
        thread = Thread(clock)
        for _ in range(3):
            thread.do(0.5, partial(note, name))
    clock.run(math.inf)
    assert [("a", 1), ("a", 2), ("b", 3), ("b", 4), ("a", 5), ("b", 6)] == ends


@pytest.mark.parametrize("load", [0.3, 0.5, 0.8])
def test_waiting_is_that_of_the_formula(load: float) -> None:
    """M/D/1: the mean wait is load / (2 (1 - load)) services."""
    busy, took = queue_at_random(1.0, load, count=30_000, seed=1)
    expected = load / (2 * (1 - load))
    assert load == pytest.approx(busy, rel=0.03)
    assert expected == pytest.approx(sum(took) / len(took) - 1.0, rel=0.1)


def test_random_services_wait_twice_as_long() -> None:
    """M/M/1: the mean wait is load / (1 - load) services."""
    _, took = queue_at_random(lambda rng: rng.expovariate(1), 0.5, count=30_000, seed=2)
    assert 1.0 == pytest.approx(sum(took) / len(took) - 1.0, rel=0.1)


@pytest.mark.parametrize("duration", [0.0, 0.01])
def test_every_task_is_done_once(duration: float) -> None:
    """What was submitted is finished, none of it twice."""
    clock, rng = Clock(2), random.Random(3)
    board = Board(clock, COSTS, wire=50e-6)
    crew = [Worker(clock, board, rng, duration=duration) for _ in range(5)]
    for worker in crew:
        worker.start()
    for at in range(40):
        clock.after(at * 0.003, lambda: board.submit(50, lambda: None))
    clock.run(30.0)
    assert list(range(2000)) == sorted(n for worker in crew for n in worker.finished)
    assert 2000 == board.done == len(board.taken)


def test_a_full_server_settles_what_its_calls_allow() -> None:
    """Workers without end cannot make it faster than one by the time a task takes there."""
    costs = attrs.evolve(COSTS, own_handler=1, own_claim=Line(1, 0.1), own_settle=Line(1, 0.1))
    seen = run_board(costs, workers=20, warm=1, window=2, lasting=False)
    assert 1.0 == pytest.approx(seen.busy, abs=0.01)
    assert 1e6 / seen.server == pytest.approx(seen.rate, rel=0.01)
    assert COSTS.claim.b + COSTS.settle.b < seen.server < COSTS.claim.at(1) + COSTS.settle.at(1)


def test_the_work_of_a_task_is_done_once() -> None:
    """A worker's CPU is that of its handlers and its calls, and no more."""
    seen = run_board(COSTS, workers=1, warm=1, window=4, lasting=False)
    settles = seen.calls / seen.rate - seen.claims
    claim, settle = COSTS.own_claim, COSTS.own_settle
    calls = claim.a * seen.claims + claim.b + settle.a * settles + settle.b
    assert COSTS.own_handler + calls == pytest.approx(seen.own, rel=0.02)


def test_an_unloaded_worker_is_bound_by_its_handlers() -> None:
    """16 handlers of a second finish 16 tasks a second."""
    seen = run_board(COSTS, workers=1, duration=1.0, warm=2, window=10)
    assert 16 == pytest.approx(seen.rate, rel=0.02)


def test_many_idle_workers_take_turns() -> None:
    """A few claim for a task, where otherwise all would, besides their polls."""
    polls = 100 * 0.71 / 5
    some = run_board(COSTS, workers=100, rate=5, warm=2, window=10)
    assert 1 <= some.claims - polls < 15
    all_of_them = run_board(COSTS, workers=100, rate=5, warm=2, window=10, turns=False)
    assert 100 == pytest.approx(all_of_them.claims, rel=0.1)


def test_few_idle_workers_all_claim() -> None:
    """Up to eight are not told how many they are."""
    seen = run_board(COSTS, workers=8, rate=5, warm=2, window=20)
    assert 8 == pytest.approx(seen.claims, rel=0.15)


def test_a_task_that_comes_is_claimed() -> None:
    """At a rate below what is possible, as much is settled as comes."""
    seen = run_board(COSTS, workers=4, rate=500, warm=0.5, window=3)
    assert 500 == pytest.approx(seen.rate, rel=0.1)
    assert percentile(seen.waits, 0.5) < 0.005


def test_the_same_seed_gives_the_same_run() -> None:
    """And another one another."""
    runs = [run_board(COSTS, workers=3, rate=300, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_submitters_are_poisson() -> None:
    """As many come as asked for, and the server does each."""
    clock = Clock()
    board = Board(clock, COSTS, wire=0.0)
    submit_at_random(clock, board, 1000, random.Random(4), count=10)
    clock.run(20.0)
    assert 2000 == pytest.approx(board.calls, rel=0.05)


def test_costs_are_read_from_a_record(tmp_path: Path) -> None:
    """What a run keeps is what the next can begin with."""
    record = Record("growth", "?", quiet=True)
    record.note(costs=COSTS.as_dict())
    assert COSTS == Costs.load(record.save(tmp_path))
