"""``Modes``: neither a single failed pulse nor a single good one changes the mode."""

from __future__ import annotations

from structlog.testing import capture_logs

from rxdispatch.node import Mode
from rxdispatch.nodes.feed.modes import Modes
from rxdispatch.nodes.feed.stats import Counters


def test_two_proofs_in_a_row_end_a_trouble() -> None:
    """Two good pulses in a row restore NORMAL; a failure in between restarts the count."""
    modes = Modes(Counters())
    modes.failed()
    modes.switch(Mode.LOCAL_ONLY)
    assert not modes.proven()
    modes.failed()
    assert not modes.proven()
    assert modes.proven()
    assert Mode.NORMAL is modes.mode


def test_proofs_while_all_is_well() -> None:
    """While the mode is NORMAL, neither good pulses nor a single failure change it."""
    modes = Modes(Counters())
    assert [False] * 3 == [modes.proven() for _ in range(3)]
    modes.failed()
    assert Mode.NORMAL is modes.mode


def test_the_observable() -> None:
    """The observable emits the current mode, then each new one."""
    counters = Counters()
    modes = Modes(counters)
    seen: list[Mode | str] = []
    modes.observable.subscribe(seen.append, on_completed=lambda: seen.append("|"))
    for mode in (Mode.NORMAL, Mode.L2_ONLY, Mode.L2_ONLY, Mode.LOCAL_ONLY):
        modes.switch(mode)
    late: list[Mode | str] = []
    modes.observable.subscribe(late.append, on_completed=lambda: late.append("|"))
    modes.switch(Mode.NORMAL)
    modes.complete()
    assert [Mode.NORMAL, Mode.L2_ONLY, Mode.LOCAL_ONLY, Mode.NORMAL, "|"] == seen
    assert [Mode.LOCAL_ONLY, Mode.NORMAL, "|"] == late
    assert 3 == counters.mode_switches


def test_logs() -> None:
    """Each change is logged with the previous mode, and a change for the worse as a warning."""
    modes = Modes(Counters())
    with capture_logs() as logs:
        modes.switch(Mode.L2_ONLY)
        modes.switch(Mode.NORMAL)
    assert [("warning", "L2_ONLY", "NORMAL"), ("info", "NORMAL", "L2_ONLY")] == [
        (entry["log_level"], entry["mode"], entry["before"]) for entry in logs
    ]
