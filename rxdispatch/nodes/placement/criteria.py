"""``Criteria``: what a selection requires of a node, checked once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

import attrs

from rxdispatch.checks import strings
from rxdispatch.errors import ConfigError
from rxdispatch.node import NOTHING, Node
from rxdispatch.nodes.placement.strategies import (
    STRATEGY_NAMES,
    Choose,
    Cost,
    StrategyName,
    chooser,
)

__all__ = ["Criteria", "Spec"]

Spec = tuple[str | None, frozenset[tuple[str, str]]]
"""Pool and labels: the part of the criteria that heartbeats do not affect."""

_NOTHING: Final[frozenset[tuple[str, str]]] = frozenset()
_DEFAULT: Final = "power_of_two"
_FEW: Final = 3
_LIMIT: Final = 200


def _pool(given: Any) -> str | None:
    if given is not None and (not isinstance(given, str) or not 1 <= len(given) <= _LIMIT):
        raise ConfigError(f"pool must be a str of 1 to {_LIMIT} characters or None", given)
    return given


def _labels(given: Any) -> Mapping[str, str]:
    return strings("labels", given) or NOTHING


def _where(given: Any) -> Callable[[Node], bool] | None:
    # A coroutine would count as true, and would never run.
    if given is not None and (not callable(given) or inspect.iscoroutinefunction(given)):
        raise ConfigError("where must be a plain function or None", given)
    return cast("Callable[[Node], bool] | None", given)


def _exclude(given: Any) -> frozenset[str]:
    # A str is an iterable of str too, but not of the ids that were meant.
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError("exclude must be an iterable of node ids", given)
    ids: list[str] = []
    for one in given:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(one, str):
            raise ConfigError("exclude must hold node ids", one)
        ids.append(one)
    return frozenset(ids)


def _strategy(given: Any) -> StrategyName | Cost:
    if isinstance(given, str) and given in STRATEGY_NAMES:
        return given
    if not callable(given) or inspect.iscoroutinefunction(given):
        names = ", ".join(STRATEGY_NAMES)
        raise ConfigError(f"strategy must be one of {names} or a plain function", given)
    return cast("Cost", given)


@attrs.frozen(slots=True, kw_only=True)
class Criteria:
    """
    What a selection requires of a node, and which matching node it prefers.

    Args:
        pool: The pool of the node; None for any.
        labels: Labels that the node must have, with these values; it may have others.
        where: A plain function that returns whether a node matches, for conditions that pool and
            labels cannot express. It is called only for nodes that have room and meet the other
            criteria; an error that it raises reaches the caller.
        exclude: Ids of nodes that never match.
        strategy: Which of the matching nodes comes first:

            - ``"power_of_two"``: the less loaded of two random nodes. It costs the same in a fleet
              of any size, and processes do not herd; all others look at every node with room.
            - ``"least_loaded"``: the node with the smallest share of its slots taken.
            - ``"bin_pack"``: the fullest node that still has room.
            - ``"spread"``: the node with the fewest jobs, whatever its capacity.
            - ``"sticky"``: the same node for the same *key*, as long as it has room.
            - a plain function of a node and its load (jobs divided by capacity, a float) that
              returns the cost of choosing it, a number; the lowest comes first.
        key: For ``"sticky"``: what stays on one node, such as a user, a model or a session.

    Raises:
        ConfigError: If an argument is invalid.

    Example:
        >>> print(Criteria(pool="gpu", labels={"zone": "a"}))
        pool='gpu', labels={'zone': 'a'}
    """

    pool: str | None = attrs.field(default=None, converter=_pool)
    labels: Mapping[str, str] = attrs.field(default=NOTHING, converter=_labels, eq=False)
    where: Callable[[Node], bool] | None = attrs.field(default=None, converter=_where)
    exclude: frozenset[str] = attrs.field(default=frozenset(), converter=_exclude)
    strategy: StrategyName | Cost = attrs.field(default=_DEFAULT, converter=_strategy)
    key: str | None = None
    #: Pool and labels as a hashable value.
    _spec: Spec = attrs.field(init=False, repr=False)
    #: The function that implements the strategy.
    _choose: Choose = attrs.field(init=False, repr=False, eq=False)
    #: Whether it looks at every node with room.
    _scans: bool = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        key: Any = self.key
        if self.strategy == "sticky":
            if not isinstance(key, str):
                raise ConfigError("key must be a str where the strategy is sticky", key)
        elif key is not None:
            raise ConfigError("key must be None unless the strategy is sticky", key)
        items = frozenset(self.labels.items()) if self.labels else _NOTHING
        object.__setattr__(self, "_spec", (self.pool, items))
        object.__setattr__(self, "_choose", chooser(self.strategy, key))
        object.__setattr__(self, "_scans", self.strategy != _DEFAULT)

    @classmethod
    def _of(cls, **criteria: Any) -> Criteria:
        """
        Return the criteria with these arguments, which a caller of the feed has passed.

        Raises:
            ConfigError: If a name is unknown, or an argument is invalid.

        Example:
            >>> Criteria._of(pool="gpu") == Criteria(pool="gpu")
            True
        """
        unknown = [name for name in criteria if name not in _NAMES]
        if unknown:
            raise ConfigError(f"criteria must be among {', '.join(_NAMES)}", unknown[0])
        return cls(**criteria)

    def __str__(self) -> str:
        parts: list[str] = []
        if self.pool is not None:
            parts.append(f"pool={self.pool!r}")
        if self.labels:
            parts.append(f"labels={dict(self.labels)!r}")
        if self.where is not None:
            parts.append(f"where={_name(self.where)}")
        if self.exclude:
            many = len(self.exclude) > _FEW
            parts.append(f"exclude={f'{len(self.exclude)} ids' if many else sorted(self.exclude)}")
        if callable(self.strategy):
            parts.append(f"strategy={_name(self.strategy)}")
        elif self.strategy != _DEFAULT:
            parts.append(f"strategy={self.strategy!r}")
        if self.key is not None:
            parts.append(f"key={self.key!r}")
        text = ", ".join(parts) or "any pool"
        return text if len(text) <= _LIMIT else f"{text[:_LIMIT]}..."


_NAMES: Final = tuple(field.name for field in attrs.fields(Criteria) if field.init)


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)
