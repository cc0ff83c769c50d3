"""Users' functions that are refused when they are passed, before anything calls them."""

from __future__ import annotations

import functools
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from rxdispatch.callables import check_function, is_async
from rxdispatch.errors import ConfigError
from rxdispatch.operators.tasks._execute import execute


def generator(task: Any) -> Iterator[Any]:
    """Yield, by mistake."""
    yield task


async def agenerator(task: Any) -> AsyncIterator[Any]:
    """Yield, by mistake."""
    yield task


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a wrapper of *function* that names it as ``__wrapped__``."""

    @functools.wraps(function)
    def call(task: Any) -> Any:
        return function(task)

    return call


class Generates:
    """An object whose call is a generator."""

    def __call__(self, task: Any) -> Iterator[Any]:
        yield task

    def method(self, task: Any) -> Iterator[Any]:
        yield task

    async def amethod(self, task: Any) -> AsyncIterator[Any]:
        yield task

    @staticmethod
    def static(task: Any) -> Iterator[Any]:
        yield task


@pytest.mark.parametrize(
    "handler",
    [
        generator,
        agenerator,
        functools.partial(generator),
        functools.partial(functools.partial(agenerator)),
        Generates(),
        Generates().method,
        Generates().amethod,
        Generates.static,
        functools.partial(Generates().amethod),
        decorated(generator),
        decorated(decorated(agenerator)),
        functools.partial(decorated(generator)),
        functools.lru_cache(generator),
    ],
)
def test_a_generator_function_is_refused(handler: Any) -> None:
    """A generator function is refused however it is wrapped, as calling it runs nothing."""
    with pytest.raises(ConfigError) as caught:
        execute(handler)
    rule = "handler must not be a generator function, as calling one runs none of its code, got "
    assert str(caught.value).startswith(rule)


@types.coroutine
def old_style(task: Any) -> Iterator[Any]:
    """Return a coroutine of the kind that existed before ``async def``."""
    yield task


async def consumes(task: Any) -> list[Any]:
    """Use an async generator as intended."""
    return [item async for item in agenerator(task)]


class Calls:
    """An object whose call is a coroutine function."""

    async def __call__(self, task: Any, more: int = 5, *rest: Any, **named: Any) -> None:
        del task, more, rest, named


def with_more(task: Any, *, more: int = 3) -> Any:
    """Take an optional keyword."""
    return task, more


def nothing() -> None:
    """Take no argument."""


def two(context: Any, task: Any) -> None:
    """Take a context first, as handlers of other libraries do."""


def must(task: Any, *, must: int) -> None:
    """Take a required keyword, which no worker passes."""


def one(task: Any) -> None:
    """Take a task."""


_EMPTY: dict[Any, Any] = {}


@pytest.mark.parametrize(
    ("handler", "async_"),
    [
        (old_style, False),
        (consumes, True),
        (functools.wraps(agenerator)(consumes), True),
        (Calls(), True),
        (functools.partial(Calls(), more=7), True),
        (print, False),
        (int, False),
        (_EMPTY.get, False),
        (with_more, False),
        (decorated(consumes), False),
        (functools.lru_cache(decorated(print)), False),
    ],
)
def test_what_can_be_called_with_a_task_is_taken(handler: Any, async_: bool) -> None:
    """A handler is accepted if it can take a task, even if its parameters are unknown."""
    execute(handler)
    assert async_ == is_async(handler)


@pytest.mark.parametrize(
    ("handler", "got"),
    [
        (nothing, "nothing()"),
        (two, "two(context, task)"),
        (must, "must(task, must)"),
        (functools.partial(one, 5), "one()"),
    ],
)
def test_what_takes_other_arguments_is_refused(handler: Any, got: str) -> None:
    """The error states the rule and the parameters of the handler."""
    with pytest.raises(ConfigError) as caught:
        execute(handler)
    assert str(caught.value).startswith("handler must take 1 argument (task), got ")
    assert got in str(caught.value)


def test_a_function_that_leads_in_circles_or_lies_is_no_trouble() -> None:
    """A function whose ``__wrapped__`` or ``__signature__`` is wrong is accepted."""

    def circle(task: Any) -> None:
        del task

    circle.__wrapped__ = circle  # type: ignore[attr-defined]
    check_function("handler", circle, "task")

    def liar(task: Any) -> None:
        del task

    liar.__signature__ = 5  # type: ignore[attr-defined]
    check_function("handler", liar, "task")
