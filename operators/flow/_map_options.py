"""What ``map_async`` and ``map_blocking`` have in common: their options."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import timedelta
from typing import Any, Literal, TypeVar

import attrs

from rxdispatch.callables import is_generator, plain_function
from rxdispatch.checks import integer
from rxdispatch.errors import ConfigError
from rxdispatch.protocols import Limit
from rxdispatch.seconds import seconds

__all__ = ["MapOptions", "OnError"]

T = TypeVar("T")
R = TypeVar("R")

OnError = Literal["stop", "skip"] | Callable[[T, BaseException], R]


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
    on_error: Literal["stop", "skip"] | Callable[[Any, BaseException], Any]

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
        on_error: Literal["stop", "skip"] | Callable[[Any, Any], Any],
    ) -> MapOptions:
        """
        Return the options, or raise for the first one that breaks its rule.

        Raises:
            ConfigError: If an option breaks its rule.
        """
        if not callable(fn):
            raise ConfigError("fn must be callable", fn)
        # It would be called for each item, and nothing of its body would run.
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
        # Else its coroutine would be taken for the key, or the replacement, and never awaited.
        if key is not None:
            plain_function("key", key)
        if on_error not in ("stop", "skip") and not callable(on_error):
            raise ConfigError('on_error must be "stop", "skip" or callable', on_error)
        if on_error not in ("stop", "skip"):
            plain_function("on_error", on_error)
        span = None if timeout is None else seconds("timeout", timeout, zero=False)
        return cls(name, fn, most, adaptive, ordered, key, span, on_error)
