"""The formulas for growth, with round numbers as costs."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from benchmarks.figures.record import FigureRecord
from benchmarks.growth.costs import CallCost, Costs, fit
from benchmarks.growth.formulas import (
    add_formulas,
    full_rate,
    heartbeat_call,
    herd,
    mean_wait,
    server_share,
    worker_rate,
)

COSTS = Costs(
    submit=CallCost(100, 6),
    claim=CallCost(150, 9),
    settle=CallCost(100, 6),
    renew=CallCost(100, 5),
    nothing=100,
    hint=CallCost(20, 3),
    own_claim=CallCost(200, 6),
    own_settle=CallCost(150, 5),
    own_handler=20,
    own_waiting=60,
    news=CallCost(150, 17),
    touch=CallCost(150, 16),
    to_feed_news=CallCost(3, 0.1),
    to_feed_touch=CallCost(3, 0.1),
    apply_news=CallCost(20, 14),
    apply_touch=CallCost(20, 5),
    list_server=9,
    list_feed=25,
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
    cost = CallCost.through({1: 12, 10: 30, 100: 210})
    assert (10, 2) == pytest.approx((cost.a, cost.b))


def test_no_fitted_coefficient_is_negative() -> None:
    """A coefficient that would be negative is zero."""
    assert [0, 2] == pytest.approx(fit([((1.0, x), 2 * x - 1) for x in (1000.0, 2000.0)]), rel=0.01)


def test_a_call_is_shared_by_its_items() -> None:
    """Each item costs its share of the call."""
    assert (110, 20) == (CallCost(100, 10).at(1), CallCost(100, 10).each(10))


@pytest.mark.parametrize(("batch", "us"), [(1, 265.0), (10, 40.0), (250, 16.0)])
def test_a_full_server_moves_what_its_calls_allow(batch: int, us: float) -> None:
    """The costs of a claim and a settlement are shared by the tasks in them."""
    assert 1e6 / us == pytest.approx(full_rate(COSTS, batch))


def test_a_worker_is_bound_by_its_handlers_or_by_its_cpu() -> None:
    """16 handlers of 1 s finish 16 tasks per second; handlers that do nothing cost only CPU."""
    assert 16 == worker_rate(COSTS, 16, 1.0)
    own = 20 + COSTS.own_claim.each(100) + COSTS.own_settle.each(100)
    assert 1e6 / own == pytest.approx(worker_rate(COSTS, 100, 0.0))


def test_the_servers_share_follows_from_the_calls() -> None:
    """One call of each kind for ten tasks costs the same as batches of ten."""
    assert 1e6 / full_rate(COSTS, 10) == pytest.approx(server_share(COSTS, 0.1, 0.1))


def test_a_queue_waits_half_a_service_at_half_the_load() -> None:
    """M/D/1: the mean wait is load / (2 (1 - load)) services."""
    assert (0.5, 2.0) == pytest.approx((mean_wait(1.0, 0.5), mean_wait(1.0, 0.8)))


def test_a_task_that_is_handed_over_costs_the_same_among_any_number() -> None:
    """One worker hears of it and claims, instead of all."""
    found = COSTS.submit.at(1) + COSTS.claim.at(1) + COSTS.settle.at(1)
    assert found == pytest.approx(herd(COSTS, 1, handed=True) - COSTS.hint.b)
    assert herd(COSTS, 1, handed=True) == pytest.approx(herd(COSTS, 100, handed=True))
    spared = herd(COSTS, 100, handed=False) - herd(COSTS, 100, handed=True)
    assert 99 * (COSTS.nothing + COSTS.hint.b) == pytest.approx(spared)


def test_heartbeats_reach_every_feed() -> None:
    """Each feed adds to the cost of a call, and news cost more than a heartbeat without news."""
    alone, followed = heartbeat_call(COSTS, 1, 0.0, 0), heartbeat_call(COSTS, 1, 0.0, 10)
    assert (COSTS.touch.at(1), 10 * COSTS.to_feed_touch.at(1)) == pytest.approx(
        (alone, followed - alone)
    )
    assert COSTS.news.at(256) == heartbeat_call(COSTS, 256, 1.0, 0)


def test_every_formula_is_recorded() -> None:
    """All figures are positive, and each group has its own name."""
    record = FigureRecord("growth", "?", quiet=True)
    add_formulas(COSTS, record)
    assert all(row.value > 0 for row in record.rows)
    assert len(record.rows) == len({(row.group, row.case, row.x) for row in record.rows})


def test_costs_are_read_from_a_record(tmp_path: Path) -> None:
    """A run can start with the costs that another run has saved."""
    record = FigureRecord("growth", "?", quiet=True)
    record.note(costs=COSTS.as_dict())
    assert COSTS == Costs.load(record.save(tmp_path))
    assert COSTS != attrs.evolve(COSTS, nothing=1)
