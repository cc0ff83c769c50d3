"""Checks of users' functions and of their results."""

from __future__ import annotations

import functools
import inspect
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final, TypeVar

from rxdispatch.errors import ConfigError

__all__ = [
    "check_function",
    "check_result",
    "discard_unread",
    "is_async",
    "is_generator",
    "name_of_function",
    "plain_function",
]

F = TypeVar("F")

_UNRUN: Final = (GeneratorType, AsyncGeneratorType, CoroutineType)


def is_async(function: Any) -> bool:
    """Whether *function* is a coroutine function, or a partial or callable object around one."""
    return any(inspect.iscoroutinefunction(layer) for layer in _layers(function))


def is_generator(function: Any) -> bool:
    """
    Whether a call of *function* only returns a generator, so that its body does not run.

    Example:
        >>> is_generator(lambda: (yield 1)), is_generator(len)
        (True, False)
    """
    layers = _layers(function)
    if not any(inspect.iscoroutinefunction(layer) for layer in layers):
        layers += [inner for layer in layers for inner in _wrapped(layer)]
    return any(map(_generates, layers))


def discard_unread(value: Any) -> str:
    """
    Return the type name of a coroutine or a generator that has not run; else an empty string.

    A coroutine is closed too, so that Python does not warn that nothing awaited it.
    """
    given: object = value
    kind = type(given)
    if kind not in _UNRUN:
        return ""
    if kind is CoroutineType:
        value.close()
    return kind.__name__


def plain_function(name: str, function: F) -> F:
    """
    Return *function*, which must be a plain function.

    A caller would take the coroutine or the generator of any other function for its result.

    Raises:
        ConfigError: If it is not callable, a coroutine function or a generator function.
    """
    if not callable(function):
        raise ConfigError(f"{name} must be callable", function)
    if is_async(function) or is_generator(function):
        raise ConfigError(f"{name} must be a plain function", function)
    return function


def name_of_function(function: Any) -> str:
    """Return the name of *function* for messages; never its repr, which may contain values."""
    named: list[Any] = [_bare(function), type(function)]
    for layer in named:
        name = getattr(layer, "__qualname__", None)
        if isinstance(name, str):
            return name
    return "function"


def check_function(what: str, function: Any, *arguments: str) -> None:
    """
    Refuse a function that cannot be called with *arguments*.

    Args:
        what: Its name in the error, such as ``"handler"``.
        function: The function; may be a partial, a callable object or a decorated function.
        *arguments: The names of its positional arguments.

    Raises:
        ConfigError: If it is not callable; if it is a generator function, whose call runs
            nothing; or if it is known not to take *arguments*.
    """
    if not callable(function):
        raise ConfigError(f"{what} must be callable", function)
    if is_generator(function):
        raise ConfigError(
            f"{what} must not be a generator function, as calling one runs none of its code",
            name_of_function(function),
        )
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:
        return  # it is written in C, or hides its signature
    try:
        signature.bind(*arguments)
    except TypeError:
        count = "1 argument" if len(arguments) == 1 else f"{len(arguments)} arguments"
        named = f" ({', '.join(arguments)})" if arguments else ""
        raise ConfigError(
            f"{what} must take {count}{named}",
            f"{name_of_function(function)}({', '.join(signature.parameters)})",
        ) from None


def check_result(what: str, result: Any) -> None:
    """
    Refuse a result that is a generator or a coroutine, whose work has not been done.

    Raises:
        TypeError: If it is one; a coroutine is closed.
    """
    if kind := discard_unread(result):
        named = _article(kind.replace("_", " "))
        raise TypeError(f"{what} must return a result, got {named} that has not run")


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] == "a" else f"a {kind}"


def _bare(function: Any) -> Any:
    bare: Any = function
    while issubclass(type(bare), functools.partial):
        bare = bare.func
    return bare


def _layers(function: Any) -> list[Any]:
    """Return the function without its partials and, for a callable object, its ``__call__``."""
    bare = _bare(function)
    given: object = bare
    kind = type(given)
    if inspect.isroutine(bare) or inspect.isclass(bare):
        return [bare]
    return [bare, getattr(kind, "__call__", None)]  # noqa: B004 - the method is looked at


def _wrapped(function: Any) -> list[Any]:
    """Return the functions that *function* wraps, from the outside inwards."""
    found: list[Any] = []
    while len(found) < 100:
        function = getattr(_bare(function), "__wrapped__", None)
        if function is None or inspect.iscoroutinefunction(function):
            break
        found.append(_bare(function))
    return found


def _generates(function: Any) -> bool:
    if inspect.isasyncgenfunction(function):
        return True
    # A function made by types.coroutine is a generator function too, but can be awaited.
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    awaited = code is not None and code.co_flags & inspect.CO_ITERABLE_COROUTINE
    return inspect.isgeneratorfunction(function) and not awaited
