"""``MapOptions``: the options of ``map_async`` and ``map_blocking``."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import timedelta
from typing import Any

import attrs

from rxdispatch.callables import is_generator, plain_function
from rxdispatch.checks import integer
from rxdispatch.errors import ConfigError
from rxdispatch.operators._on_error import OnError, checked_on_error
from rxdispatch.protocols import Limit
from rxdispatch.seconds import seconds

__all__ = ["MapOptions"]


@attrs.frozen(slots=True)
class MapOptions:
    """
    The options of a bounded map, checked.

    ``limit`` is the number of slots, or with ``adaptive`` the most there will ever be.
    """

    name: str
    fn: Callable[[Any], Any]
    limit: int
    adaptive: Limit | None
    ordered: bool
    key: Callable[[Any], Hashable] | None
    timeout: float | None
    on_error: OnError[Any, Any]

    @classmethod
    def checked(
        cls,
        name: str,
        fn: Callable[[Any], Any],
        *,
        max_concurrent: int | Limit,
        ordered: bool,
        key: Callable[[Any], Hashable] | None,
        timeout: float | timedelta | None,
        on_error: OnError[Any, Any],
    ) -> MapOptions:
        """
        Return the options, or raise for the first one that breaks its rule.

        Raises:
            ConfigError: If an option breaks its rule.
        """
        if not callable(fn):
            raise ConfigError("fn must be callable", fn)
        # It would be called for each item, and none of its body would run.
        if is_generator(fn):
            raise ConfigError("fn must not be a generator function", fn)
        adaptive: Limit | None = None
        if isinstance(max_concurrent, Limit):
            adaptive, most = max_concurrent, max_concurrent.maximum
        else:
            most = max_concurrent
        integer("max_concurrent", most, instead=" or a Limit")
        if ordered.__class__ is not bool:
            raise ConfigError("ordered must be True or False", ordered)
        if key is not None and not callable(key):
            raise ConfigError("key must be callable or None", key)
        # Otherwise its coroutine would serve as the key and never be awaited.
        if key is not None:
            plain_function("key", key)
        checked_on_error(on_error)
        span = None if timeout is None else seconds("timeout", timeout, zero=False)
        return cls(name, fn, most, adaptive, ordered, key, span, on_error)
