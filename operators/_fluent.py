"""``install_fluent``: the operators as methods of ``Observable``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from reactivex import Observable

from rxdispatch import operators
from rxdispatch.log import get_logger

__all__ = ["install_fluent"]

log = get_logger(__name__)

# The methods that were added, by name, so that a second call recognises them.
_added: dict[str, Callable[..., Any]] = {}


def install_fluent() -> tuple[str, ...]:
    """
    Add every operator of ``rxdispatch.operators`` to ``Observable`` as a method.

    Then ``source.map_async(fetch).batch(100, 1.0)`` is the same as
    ``source.pipe(ops.map_async(fetch), ops.batch(100, 1.0))``. Use it in programs, not in
    libraries: it changes a class that other packages share. Type checkers do not know the methods.

    A name that ``Observable`` already has is skipped. A second call adds only what is new.

    Returns:
        The names that were skipped, sorted; they are logged as ``fluent_skipped`` too.

    Example:
        >>> import asyncio, reactivex
        >>> from rxdispatch.streams import run
        >>> install_fluent()
        ()
        >>> asyncio.run(run(reactivex.range(5).batch(2, 1.0)))
        [4]
    """
    skipped: list[str] = []
    for name in sorted(operators.__all__):
        operator = getattr(operators, name)
        if not inspect.isfunction(operator):
            continue
        present = inspect.getattr_static(Observable, name, None)
        if present is None:
            _added[name] = method = _method(operator)
            setattr(Observable, name, method)
        elif present is not _added.get(name):
            skipped.append(name)
    if skipped:
        log.warning("fluent_skipped", names=skipped)
    return tuple(skipped)


def _method(operator: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(operator)
    def method(self: Observable[Any], *args: Any, **options: Any) -> Observable[Any]:
        return self.pipe(operator(*args, **options))

    return method
