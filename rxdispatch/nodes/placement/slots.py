"""``Slots``: reservations that this process holds, renewed until they are released."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence

from redis.exceptions import ResponseError
from uuid_utils import uuid7

from rxdispatch.clock import lease_clock_of
from rxdispatch.errors import RxDispatchError, StoreUnavailableError
from rxdispatch.failure import describe
from rxdispatch.log import get_logger
from rxdispatch.node import Node, Slot
from rxdispatch.nodes.engine import FleetEngine

__all__ = ["Slots"]

log = get_logger(__name__)

_BATCH = 256


class Slots:
    """
    Reserves, renews and releases, many in one call.

    INVARIANT. A slot in ``_held`` is renewed at a third of its lease. Its ``deadline`` was
    counted from before the call that the registry answered, so it is never later than the
    registry's. Once it has passed the slot is lost, leaves ``_held`` and is not renewed.

    Args:
        engine: The registry.
        refused: Given the message with the nodes that refused, as they are.
    """

    def __init__(self, engine: FleetEngine, refused: Callable[[bytes], None]) -> None:
        self._engine = engine
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._clock = lease_clock_of(self._loop)
        self._held: dict[str, tuple[Slot, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._leaving: dict[str, None] = {}
        self._leave: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def held(self) -> int:
        """How many are held."""
        return len(self._held)

    async def take(self, wanted: Sequence[Sequence[Node]], lease: float) -> list[Slot | None]:
        """
        Reserve a slot on the first of some nodes that has room, for each of *wanted*.

        Args:
            wanted: At most 256 lists of nodes, each the best first.
            lease: Seconds.

        Returns:
            For each a slot, or None where all refused.

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
            # It may have been done all the same. Should it be on its way still, the lease ends it.
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
        """Give *slot* back; if the server cannot be reached its lease will end it."""
        self.release_later([slot.id])
        task = self._leave
        if task is not None:
            await asyncio.shield(task)

    def release_later(self, slots: Iterable[str]) -> None:
        """Give slots back in the background, whether they are held or not."""
        for name in slots:
            held = self._held.pop(name, None)
            if held is not None and not held[0].lost:
                held[0].deadline = math.inf  # given back in time, so never lost
            self._leaving[name] = None
        if self._leaving and self._leave is None:
            self._leave = self._loop.create_task(self._depart())

    async def close(self) -> None:
        """Give back what is held, as far as the server can be reached."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        self.release_later(tuple(self._held))
        if self._leave is not None:
            await asyncio.gather(self._leave, return_exceptions=True)

    async def _depart(self) -> None:
        try:
            while self._leaving:
                await asyncio.sleep(0)  # more may come in this turn of the loop
                ids = list(self._leaving)[:_BATCH]
                for slot in ids:
                    del self._leaving[slot]
                try:
                    await self._engine.release(ids)
                except (RxDispatchError, ResponseError) as error:
                    log.warning("slots_not_released", count=len(ids), error=str(error))
        finally:
            self._leave = None

    # -- renewal -----------------------------------------------------------------------------

    def _schedule(self, delay: float) -> None:
        """Renew in *delay* seconds, unless that happens sooner anyway."""
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
                # Renewed: a third of the lease. Not renewed: soon again, and when a lease ends.
                self._schedule(max(0.0, min(third, soonest if soonest < 0.05 else soonest / 3)))

    async def _renew(self) -> None:
        leases: dict[float, list[str]] = {}
        for name, (_, lease) in self._held.items():
            leases.setdefault(lease, []).append(name)
        # At once: where the server does not answer, each batch waits until a lease ends.
        async with asyncio.TaskGroup() as group:
            for lease, names in leases.items():
                for at in range(0, len(names), _BATCH):
                    group.create_task(self._renew_batch(names[at : at + _BATCH], lease))

    async def _renew_batch(self, names: list[str], lease: float) -> None:
        started = self._clock()
        ends = [self._held[name][0].deadline for name in names if name in self._held]
        if not ends:
            return  # given back before this batch had its turn
        try:
            # A server that does not answer must not keep us from noticing that a lease passed.
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
        """Give up the slots whose lease has passed unconfirmed."""
        for name in [name for name, (slot, _) in self._held.items() if slot.lost]:
            self._lose(name)

    def _lose(self, name: str) -> None:
        found = self._held.pop(name, None)
        if found is not None:
            slot = found[0]
            slot.revoked = True
            log.warning("slot_lost", node=slot.node.id, slot=slot.id)
