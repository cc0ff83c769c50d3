"""``checkpoint`` adds notes to errors."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from reactivex.subject import Subject

from rxdispatch.backoff import Backoff
from rxdispatch.errors import ConfigError
from rxdispatch.operators.flow._checkpoint import checkpoint
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._retry_backoff import retry_backoff
from rxdispatch.testing import Supply, run_virtual
from tests.operators.flow.runs import to_list


def test_an_error_tells_where_it_passed() -> None:
    """The same error object passes, with notes in the order of the stages."""
    error = KeyError("x")
    stream = reactivex.throw(error).pipe(checkpoint("read"), rx.map(str), checkpoint("parse"))
    with pytest.raises(KeyError) as caught:
        run_virtual(to_list(stream))
    assert caught.value is error
    assert ["passed checkpoint 'read'", "passed checkpoint 'parse'"] == error.__notes__
    assert "passed checkpoint 'parse'" in "".join(traceback.format_exception(error))


def test_only_what_failed_above_it_is_noted() -> None:
    """Only checkpoints below the failure add a note, so the first note names the failed stage."""

    async def fail(item: int) -> int:
        raise ValueError(item)

    stream = reactivex.of(1).pipe(checkpoint("source"), map_async(fail), checkpoint("parse"))
    with pytest.raises(ValueError, match="1") as caught:
        run_virtual(to_list(stream))
    assert ["passed checkpoint 'parse'"] == caught.value.__notes__


def test_a_name_is_noted_once() -> None:
    """A name is added once, even if the same error passes again and again."""
    error = OSError("away")
    stream = reactivex.throw(error).pipe(
        checkpoint("source"), retry_backoff(Backoff(0.1, attempts=5))
    )
    with pytest.raises(OSError, match="away"):
        run_virtual(to_list(stream))
    assert ["passed checkpoint 'source'"] == error.__notes__


def test_the_rest_passes_untouched() -> None:
    """Items, completion, demand and disposal are not affected."""

    async def main() -> list[Any]:
        paced = Supply(range(100))
        stream = paced.pipe(
            checkpoint("a"), map_async(lambda n: asyncio.sleep(1, n), max_concurrent=2), rx.take(4)
        )
        items = await to_list(stream)
        source: Subject[int] = Subject()
        source.pipe(checkpoint("a")).subscribe().dispose()
        return [items, paced.sent, len(source.observers)]

    assert [[0, 1, 2, 3], 5, 0] == run_virtual(main())


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_bad_name_is_refused(name: Any) -> None:
    """A bad name is refused when the operator is made."""
    with pytest.raises(ConfigError, match="name must be a string that is not empty"):
        checkpoint(name)
