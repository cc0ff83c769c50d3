"""What kinds of functions users give, looked at before they are called."""

from __future__ import annotations

import functools
import inspect
from types import CoroutineType, GeneratorType
from typing import Any, TypeVar

from rxdispatch.errors import ConfigError

__all__ = ["is_async", "is_generator", "is_unread", "plain_function"]

F = TypeVar("F")


def is_async(fn: Any) -> bool:
    """Tell whether *fn* is a coroutine function, also as a partial or an object's ``__call__``."""
    return any(inspect.iscoroutinefunction(form) for form in _forms(fn))


def is_generator(fn: Any) -> bool:
    """
    Tell whether a call of *fn* only makes a generator, so that nothing of its body runs.

    Example:
        >>> is_generator(lambda: (yield 1)), is_generator(len)
        (True, False)
    """
    return any(
        inspect.isasyncgenfunction(form)
        or (inspect.isgeneratorfunction(form) and not _is_old_coroutine(form))
        for form in _forms(fn)
    )


def is_unread(value: Any) -> bool:
    """Tell whether *value* is work that nobody has done: a coroutine or a generator."""
    kind = value.__class__
    return kind is CoroutineType or kind is GeneratorType or inspect.isasyncgen(value)


def plain_function(name: str, fn: F) -> F:
    """
    Return *fn*, whose calls must return their result.

    The coroutine or generator of another kind of function would be taken for the result.

    Raises:
        ConfigError: If it is not callable, a coroutine function or a generator function.
    """
    if not callable(fn):
        raise ConfigError(f"{name} must be callable", fn)
    if is_async(fn) or is_generator(fn):
        raise ConfigError(f"{name} must be a plain function", fn)
    return fn


def _forms(fn: Any) -> tuple[Any, Any]:
    """Return *fn* without partials, and what is called if that is an object."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    # Of a class a call makes an instance.
    if isinstance(fn, type):
        return fn, None
    return fn, getattr(fn.__class__, "__call__", None)  # noqa: B004


def _is_old_coroutine(fn: Any) -> bool:
    """Tell whether ``types.coroutine`` has made a generator function awaitable."""
    code = getattr(inspect.unwrap(fn) if inspect.isfunction(fn) else fn, "__code__", None)
    return bool(getattr(code, "co_flags", 0) & inspect.CO_ITERABLE_COROUTINE)
