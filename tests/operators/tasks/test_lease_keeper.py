"""``LeaseKeeper``: renewals that succeed, renewals that fail, and claims that leave."""

from __future__ import annotations

import asyncio
from typing import Any

from structlog.testing import capture_logs

from rxdispatch.claim import LOST, Change, Claim
from rxdispatch.operators.tasks._lease_keeper import LeaseKeeper
from rxdispatch.testing import VirtualTimeLoop
from tests.operators.tasks.places import Board, Engine, filled, marks, turns


class Held:
    """A keeper that has claims, and the calls that it made."""

    def __init__(self, board: Board, engine: Engine, claims: list[Claim[Any]]) -> None:
        self.board, self.engine, self.claims = board, engine, claims
        self.changes = 0
        self.unseen: set[int] = set()
        self.keeper = LeaseKeeper(board, 3.0, self._changed, self._recall)
        self.keeper.add(claims)

    def _changed(self) -> None:
        self.changes += 1

    def _recall(self, tokens: set[int]) -> list[Claim[Any]]:
        return [c for c in self.claims if c.token in tokens & self.unseen]

    async def end(self) -> None:
        """Release the remaining claims."""
        await self.board.settle([claim.release() for claim in self.claims])
        await turns()


async def held(count: int) -> Held:
    """Return a keeper that holds *count* claims with a lease of 3 s."""
    board, engine = await filled(count)
    return Held(board, engine, await board.claim(count, lease=3.0))


async def test_it_renews_until_all_are_settled() -> None:
    """The keeper reports claims that leave once per turn, and is idle when none is left."""
    place = await held(3)
    idle = asyncio.create_task(place.keeper.idle())
    await asyncio.sleep(9.5)
    assert [float(n) for n in range(1, 10)] == place.engine.times("renew")
    assert (3, 0, False) == (place.keeper.out, place.changes, idle.done())
    await place.board.settle([claim.done() for claim in place.claims[:2]])
    assert place.claims[2:] == place.keeper.claims()
    await turns()
    assert (1, 1, False) == (place.keeper.out, place.changes, idle.done())
    await place.end()
    assert (0, 2, True) == (place.keeper.out, place.changes, idle.done())
    await asyncio.sleep(9)
    assert 9 == len(place.engine.named("renew"))


async def test_a_renewal_that_fails_is_tried_again_in_time() -> None:
    """The pauses get shorter, so that the lease does not pass."""
    place = await held(1)
    place.engine.away("renew", 2)
    with capture_logs() as logs:
        await asyncio.sleep(2.9)
    assert ["renewal_failed"] * 2 == [entry["event"] for entry in logs]
    assert 3 <= len(place.engine.named("renew"))
    await asyncio.sleep(9)
    assert not place.claims[0].lost
    await place.end()


class Notes:
    """A watcher that records each change and its time."""

    def __init__(self, heard: list[tuple[float, str]]) -> None:
        self._heard = heard

    def claim_changed(self, claim: Claim[Any], change: Change) -> None:
        """Record the change."""
        self._heard.append((asyncio.get_running_loop().time(), change))


async def test_a_lease_that_passes_unconfirmed_is_lost_on_time() -> None:
    """The loss is on time even while a renewal hangs; a claim that was never emitted goes back."""
    for hangs in (False, True):
        place = await held(2)
        start = asyncio.get_running_loop().time()
        revoked: list[tuple[float, str]] = []
        place.unseen = {place.claims[1].token}
        place.claims[0]._watch(Notes(revoked))
        if hangs:
            place.engine.before["renew"] = 1000.0
        else:
            place.engine.away("renew", 1000)
        with capture_logs() as logs:
            await asyncio.sleep(4)
        assert [(start + 3.0, "lost")] == [(round(when, 6), status) for when, status in revoked]
        assert {"renewal_failed", "claim_lost"} == {entry["event"] for entry in logs}
        assert 0 == place.keeper.out
        assert place.claims[0].lost
        assert not place.claims[1]._state & LOST


async def test_another_error_of_the_board_is_logged() -> None:
    """The next renewal may succeed."""
    place = await held(1)
    place.engine.faults["renew"].append(RuntimeError("x"))
    with capture_logs() as logs:
        await asyncio.sleep(9)
    assert [("renewal_failed", "error", "x")] == [
        (entry["event"], entry["log_level"], entry["error"]) for entry in logs
    ]
    assert not place.claims[0].lost
    await place.end()


async def test_a_loop_that_is_blocked_is_warned_of() -> None:
    """The warning has the lag and the lease; claims that lapsed meanwhile are lost."""
    place = await held(1)
    await asyncio.sleep(0.5)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    with capture_logs() as logs:
        loop.advance(5.0)
        await asyncio.sleep(1)
    assert ["event_loop_blocked", "claim_lost"] == [entry["event"] for entry in logs]
    assert (4.5, 3.0) == (logs[0]["lag"], logs[0]["lease"])
    assert place.claims[0].lost


async def test_claims_that_nobody_refers_to_are_given_back() -> None:
    """Their tasks are ready again after a lease, with one warning for all that left in a turn."""
    place = await held(3)
    first = place.claims[0].task.id
    with capture_logs() as logs:
        del place.claims[:2]
        await turns()
        assert (1, 1) == (place.keeper.out, place.changes)
        assert (2, 0, 1, 0, 0) == await marks(place.board)
        await asyncio.sleep(3.1)
    assert [("claims_dropped", 2)] == [(entry["event"], entry["count"]) for entry in logs]
    assert first in {"0", "1"}
    assert ["0", "1"] == [claim.task.id for claim in await place.board.claim(9)]
    await place.end()


def test_claims_that_outlive_their_loop() -> None:
    """No loop is left to report them, so the lease lapses."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        place = runner.run(held(1))
    place.claims.clear()
    assert 1 == place.keeper.out


async def test_a_renewal_out_of_turn_is_of_all_claims() -> None:
    """It comes within a tenth of the lease, is of the newest claims too, and keeps the pace."""
    place = await held(3)
    place.keeper.renew_soon()
    await asyncio.sleep(0.3)
    (first,) = place.engine.times("renew")
    assert 0.0 <= first <= 0.3
    await asyncio.sleep(1.0)
    assert [first, first + 1.0] == place.engine.times("renew")
    await place.end()
    place.keeper.renew_soon()
    await asyncio.sleep(9)
    assert 2 == len(place.engine.named("renew"))


async def test_a_renewal_out_of_turn_follows_one_that_is_under_way() -> None:
    """The one under way may have been answered by the server before."""
    place = await held(3)
    await asyncio.sleep(0.9)
    place.engine.before["renew"] = 0.5
    await asyncio.sleep(0.2)
    place.keeper.renew_soon()
    await asyncio.sleep(0.8)
    first, second = place.engine.times("renew")
    assert 1.0 == first
    assert 1.5 <= second <= 1.8
    place.engine.before["renew"] = 0.0
    await asyncio.sleep(1.0)
    await place.end()
