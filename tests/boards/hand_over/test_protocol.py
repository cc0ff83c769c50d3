"""The hand-over as a model: every state of two workers, and each rule left out."""

from __future__ import annotations

import os
from typing import Any

import attrs
import pytest

from tests.boards.hand_over.explorer import Findings, explore
from tests.boards.hand_over.rules import FAULTS, Rule, Scenario

MORE_FAULTS = int(os.environ.get("HAND_OVER_FAULTS", "0"))
"""So many faults more, for a search of minutes to hours."""

ALL_IS_WELL = Findings()


def found(scenario: Scenario) -> Findings:
    """Return the findings without their count of states."""
    findings = explore(scenario)
    assert findings.states > 0
    return attrs.evolve(findings, states=0)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "cut off"])
def test_one_fault_needs_no_poll(fault: str) -> None:
    """After one fault no invariant is broken, every task ends, and no worker needs to poll."""
    # A frozen worker has by far the most states.
    places = 1 if fault == "frozen" else 2
    assert found(Scenario(kinds=(fault,), places=places)) == ALL_IS_WELL


def test_three_tasks_without_faults() -> None:
    """Of three tasks none needs a poll, whatever crosses on the way."""
    assert found(Scenario(tasks=3, faults=0)) == ALL_IS_WELL


def test_lost_host_needs_a_poll() -> None:
    """A task whose announcement went to a host that was cut off waits for a poll, and ends."""
    findings = found(Scenario(kinds=("cut off",)))
    assert ("", 0) == (findings.wrong, findings.stuck)
    assert findings.asleep > 0


@pytest.mark.parametrize("max_crashes", [1, 2, 3])
def test_task_that_kills_its_worker(max_crashes: int) -> None:
    """It is dead after its crashes and at most one victim more."""
    scenario = Scenario(tasks=1, faults=0, killer=True, quick=True, max_crashes=max_crashes)
    assert found(scenario) == ALL_IS_WELL


@pytest.mark.skipif(not MORE_FAULTS, reason="the environment variable HAND_OVER_FAULTS is not set")
@pytest.mark.timeout(0)
def test_more_faults() -> None:
    """With more faults of all kinds no invariant is broken, and every task ends."""
    findings = found(Scenario(faults=MORE_FAULTS, quick=True))
    assert ("", 0) == (findings.wrong, findings.stuck)


NO_POLL = "a worker needs to poll"

BROKEN: dict[Rule, tuple[str, dict[str, Any]]] = {
    Rule.KEEP_LIST: (
        "a worker holds more than its places",
        {"tasks": 3, "kinds": ("disconnected",)},
    ),
    Rule.ONLY_ANNOUNCE_LAPSED: (
        "a task lost two delivery leases",
        {"kinds": ("cut off",), "faults": 2},
    ),
    Rule.BATON: (NO_POLL, {"kinds": ("killed",)}),
    Rule.NAME_READ: ("workers are busy for ever", {"faults": 0}),
    Rule.LIST_LATER: (
        "a worker says that it has read what it has not",
        {"kinds": ("polls",)},
    ),
    Rule.COUNT_LATER: (
        "a worker holds more than its places",
        {"tasks": 3, "kinds": ("polls",)},
    ),
    Rule.KEEP_MARK: (
        "a crash is counted for a handler that never started",
        {"kinds": ("polls", "killed"), "faults": 2},
    ),
    Rule.FIRST_LAPSE_UNCOUNTED: (
        "a crash is counted for a handler that never started",
        {"kinds": ("killed",)},
    ),
    Rule.CHECK_AGE: ("a task runs twice", {"kinds": ("frozen",), "places": 1}),
    Rule.CLAIM_ON_RECONNECT: (NO_POLL, {"workers": 1, "kinds": ("disconnected",)}),
    Rule.LEAVE_NAMES_SEEN: (
        "a task runs twice",
        {"kinds": ("message lost", "leaves"), "faults": 2},
    ),
    Rule.LEAVE_WAITS: (
        "something is handed to a worker that has left",
        {"kinds": ("leaves",)},
    ),
    Rule.DROP_OLD: ("a worker holds a task twice", {"kinds": ("doubled",)}),
    Rule.SEE_GAPS: (
        "a worker says that it has read what it has not",
        {"kinds": ("message lost",)},
    ),
    Rule.SKIP_KNOWN: ("a worker holds a task twice", {"kinds": ("polls",)}),
    Rule.NEWEST_ROOM: (NO_POLL, {"workers": 1, "tasks": 3, "faults": 0}),
    Rule.UPTO: ("a worker holds a task twice", {"kinds": ("polls",)}),
}
"""What goes wrong without a rule, and where."""


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name.lower())
def test_each_rule_is_needed(rule: Rule) -> None:
    """Without the rule something goes wrong that does not go wrong with it."""
    expected, settings = BROKEN[rule]
    scenario = Scenario(**settings)
    findings = explore(attrs.evolve(scenario, broken=frozenset({rule})))
    assert expected == findings.wrong or (expected == NO_POLL and findings.need_poll > 0)


@pytest.mark.parametrize("rule", [rule for rule in Rule if BROKEN[rule][0] == NO_POLL])
def test_no_poll_with_the_rule(rule: Rule) -> None:
    """Where a rule saves a poll, no worker needs one as long as it is kept."""
    assert found(Scenario(**BROKEN[rule][1])) == ALL_IS_WELL
