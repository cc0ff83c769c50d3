"""``CriteriaArguments``: criteria as keyword arguments, made into :class:`Criteria` once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, TypedDict, cast

from rxdispatch.node import Node
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.strategies import Cost, StrategyName

__all__ = ["CriteriaArguments", "CriteriaCache"]

_MOST: Final = 256


class CriteriaArguments(TypedDict, total=False):
    """What may be asked of a node; each is explained at :class:`Criteria`."""

    pool: str | None
    labels: Mapping[str, str]
    where: Callable[[Node], bool] | None
    exclude: Iterable[str]
    strategy: StrategyName | Cost
    key: str | None


class CriteriaCache:
    """Remembers the criteria that were asked for: checking them takes longer than choosing."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Criteria] = {}

    def get(self, wanted: CriteriaArguments) -> Criteria:
        """
        Return the criteria of these arguments.

        Raises:
            ConfigError: If one breaks its rule, or has no such name.
        """
        try:
            key: Hashable = tuple(
                (name, tuple(value.items()) if value.__class__ is dict else value)
                for name, value in cast("dict[str, Any]", wanted).items()
            )
            known = self._known.get(key)
        except TypeError:
            return Criteria.of(**wanted)
        if known is None:
            known = Criteria.of(**wanted)
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = known
        return known
