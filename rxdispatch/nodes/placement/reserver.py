"""``Reserver``: reserves slots on the nodes that a selection prefers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from rxdispatch.errors import NoCapacityError
from rxdispatch.node import Node, Slot
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.placements import Placements
from rxdispatch.nodes.placement.selector import Selector
from rxdispatch.nodes.placement.slots import Slots

__all__ = ["Reserver"]

_TRIES: Final = 5
_FALLBACKS: Final = 3
_MOST: Final = 256


class Reserver:
    """
    Picks nodes from the replica and asks the registry for slots on them, up to five times.

    Args:
        nodes: The known nodes by id; a live mapping.
        selector: Picks nodes.
        placements: Counts placements and refusals.
        slots: Reserves slots in the registry.
        refresh: Called before each pick; suspects the nodes whose ttl has run out.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        selector: Selector,
        placements: Placements,
        slots: Slots,
        refresh: Callable[[], None],
    ) -> None:
        self._nodes = nodes
        self._selector = selector
        self._placements = placements
        self._slots = slots
        self._refresh = refresh

    async def one(self, criteria: Criteria, lease: float) -> Slot:
        """
        Reserve one slot, trying three nodes in a call and making up to five calls.

        Raises:
            NoCapacityError: If no node has room.
            StoreUnavailableError: If the server does not answer.
        """
        refused: set[str] = set()
        self._refresh()
        for _ in range(_TRIES):
            nodes = self._selector.pick(criteria, _FALLBACKS + len(refused))
            nodes = [node for node in nodes if node.id not in refused][:_FALLBACKS]
            if not nodes:
                break
            self._placements.placed(nodes[0].id)
            slot = (await self._take([nodes], lease))[0]
            if slot is not None:
                return slot
            refused.update(node.id for node in nodes)
        raise NoCapacityError(str(criteria))

    async def many(self, criteria: Criteria, count: int, lease: float) -> list[Slot]:
        """Reserve up to *count* slots, at most 256, mostly in one call."""
        taken: list[Slot] = []
        try:
            for _ in range(_TRIES):
                candidates = self._candidates(criteria, min(count, _MOST) - len(taken))
                if not candidates:
                    break
                # Several candidates may have competed for the last slot of one node.
                slots = await self._take(candidates, lease)
                taken += [slot for slot in slots if slot is not None]
        except BaseException:
            self._slots.release_later([slot.id for slot in taken])
            raise
        return taken

    def _candidates(self, criteria: Criteria, count: int) -> list[list[Node]]:
        candidates: list[list[Node]] = []
        self._refresh()
        for _ in range(count):
            nodes = self._selector.pick(criteria, _FALLBACKS)
            if not nodes:
                break
            self._placements.placed(nodes[0].id)
            candidates.append(nodes)
        return candidates

    async def _take(self, candidates: list[list[Node]], lease: float) -> list[Slot | None]:
        """Reserve a slot on one node of each list; its first node already counts as placed."""
        slots = await self._slots.take(candidates, lease)
        for nodes, slot in zip(candidates, slots, strict=True):
            for node in nodes:
                if slot is not None and slot.node is node:
                    break
                if node is nodes[0]:
                    self._placements.unplaced(node.id)
                self._placements.refused(node.id)
            if slot is not None:
                self._placements.accepted(slot.node.id)
                # With the reply came the node's new state, which counts this job.
                slot.node = self._nodes.get(slot.node.id, slot.node)
        return slots
