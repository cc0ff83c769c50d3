"""``Ranked``: an item with a number that says when it goes, and the line of such items."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

from rxdispatch.errors import ConfigError
from rxdispatch.overflow import Overflow
from rxdispatch.streams._ingress import Ingress

__all__ = ["Ranked", "RankedIngress"]

T = TypeVar("T")


class Ranked(Generic[T]):
    """An item that waits; a lower rank goes first."""

    __slots__ = ("item", "rank")

    def __init__(self, rank: float, item: T) -> None:
        self.rank = rank
        self.item = item


class RankedIngress(Ingress[Any], Generic[T]):
    """
    An ingress whose items leave by rank, those of equal rank in the order of arrival.

    Those who derive from it put in :class:`Ranked`; *overflow*, *admit* and the subscriber are
    given the items themselves.
    """

    def __init__(
        self,
        size: int,
        *,
        overflow: Overflow[T],
        admit: Callable[[T], bool] | None,
    ) -> None:
        # Which one is the oldest says nothing here about which one is to be missed least.
        if overflow.__class__ is str and overflow == "drop_oldest":
            raise ConfigError(
                "overflow must be one of wait, drop_newest, error or callable", overflow
            )
        super().__init__(size, overflow=overflow, admit=admit)
        if not isinstance(overflow, str):
            self._overflow = lambda ranked: overflow(ranked.item)
        self._queue = self._heap = _Heap()

    def _ask(self, item: Ranked[T]) -> None:
        super()._ask(item.item)


class _Heap:
    """Items by rank, then by number of arrival."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Any, Context]] = []
        self._arrived = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> float:
        """The rank of the item that is next."""
        return self._heap[0][0]

    def append(self, entry: tuple[Ranked[Any], Context], /) -> None:
        ranked, context = entry
        self._arrived += 1
        heappush(self._heap, (ranked.rank, self._arrived, ranked.item, context))

    def popleft(self) -> tuple[Any, Context]:
        _, _, item, context = heappop(self._heap)
        return item, context
