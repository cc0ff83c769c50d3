"""``Probe`` and ``Supply``: a subscriber and a source for tests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import reactivex
from reactivex.subject import Subject

from rxdispatch.errors import ConfigError
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.streams import KillSwitch, run
from rxdispatch.testing import Probe, Supply, run_virtual


async def later(item: int) -> int:
    """Return the item after a second."""
    await asyncio.sleep(1)
    return item


def test_a_probe_records_items_with_their_times_and_the_end() -> None:
    """The end is a completion or an error."""

    async def main() -> list[Any]:
        probe = Probe().watch(reactivex.of(1, 2).pipe(map_async(later, max_concurrent=2)))
        assert not probe.ended
        await probe.wait()
        failed = Probe().watch(reactivex.throw(OSError("away")))
        assert isinstance(failed.error, OSError)
        assert (True, False, 0.0 + 1) == (failed.ended, failed.completed, failed.ended_at)
        return [probe.events, probe.completed, probe.ended_at, probe.ends]

    assert [[(1.0, 1), (1.0, 2)], True, 1.0, 1] == run_virtual(main())


def test_a_probe_waits_for_items_or_the_end() -> None:
    """The wait ends with the first of them."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        probe = Probe().watch(Supply(range(5)).pipe(map_async(later, max_concurrent=1)))
        await probe.wait(3)
        times = [loop.time()]
        await probe.wait(50)
        return [*times, loop.time(), probe.items]

    assert [3.0, 5.0, [0, 1, 2, 3, 4]] == run_virtual(main())


def test_the_valve_of_a_probe_is_moved_by_hand() -> None:
    """The valve can be closed, opened for some items, or opened for all."""

    async def main() -> list[Any]:
        supply = Supply(range(100))
        probe = Probe(room=0).watch(supply)
        sent = [supply.sent]
        for more in (2, 1, 0):
            probe.open(more)
            sent.append(supply.sent)
        assert (0, [0, 1, 2]) == (probe.room, probe.items)
        probe.open()
        sent.append(supply.sent)
        return [sent, probe.completed, probe.unasked, probe.asked > 5]

    assert [[0, 2, 3, 3, 100], True, 0, True] == run_virtual(main())


def test_a_probe_acts_on_each_item() -> None:
    """The function finds the item recorded, may close the valve, and may raise to the source."""

    async def main() -> int:
        def third(item: int) -> None:
            assert item == probe.items[-1]
            if item == 2:
                probe.close()

        supply = Supply(range(100))
        probe = Probe(on_item=third)
        probe.watch(supply)
        source: Subject[int] = Subject()
        Probe(on_item=lambda item: 1 / item).watch(source)
        with pytest.raises(ZeroDivisionError):
            source.on_next(0)
        return supply.sent

    assert 3 == run_virtual(main())


def test_items_that_nobody_asked_for_are_counted() -> None:
    """The probe counts items that a source pushes without room."""

    async def main() -> list[int]:
        source: Subject[int] = Subject()
        probe = Probe(room=1).watch(source)
        for n in range(3):
            source.on_next(n)
        return [len(probe.items), probe.unasked]

    assert [3, 2] == run_virtual(main())


def test_a_probe_can_be_disposed() -> None:
    """The valve opens for good, and the source learns of the disposal."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        probe = Probe(room=0).watch(source)
        probe.dispose()
        source.on_next(1)
        return [probe.items, probe.ended, len(source.observers)]

    assert [[], False, 0] == run_virtual(main())


def test_a_kill_switch_can_abort_it() -> None:
    """The switch ends it as it ends ``run``."""

    async def main() -> Probe:
        switch = KillSwitch()
        probe = Probe().watch(reactivex.never().pipe(switch.gate()))
        switch.abort(OSError("enough"))
        return probe

    probe = run_virtual(main())
    assert ("enough", 1) == (str(probe.error), probe.ends)


def test_a_supply_begins_anew_with_each_subscription() -> None:
    """The counts of a supply cover all subscriptions."""

    async def main() -> list[Any]:
        supply = Supply([1, 2, 3])
        probes = [Probe().watch(supply), Probe(room=1).watch(supply)]
        probes[1].dispose()
        return [
            [probe.items for probe in probes],
            (supply.sent, supply.subscribed, supply.disposed),
            await run(supply),
        ]

    assert [[[1, 2, 3], [1]], (4, 2, 2), 3] == run_virtual(main())


def test_a_supply_may_end_with_an_error() -> None:
    """The error comes after the last item."""
    with pytest.raises(OSError, match="away"):
        run_virtual(run(Supply([1], OSError("away"))))


@pytest.mark.parametrize("room", [-1, 1.5, True, "many"])
def test_bad_room_is_refused(room: Any) -> None:
    """The constructor and ``open`` check it."""

    async def main() -> None:
        with pytest.raises(ConfigError, match="room must be an int >= 0 or None"):
            Probe(room)
        with pytest.raises(ConfigError, match="items must be an int >= 0 or None"):
            Probe().open(room)

    run_virtual(main())
