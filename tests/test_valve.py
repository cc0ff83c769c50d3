"""``Gate``: room, signals, chains, and the end of demand."""

from __future__ import annotations

import sys

from rxdispatch.protocols import Valve
from rxdispatch.valve import Gate, bound_by


def test_a_gate_is_a_valve() -> None:
    """A gate has the methods of the protocol."""
    assert isinstance(Gate(lambda: 1, None), Valve)


def test_room_is_that_of_the_operator() -> None:
    """The gate asks the operator for its room at each call."""
    room = 3
    gate = Gate(lambda: room, None)
    assert gate.room() == 3
    room = 1
    assert gate.room() == 1


def test_there_is_no_room_while_there_is_none_below() -> None:
    """The room is 0 while any gate below has none."""
    rooms = [5, 5, 5]
    lowest = Gate(lambda: rooms[2], None)
    middle = Gate(lambda: rooms[1], lowest)
    top = Gate(lambda: rooms[0], middle)
    assert top.room() == 5
    rooms[2] = 0
    assert [0, 0, 0] == [top.room(), middle.room(), lowest.room()]
    rooms[2], rooms[1] = 1, -2
    assert [0, -2, 1] == [top.room(), middle.room(), lowest.room()]


def test_room_that_opens_below_is_heard_at_the_top() -> None:
    """The signal travels up the whole chain."""
    lowest = Gate(lambda: 1, None)
    top = Gate(lambda: 1, Gate(lambda: 1, lowest))
    heard: list[str] = []
    top.listen(lambda: heard.append("top"))
    lowest.opened()
    top.opened()
    assert ["top", "top"] == heard


def test_a_listener_that_is_disposed_hears_nothing() -> None:
    """A disposed listener is not called, even if the one before disposes it in the same signal."""
    gate = Gate(lambda: 1, None)
    heard: list[str] = []

    def first() -> None:
        heard.append("first")
        second.dispose()

    gate.listen(first)
    second = gate.listen(lambda: heard.append("second"))
    gate.opened()
    gate.opened()
    assert ["first", "first"] == heard


def test_a_listener_may_leave_twice() -> None:
    """Disposing twice does not remove another listener."""
    gate = Gate(lambda: 1, None)
    heard: list[str] = []

    def on_room() -> None:
        heard.append("room")

    one = gate.listen(on_room)
    gate.listen(on_room)
    one.dispose()
    one.dispose()
    gate.opened()
    assert ["room"] == heard


def test_a_gate_knows_whether_anybody_asked() -> None:
    """The gate knows it, so that an operator warns only if its source never asked."""
    gate = Gate(lambda: 1, None)
    assert not gate.watched
    gate.listen(lambda: None).dispose()
    assert gate.watched


def test_disposal_opens_and_tells() -> None:
    """Disposal wakes a waiting source, and reports the end once."""
    below = Gate(lambda: 0, None)
    gate = Gate(lambda: 0, below)
    told: list[str] = []
    gate.listen(lambda: told.append(f"room {gate.room() == sys.maxsize}"))
    gate.when_closed(lambda: told.append("closed"))
    gate.when_closed(lambda: told.append("never")).dispose()
    assert gate.room() == 0
    gate.dispose()
    gate.dispose()
    assert ["room True", "closed"] == told
    assert gate.closed
    below.opened()
    assert ["room True", "closed"] == told


def test_who_asks_after_the_end_is_told_at_once() -> None:
    """A callback that is registered after the end is called at once."""
    gate = Gate(lambda: 0, None)
    gate.dispose()
    told: list[str] = []
    gate.when_closed(lambda: told.append("closed")).dispose()
    assert ["closed"] == told


def test_the_lowest_gate_of_a_chain_is_found() -> None:
    """Every gate of a chain finds the lowest one."""
    lowest = Gate(lambda: 1, None)
    top = Gate(lambda: 1, Gate(lambda: 1, lowest))
    assert [lowest, lowest] == [top.lowest, lowest.lowest]


def test_failing_calls_the_operator_until_it_has_ended() -> None:
    """``fail`` calls the operator until it has ended, and returns whether it did."""
    failures: list[Exception] = []
    gate = Gate(lambda: 1, None, fail=failures.append)
    error = OSError("x")
    assert gate.fail(error)
    gate.dispose()
    assert not gate.fail(error)
    assert not Gate(lambda: 1, None).fail(error)
    assert [error] == failures


def test_a_gate_without_a_limit_bounds_nothing() -> None:
    """A source need not ask a gate without a limit, unless a gate below has a limit."""
    free = Gate(None, None)
    tight = Gate(lambda: 0, None)
    assert free.room() == sys.maxsize
    assert bound_by(free) is None
    assert bound_by(tight) is tight
    assert Gate(lambda: 7, free).room() == 7
    assert Gate(None, tight).room() == 0
    assert bound_by(Gate(None, tight)) is not None
    assert bound_by(None) is None


def test_a_gate_that_holds_is_open_while_the_one_below_is_closed() -> None:
    """The gate below does not close it, but is still the end of its chain."""
    below = Gate(lambda: 0, None)
    gate = Gate(lambda: 2, below, holds=True)
    heard: list[str] = []
    gate.listen(lambda: heard.append("room"))
    below.opened()
    assert [] == heard
    assert gate.room() == 2
    assert gate.lowest is below
    assert bound_by(gate) is gate
    assert bound_by(Gate(None, below, holds=True)) is None
