"""``Placements``: the recent placements and refusals of one process."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxdispatch.nodes.placement.placements import GENERATION, PASS_OVER, REFUSALS, Placements


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made() -> tuple[Clock, Placements]:
    """Return placements and their clock."""
    clock = Clock()
    return clock, Placements(clock, random.Random(7))


def test_placements_count_until_the_registry_reports() -> None:
    """Placements are counted per node, until the registry reports them."""
    _, placements = made()
    for node in ("a", "a", "b"):
        placements.placed(node)
    assert [2, 1, 0] == [placements.load(node) for node in "abc"]
    placements.reported("a")
    assert [0, 1, 0] == [placements.load(node) for node in "abc"]


def test_a_placement_is_taken_back_once() -> None:
    """A placement that no longer counts is not subtracted again."""
    clock, placements = made()
    placements.placed("a")
    clock.now += GENERATION
    placements.placed("a")
    loads: list[int] = []
    for _ in range(3):
        loads.append(placements.load("a"))
        placements.unplaced("a")
    assert [2, 1, 0] == loads
    assert 0 == placements.load("a")


@given(st.lists(st.floats(0.0, 1.5), max_size=20), st.floats(0.0, 0.49))
def test_a_placement_counts_for_one_to_two_generations(pauses: list[float], phase: float) -> None:
    """A placement counts for one to two generations, and reads do not extend this."""
    clock, placements = made()
    clock.now += phase
    placements.placed("a")
    born = clock.now
    for pause in pauses:
        clock.now += pause
        load = placements.load("a")
        age = clock.now - born
        assert 1 == load or age >= GENERATION - phase - 1e-9
        assert 0 == load or age < 2 * GENERATION


def test_an_old_placement_does_not_renew_itself() -> None:
    """Later placements on the same node do not change its age."""
    clock, placements = made()
    for _ in range(10):
        placements.placed("a")
        clock.now += 0.2
        assert placements.load("a") <= 5


def test_three_refusals_in_a_row_pass_a_node_over() -> None:
    """The node is passed over for a short time; another refusal restarts the time."""
    clock, placements = made()
    assert not placements.refusals
    rejecting: list[bool] = []
    for _ in range(REFUSALS):
        placements.refused("a")
        rejecting.append(placements.rejecting("a"))
    assert [False, False, True] == rejecting
    assert placements.refusals
    assert not placements.rejecting("b")
    clock.now += PASS_OVER[1]
    assert not placements.rejecting("a")
    placements.refused("a")
    assert placements.rejecting("a")


def test_how_long_is_left_to_chance() -> None:
    """The duration is random, so that processes do not all come back at once."""
    clock, placements = made()
    ends: set[float] = set()
    for n in range(50):
        for _ in range(REFUSALS):
            placements.refused(f"n{n}")
    start = clock.now
    for step in range(35):
        clock.now = start + step / 100
        ends.add(sum(placements.rejecting(f"n{n}") for n in range(50)))
        if clock.now < start + PASS_OVER[0]:
            assert {50} == ends
    assert 0 in ends
    assert len(ends) > 10


def test_a_node_that_takes_a_job_is_a_good_one() -> None:
    """An accepted job clears refusals; a placement alone proves nothing, as it is counted first."""
    _, placements = made()
    for _ in range(REFUSALS):
        placements.placed("a")
        placements.unplaced("a")
        placements.refused("a")
    placements.placed("a")
    assert placements.rejecting("a")
    placements.accepted("a")
    assert not placements.rejecting("a")
    placements.refused("a")
    assert not placements.rejecting("a")


def test_refusals_far_apart_are_not_in_a_row() -> None:
    """Refusals expire like placements."""
    clock, placements = made()
    for _ in range(10):
        placements.refused("a")
        assert not placements.rejecting("a")
        clock.now += 2 * GENERATION
    placements.load("a")
    assert not placements.refusals


def test_a_report_does_not_clear_refusals() -> None:
    """A report of the registry proves nothing, as a busy node is reported all the time."""
    _, placements = made()
    for _ in range(REFUSALS):
        placements.reported("a")
        placements.refused("a")
    placements.reported("a")
    assert placements.rejecting("a")


def test_a_node_that_is_gone_is_forgotten() -> None:
    """The placements and refusals of a node that is gone are dropped."""
    _, placements = made()
    for _ in range(REFUSALS):
        placements.placed("a")
        placements.refused("a")
    placements.forget("a")
    placements.forget("b")
    assert 0 == placements.load("a")
    assert not placements.refusals


@pytest.mark.parametrize("generations", [1, 2, 5])
def test_nothing_is_kept_of_nodes_that_come_and_go(generations: int) -> None:
    """Entries of nodes expire even if no call says that the nodes are gone."""
    clock, placements = made()
    for n in range(1000):
        placements.placed(f"n{n}")
        placements.refused(f"n{n}")
        clock.now += GENERATION * generations / 100
    young, old = placements.recent()
    assert len(young) + len(old) <= 200
