"""The kinds of functions that users pass."""

from __future__ import annotations

import functools
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from rxdispatch import operators as ops
from rxdispatch.callables import discard_unread, is_async, is_generator, plain_function
from rxdispatch.errors import ConfigError


def plain(item: object = None) -> object:
    """Return at once."""
    return item


async def coroutine(item: object = None) -> object:
    """Return when awaited."""
    return item


def generator(item: object = None) -> Iterator[object]:
    """Run when iterated."""
    yield item


async def async_generator(item: object = None) -> AsyncIterator[object]:
    """Run when iterated with ``async for``."""
    yield item


@types.coroutine
def old_coroutine(item: object = None) -> Iterator[Any]:
    """Return when awaited, as coroutines did before ``async def``."""
    yield item


class Callable:
    """An object whose call is a generator."""

    def __call__(self, item: object = None) -> Iterator[object]:
        """Run when iterated."""
        yield item


class Class:
    """A class whose call makes an instance; only the call of an instance is async."""

    async def __call__(self) -> None:
        """Return when awaited."""


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (plain, (False, False)),
        (coroutine, (True, False)),
        (generator, (False, True)),
        (async_generator, (False, True)),
        (old_coroutine, (False, False)),
        (functools.partial(functools.partial(generator), 1), (False, True)),
        (functools.partial(coroutine), (True, False)),
        (Callable(), (False, True)),
        (Callable, (False, False)),
        (Class(), (True, False)),
        (Class, (False, False)),
        (len, (False, False)),
        (int, (False, False)),
    ],
)
def test_kinds(fn: Any, expected: tuple[bool, bool]) -> None:
    """Async and generator functions are recognized in partials and callable objects too."""
    assert expected == (is_async(fn), is_generator(fn))


@pytest.mark.parametrize("fn", [coroutine, generator, async_generator, Callable(), Class()])
def test_what_is_no_plain_function(fn: Any) -> None:
    """A function of another kind is refused as a key."""
    with pytest.raises(ConfigError, match="key must be a plain function"):
        plain_function("key", fn)


def test_what_cannot_be_called() -> None:
    """The error says so."""
    nothing: Any = 3
    with pytest.raises(ConfigError, match="key must be callable, got 3"):
        plain_function("key", nothing)
    assert plain is plain_function("key", plain)


def test_work_that_nobody_has_done() -> None:
    """Coroutines and generators are recognized; a list is a result."""
    work = coroutine()
    assert [True, True, True, False] == [
        bool(discard_unread(one)) for one in (work, generator(), async_generator(), [1])
    ]
    work.close()


@pytest.mark.parametrize("fn", [generator, async_generator, functools.partial(generator)])
def test_operators_refuse_generator_functions(fn: Any) -> None:
    """The call that makes the operator refuses them: their body would never run."""
    with pytest.raises(ConfigError, match="fn must not be a generator function"):
        ops.map_async(fn)
    with pytest.raises(ConfigError, match="fn must not be a generator function"):
        ops.map_blocking(fn)
    for make in (
        lambda: ops.map_async(coroutine, key=fn),
        lambda: ops.map_async(coroutine, on_error=fn),
        lambda: ops.conflate(key=fn),
        lambda: ops.conflate(merge=fn),
        lambda: ops.prioritize(fn, size=1),
        lambda: ops.delay_until(fn),
        lambda: ops.buffer_bounded(1, fn),
    ):
        with pytest.raises(ConfigError, match="must be a plain function"):
            make()
