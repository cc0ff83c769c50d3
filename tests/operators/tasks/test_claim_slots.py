"""``ClaimSlots``: a slot ends once, with its claim, however the claim ends."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterable
from typing import Any

from reactivex import Observable
from reactivex.subject import Subject

from rxdispatch.claim import Claim
from rxdispatch.node import Node, NodeChange, Slot
from rxdispatch.operators.tasks._claim_slots import ClaimSlots
from rxdispatch.testing import VirtualTimeLoop
from tests.operators.tasks.places import Board, filled, marks, turns


class Landlord:
    """A feed that only records which slots are released."""

    def __init__(self) -> None:
        self.freed: list[str] = []
        self._changes: Subject[NodeChange] = Subject()

    @property
    def changes(self) -> Observable[NodeChange]:
        """Return a stream without changes."""
        return self._changes

    def criteria(self, *args: Any, **criteria: Any) -> object:
        """Accept any criteria."""
        return criteria

    async def reserve_many(self, count: int, *args: Any, **options: Any) -> list[Slot]:
        """Return no slot, as there is no room."""
        return []

    def release_later(self, slots: Iterable[Slot]) -> None:
        """Record the slots."""
        self.freed += [slot.id for slot in slots]


async def occupied(count: int) -> tuple[Landlord, ClaimSlots, Board, list[Claim[Any]]]:
    """Return *count* claims that have a slot each."""
    board, _ = await filled(count)
    landlord = Landlord()
    slots = ClaimSlots(landlord)
    claims: list[Claim[Any]] = []
    with board.claims().subscribe(claims.append):
        await turns(20)
    for claim in claims:
        slots.add(claim, Slot(f"slot-{claim.task.id}", Node("a")))
    return landlord, slots, board, claims


async def test_settled() -> None:
    """Any settlement releases the slot, and ends the renewal of the claim too."""
    landlord, slots, board, claims = await occupied(4)
    one, two, three, four = claims
    await board.settle([one.done(), two.retry("no"), three.dead("no"), four.release()])
    await turns()
    assert (0, [f"slot-{n}" for n in range(4)]) == (len(slots._held), landlord.freed)
    await asyncio.sleep(100)
    assert (0, 2, 0, 1, 1) == await marks(board)


async def test_not_settled() -> None:
    """The claim is renewed as usual, and keeps its slot."""
    landlord, slots, board, claims = await occupied(2)
    await asyncio.sleep(200)
    assert (2, [], [False, False]) == (len(slots._held), landlord.freed, [c.lost for c in claims])
    await board.settle([claim.done() for claim in claims])
    await turns()
    assert 0 == len(slots._held)


async def test_settled_twice() -> None:
    """The slot is released once, as it may belong to another claim by now."""
    landlord, slots, _, claims = await occupied(1)
    slots.release(claims[0])
    slots.release(claims[0])
    claims[0]._lose()
    claims.clear()
    gc.collect()
    await turns()
    assert ["slot-0"] == landlord.freed


async def test_lost() -> None:
    """The slot is released as soon as the claim is marked as lost."""
    landlord, slots, _, claims = await occupied(2)
    claims[1]._lose()
    assert (1, ["slot-1"]) == (len(slots._held), landlord.freed)
    slots.release(claims[0])


async def test_called_back() -> None:
    """A recalled claim keeps its slot until it is released."""
    landlord, _, board, claims = await occupied(1)
    claims[0]._recall()
    assert [] == landlord.freed
    await board.settle([claims[0].release()])
    await turns()
    assert ["slot-0"] == landlord.freed


async def test_dropped() -> None:
    """The slot is free in the next turn of the loop."""
    landlord, slots, board, claims = await occupied(2)
    kept = claims.pop()
    claims.clear()
    gc.collect()
    assert [] == landlord.freed
    await turns()
    assert (1, ["slot-0"]) == (len(slots._held), landlord.freed)
    await board.settle([kept.done()])
    await turns()


async def test_dropped_by_another_thread() -> None:
    """The slot is released on the loop."""
    landlord, _, _, claims = await occupied(1)
    threads: list[int] = []
    release = landlord.release_later

    def noting(slots: Iterable[Slot]) -> None:
        threads.append(threading.get_ident())
        release(slots)

    landlord.release_later = noting  # type: ignore[method-assign]
    box = [claims.pop()]
    worker = threading.Thread(target=box.clear)
    worker.start()
    worker.join()
    gc.collect()
    await turns()
    assert ([threading.get_ident()], ["slot-0"]) == (threads, landlord.freed)


def test_dropped_after_the_loop_has_gone() -> None:
    """Nothing is released or raised, and the lease ends the slot."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        landlord, _, _, claims = runner.run(occupied(1))
    claims.clear()
    gc.collect()
    assert [] == landlord.freed
