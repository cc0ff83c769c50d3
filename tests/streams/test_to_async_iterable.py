"""``to_async_iterable``: reading, the valve, leaving early, and errors."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import aclosing
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex.disposable import Disposable
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.errors import ConfigError
from rxdispatch.streams._kill_switch import KillSwitch
from rxdispatch.streams._to_async_iterable import to_async_iterable
from rxdispatch.testing import Supply, run_virtual


async def read(stream: Observable[Any], **options: Any) -> list[Any]:
    """Read *stream* to its end."""
    return [item async for item in to_async_iterable(stream, **options)]


# ---------------------------------------------------------------- values


def test_it_yields_what_the_stream_emits() -> None:
    """The items may come at once or later."""
    assert [1, None, 3] == run_virtual(read(reactivex.of(1, None, 3)))
    assert [] == run_virtual(read(reactivex.empty()))

    async def ticks() -> list[Any]:
        source: Subject[int] = Subject()
        reading = asyncio.create_task(read(source))
        for n in range(3):
            await asyncio.sleep(1)
            source.on_next(n)
        source.on_completed()
        return await reading

    assert [0, 1, 2] == run_virtual(ticks())


async def test_it_subscribes_when_it_is_first_read() -> None:
    """The iterator subscribes once."""
    source: Subject[int] = Subject()
    items = to_async_iterable(source)
    assert [] == source.observers
    waiting = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0)
    assert 1 == len(source.observers)
    source.on_next(1)
    source.on_next(2)
    assert [1, 2] == [await waiting, await anext(items)]
    await items.aclose()


async def test_after_the_end_there_is_nothing() -> None:
    """Every further read ends at once."""
    items = to_async_iterable(reactivex.of(1))
    assert 1 == await anext(items)
    for _ in range(3):
        assert await anext(items, None) is None


# ---------------------------------------------------------------- demand


def test_the_valve_is_closed_while_the_reader_is_slow() -> None:
    """The source is never ahead by more than *size* items."""

    async def main() -> list[int]:
        paced = Supply(range(50))
        ahead: list[int] = []
        async for n in to_async_iterable(paced, size=4):
            await asyncio.sleep(1)
            ahead.append(paced.sent - n - 1)
        return ahead

    with capture_logs() as logs:
        ahead = run_virtual(main())
    assert [4] * 46 + [3, 2, 1, 0] == ahead
    assert [] == logs


def test_a_source_that_cannot_wait_is_kept_and_named() -> None:
    """Nothing is lost, and ``no_demand`` is logged once."""
    with capture_logs() as logs:
        assert list(range(9)) == run_virtual(read(reactivex.range(9), size=2))
    assert [
        {"event": "no_demand", "operator": "to_async_iterable", "limit": 2, "log_level": "warning"}
    ] == logs


# ---------------------------------------------------------------- leaving


async def test_leaving_the_loop_is_enough() -> None:
    """Leaving drops the only reference to the iterator."""
    source: Subject[int] = Subject()
    asyncio.get_running_loop().call_soon(source.on_next, 1)
    async for _ in to_async_iterable(source):
        break
    assert [] == source.observers
    gc.disable()
    try:
        asyncio.get_running_loop().call_soon(source.on_next, 1)
        async for _ in to_async_iterable(source):
            break
        assert [] == source.observers
    finally:
        gc.enable()


async def test_closing_is_for_those_who_keep_it() -> None:
    """``aclose`` or ``async with`` closes it."""
    source: Subject[int] = Subject()
    for bare in (False, True):
        asyncio.get_running_loop().call_soon(source.on_next, 1)
        items = to_async_iterable(source)
        async with items if bare else aclosing(items):
            async for _ in items:
                break
            assert 1 == len(source.observers)
        assert [] == source.observers
        assert await anext(items, None) is None
        await items.aclose()


async def test_it_may_be_closed_before_it_is_read() -> None:
    """The iterator then never subscribes."""
    source: Subject[int] = Subject()
    items = to_async_iterable(source)
    await items.aclose()
    assert await anext(items, None) is None
    assert [] == source.observers


async def test_closing_ends_a_reader_that_waits() -> None:
    """The reader sees the end of the stream."""
    source: Subject[int] = Subject()
    items = to_async_iterable(source)
    waiting = asyncio.ensure_future(anext(items, None))
    await asyncio.sleep(0)
    await items.aclose()
    assert await waiting is None


async def test_a_cancelled_read_loses_nothing() -> None:
    """No item is lost, even if it arrives together with the cancellation."""
    source: Subject[int] = Subject()
    items = to_async_iterable(source)
    for together in (False, True):
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        if together:
            source.on_next(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
    assert 1 == await anext(items)
    await items.aclose()


async def test_there_is_one_reader_at_a_time() -> None:
    """A second reader gets an error."""
    source: Subject[int] = Subject()
    items = to_async_iterable(source)
    waiting = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one reader at a time"):
        await anext(items)
    source.on_next(1)
    assert 1 == await waiting
    await items.aclose()


async def test_it_may_be_let_go_of_in_another_thread() -> None:
    """The loop disposes the subscription."""
    source: Subject[int] = Subject()
    holder = [to_async_iterable(source)]
    asyncio.get_running_loop().call_soon(source.on_next, 1)
    assert 1 == await anext(holder[0])
    thread = threading.Thread(target=holder.clear)
    thread.start()
    thread.join()
    assert 1 == len(source.observers)
    await asyncio.sleep(0)
    assert [] == source.observers


# ---------------------------------------------------------------- the end


def test_an_error_is_raised_after_what_came_before_it() -> None:
    """After the error, the iterator is exhausted."""
    error = OSError("x")

    async def main() -> list[Any]:
        source = reactivex.concat(reactivex.of(1, 2), reactivex.throw(error))
        items = to_async_iterable(source)
        got: list[Any] = []
        try:
            async for item in items:
                await asyncio.sleep(1)
                got.append(item)
        except OSError as caught:
            got.append(caught)
        got.append(await anext(items, "end"))
        return got

    assert [1, 2, error, "end"] == run_virtual(main())


def test_a_switch_may_end_it() -> None:
    """An abort raises its error; a drain lets the reader finish."""

    async def main(aborted: bool) -> list[Any]:
        switch = KillSwitch()
        source: Subject[int] = Subject()
        got: list[Any] = []
        stream = source.pipe(switch.gate())

        async def reading() -> None:
            try:
                got.extend([item async for item in to_async_iterable(stream)])
            except OSError as error:
                got.append(str(error))

        task = asyncio.create_task(reading())
        await asyncio.sleep(1)
        source.on_next(1)
        await asyncio.sleep(1)
        if aborted:
            switch.abort(OSError("x"))
        else:
            source.on_next(2)
            await switch.drain()
        await task
        return got

    assert ["x"] == run_virtual(main(True))
    assert [1, 2] == run_virtual(main(False))


def test_a_stream_may_push_in_other_threads() -> None:
    """The loop wakes up."""
    threads: list[threading.Thread] = []

    def subscribe(observer: Any, scheduler: Any = None) -> Any:
        def other() -> None:
            for n in range(3):
                observer.on_next(n)
            observer.on_completed()

        threads.append(threading.Thread(target=other))
        threads[0].start()
        return Disposable()

    assert [0, 1, 2] == run_virtual(read(Observable[Any](subscribe)))
    threads[0].join()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1,), "source must be an Observable, got 1"),
        ((reactivex.empty(), 0), "size must be an int >= 1, got 0"),
    ],
)
def test_a_bad_argument_is_refused(arguments: Any, message: str) -> None:
    """The call refuses it."""
    source, *size = arguments
    with pytest.raises(ConfigError, match=message):
        to_async_iterable(source, **({"size": size[0]} if size else {}))
