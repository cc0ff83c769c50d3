"""``install_fluent`` works on request, once, and replaces no name."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex import operators as rx
from structlog.testing import capture_logs

from rxdispatch import operators
from rxdispatch.operators import _fluent
from rxdispatch.operators._fluent import install_fluent
from rxdispatch.streams import run


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Restore Observable after the test."""
    before = dict(vars(Observable))
    added = dict(_fluent._added)
    for name in added:
        delattr(Observable, name)
    _fluent._added.clear()
    yield
    for name in vars(Observable).keys() - before.keys():
        delattr(Observable, name)
    _fluent._added.clear()
    _fluent._added.update(added)
    for name, method in added.items():
        setattr(Observable, name, method)


def _one_more(item: int) -> int:
    return item + 1


async def double(item: int) -> int:
    """Return twice the item."""
    await asyncio.sleep(0)
    return 2 * item


def test_nothing_is_added_by_importing() -> None:
    """Only a call adds the methods."""
    assert not hasattr(Observable, "map_async")


def test_every_operator_becomes_a_method() -> None:
    """The methods chain with RxPY's own, which stay unchanged."""
    theirs = vars(Observable).copy()
    assert install_fluent() == ()
    assert theirs.items() <= vars(Observable).items()
    functions = [n for n in operators.__all__ if inspect.isfunction(getattr(operators, n))]
    assert all(hasattr(Observable, name) for name in functions)
    stream: Any = reactivex.range(5)
    result = stream.map(_one_more).map_async(double, ordered=True).batch(2, 1.0)
    assert [[2, 4], [6, 8], [10]] == asyncio.run(run(result.pipe(rx.to_list())))


def test_a_method_is_documented() -> None:
    """A method has the docstring of its operator."""
    install_fluent()
    method = inspect.getattr_static(Observable, "batch")
    assert ("batch", operators.batch.__doc__) == (method.__name__, method.__doc__)


def test_a_second_call_changes_nothing() -> None:
    """A second call logs nothing either."""
    install_fluent()
    before = dict(vars(Observable))
    with capture_logs() as logs:
        assert install_fluent() == ()
    assert before == dict(vars(Observable))
    assert [] == logs


def test_an_existing_name_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is returned and logged, each time."""
    mine = object()
    monkeypatch.setattr(Observable, "batch", mine, raising=False)
    for _ in range(2):
        with capture_logs() as logs:
            assert install_fluent() == ("batch",)
        assert [("fluent_skipped", ["batch"])] == [(e["event"], e["names"]) for e in logs]
        assert inspect.getattr_static(Observable, "batch") is mine
    assert hasattr(Observable, "map_async")


def test_what_is_exported_later_is_added_by_another_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call adds the operators that are exported at that time."""
    install_fluent()
    monkeypatch.setattr(operators, "double_all", lambda: rx.map(double), raising=False)
    monkeypatch.setattr(operators, "__all__", [*operators.__all__, "double_all"])
    assert not hasattr(Observable, "double_all")
    assert install_fluent() == ()
    assert hasattr(Observable, "double_all")
