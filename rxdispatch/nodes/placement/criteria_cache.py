"""``CriteriaCache``: turns keyword arguments into :class:`Criteria`, and keeps the results."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, TypedDict, cast

from rxdispatch.node import Node
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.strategies import Cost, StrategyName

__all__ = ["CriteriaArguments", "CriteriaCache"]

_MOST: Final = 256


class CriteriaArguments(TypedDict, total=False):
    """The keyword arguments of a selection; :class:`Criteria` explains each."""

    pool: str | None
    labels: Mapping[str, str]
    where: Callable[[Node], bool] | None
    exclude: Iterable[str]
    strategy: StrategyName | Cost
    key: str | None


class CriteriaCache:
    """Caches checked criteria: checking them takes longer than choosing a node."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Criteria] = {}

    def get(self, arguments: CriteriaArguments) -> Criteria:
        """
        Return the criteria with these arguments.

        Raises:
            ConfigError: If a criterion is invalid or unknown.
        """
        try:
            key: Hashable = tuple(
                (name, tuple(value.items()) if value.__class__ is dict else value)
                for name, value in cast("dict[str, Any]", arguments).items()
            )
            known = self._known.get(key)
        except TypeError:
            return Criteria._of(**arguments)
        if known is None:
            known = Criteria._of(**arguments)
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = known
        return known
