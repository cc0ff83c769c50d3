"""``Slots``: the reservations that this process holds, renewed until it releases them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence

from redis.exceptions import ResponseError
from uuid_utils import uuid7

from rxdispatch.clock import lease_clock_of
from rxdispatch.error_text import describe
from rxdispatch.errors import RxDispatchError, StoreUnavailableError
from rxdispatch.log import get_logger
from rxdispatch.node import Node, Slot
from rxdispatch.nodes.engine import FleetEngine

__all__ = ["Slots"]

log = get_logger(__name__)

_BATCH = 256


class Slots:
    """
    Reserves, renews and releases slots, many in one call.

    INVARIANT. All slots in ``_held`` are renewed together, after a third of their shortest lease.
    The ``deadline`` of a slot counts from before the call that the registry answered, so it is
    never later than the registry's. Once it has passed, the slot is lost, leaves ``_held`` and is
    not renewed.

    Args:
        engine: The registry.
        refused: Called with a message that has the present state of the nodes that refused.
    """

    def __init__(self, engine: FleetEngine, refused: Callable[[bytes], None]) -> None:
        self._engine = engine
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._clock = lease_clock_of(self._loop)
        self._held: dict[str, tuple[Slot, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._unreleased: dict[str, None] = {}
        self._releasing: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def held(self) -> int:
        """The number of slots held."""
        return len(self._held)

    async def take(self, wanted: Sequence[Sequence[Node]], lease: float) -> list[Slot | None]:
        """
        Reserve a slot for each list of nodes, on its first node that has room.

        Args:
            wanted: At most 256 lists of nodes, the best first.
            lease: Seconds.

        Returns:
            For each list a slot, or None if all its nodes refused.

        Raises:
            StoreUnavailableError: If the server does not answer.
        """
        asked = [(str(uuid7()), nodes) for nodes in wanted]
        started = self._clock()
        try:
            chosen, refusing = await self._engine.reserve(
                [(slot, [node.id for node in nodes]) for slot, nodes in asked], lease
            )
        except BaseException:
            # The server may have reserved them. If it reserves them after the release, their
            # leases end them.
            self.release_later(slot for slot, _ in asked)
            raise
        slots: list[Slot | None] = []
        for (name, nodes), choice in zip(asked, chosen, strict=True):
            slot = None
            if choice >= 0:
                slot = Slot(name, nodes[choice], started + lease, self._clock)
            if slot is not None and self._closed:
                self.release_later([name])
            elif slot is not None:
                self._held[name] = (slot, lease)
            slots.append(slot)
        if self._held:
            self._schedule(lease / 3)
        if refusing is not None:
            self._refused(refusing)
        return slots

    async def release(self, slot: Slot) -> None:
        """Give *slot* back; if the server cannot be reached, the slot ends with its lease."""
        self.release_later([slot.id])
        task = self._releasing
        if task is not None:
            await asyncio.shield(task)

    def release_later(self, slots: Iterable[str]) -> None:
        """Give slots back in the background, even if this process does not hold them."""
        for name in slots:
            held = self._held.pop(name, None)
            if held is not None and not held[0].lost:
                held[0].deadline = math.inf  # it was given back in time, so it is never lost
            self._unreleased[name] = None
        if self._unreleased and self._releasing is None:
            self._releasing = self._loop.create_task(self._release_all())

    async def close(self) -> None:
        """Give all slots back, if the server can be reached."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        self.release_later(tuple(self._held))
        if self._releasing is not None:
            await asyncio.gather(self._releasing, return_exceptions=True)

    async def _release_all(self) -> None:
        try:
            while self._unreleased:
                await asyncio.sleep(0)  # more ids may come in this turn of the loop
                ids = list(self._unreleased)[:_BATCH]
                for slot in ids:
                    del self._unreleased[slot]
                try:
                    await self._engine.release(ids)
                except (RxDispatchError, ResponseError) as error:
                    log.warning("slots_not_released", count=len(ids), error=str(error))
        finally:
            self._releasing = None

    # -- renewal -----------------------------------------------------------------------------

    def _schedule(self, delay: float) -> None:
        """Renew in *delay* seconds, unless a renewal is due sooner."""
        if self._renewal is None:
            due = self._loop.time() + delay
            if self._timer is not None:
                if self._timer.when() <= due:
                    return
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._lapse()
        if self._held:
            self._renewal = self._loop.create_task(self._renew())
            self._renewal.add_done_callback(self._renewed)

    def _renewed(self, task: asyncio.Task[None]) -> None:
        self._renewal = None
        if not task.cancelled():
            if (error := task.exception()) is not None:
                log.error("slots_not_renewed", failure=error)
            self._lapse()
            if self._held:
                third = min(lease for _, lease in self._held.values()) / 3
                soonest = min(slot.deadline for slot, _ in self._held.values()) - self._clock()
                # After a success: a third of a lease. After a failure: sooner, and when one ends.
                self._schedule(max(0.0, min(third, soonest if soonest < 0.05 else soonest / 3)))

    async def _renew(self) -> None:
        leases: dict[float, list[str]] = {}
        for name, (_, lease) in self._held.items():
            leases.setdefault(lease, []).append(name)
        # In parallel: if the server does not answer, each batch waits until a lease ends.
        async with asyncio.TaskGroup() as group:
            for lease, names in leases.items():
                for at in range(0, len(names), _BATCH):
                    group.create_task(self._renew_batch(names[at : at + _BATCH], lease))

    async def _renew_batch(self, names: list[str], lease: float) -> None:
        started = self._clock()
        ends = [self._held[name][0].deadline for name in names if name in self._held]
        if not ends:
            return  # given back before this batch started
        try:
            # Even if the server does not answer, the end of a lease must be noticed in time.
            async with asyncio.timeout(min(ends) - started):
                held = await self._engine.renew(names, lease)
        except (StoreUnavailableError, TimeoutError, ResponseError) as error:
            log.warning("slots_not_renewed", count=len(names), error=describe(error))
            return
        for name, holds in zip(names, held, strict=True):
            if not holds:
                self._lose(name)
            elif name in self._held:
                self._held[name][0].deadline = started + lease

    def _lapse(self) -> None:
        """Give up the slots whose lease ended without a renewal."""
        for name in [name for name, (slot, _) in self._held.items() if slot.lost]:
            self._lose(name)

    def _lose(self, name: str) -> None:
        found = self._held.pop(name, None)
        if found is not None:
            slot = found[0]
            slot.revoked = True
            log.warning("slot_lost", node=slot.node.id, slot=slot.id)
