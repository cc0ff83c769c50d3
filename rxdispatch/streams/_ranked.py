"""``RankedIngress``: an ingress that emits the waiting item of the lowest rank first."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

from rxdispatch.errors import ConfigError
from rxdispatch.overflow import POLICIES, Overflow
from rxdispatch.streams._ingress import Ingress

__all__ = ["Ranked", "RankedIngress"]

T = TypeVar("T")


class Ranked(Generic[T]):
    """An item with its rank; a lower rank goes first."""

    __slots__ = ("item", "rank")

    def __init__(self, rank: float, item: T) -> None:
        self.rank = rank
        self.item = item


class RankedIngress(Ingress[Any], Generic[T]):
    """
    An ingress that emits items by rank, and items of equal rank in the order of arrival.

    Subclasses put in :class:`Ranked` objects. *overflow*, *admit* and the subscriber get the items
    inside them.
    """

    def __init__(
        self,
        size: int,
        *,
        overflow: Overflow[T] = "wait",
        admit: Callable[[T], bool] | None = None,
    ) -> None:
        # The oldest item is not the one that matters least here.
        if overflow.__class__ is str and overflow == "drop_oldest":
            names = ", ".join(name for name in POLICIES if name != "drop_oldest")
            raise ConfigError(f"overflow must be one of {names} or callable", overflow)
        super().__init__(size, overflow=overflow, admit=admit)
        if not isinstance(overflow, str):
            self._overflow = lambda ranked: overflow(ranked.item)
        if admit is not None:
            self._admit = lambda ranked: admit(ranked.item)
        self._queue = self._heap = _Heap()


class _Heap:
    """The waiting items, by rank and then by arrival."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Any, Context]] = []
        self._arrived = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> float:
        """The rank of the next item."""
        return self._heap[0][0]

    def append(self, entry: tuple[Ranked[Any], Context], /) -> None:
        ranked, context = entry
        self._arrived += 1
        heappush(self._heap, (ranked.rank, self._arrived, ranked.item, context))

    def popleft(self) -> tuple[Any, Context]:
        _, _, item, context = heappop(self._heap)
        return item, context
