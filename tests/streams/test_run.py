"""``run``: results, errors, and cancellation."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex import operators as rx
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from rxdispatch.clock import LoopScheduler
from rxdispatch.streams import run
from rxdispatch.testing import run_virtual


def test_it_returns_the_last_item() -> None:
    """The stream may end at once or later."""
    assert run_virtual(run(reactivex.of(1, 2, 3))) == 3
    assert run_virtual(run(reactivex.interval(1.0).pipe(rx.take(3)))) == 2


def test_it_returns_none_for_an_empty_stream() -> None:
    """An empty stream has no last item."""
    assert run_virtual(run(reactivex.empty())) is None


@pytest.mark.parametrize("error", [OSError("x"), asyncio.CancelledError("x")])
def test_it_raises_the_error_itself(error: Any) -> None:
    """``run`` raises the same instance, whatever it is."""

    def subscribe(observer: Any, scheduler: Any = None) -> Any:
        observer.on_error(error)
        return Disposable()

    async def main() -> bool:
        try:
            await run(Observable[Any](subscribe))
        except BaseException as caught:
            return caught is error
        return False

    assert run_virtual(main())


def test_it_leaves_no_subscription() -> None:
    """No subscription is left after the end or after a cancellation."""

    async def main() -> list[int]:
        seen: list[int] = []
        for cancelled in (False, True):
            source: Subject[int] = Subject()
            task = asyncio.ensure_future(run(source))
            await asyncio.sleep(1)
            seen.append(len(source.observers))
            if cancelled:
                task.cancel()
            else:
                source.on_completed()
            await asyncio.wait([task])
            seen.append(len(source.observers))
            seen.append(task.cancelled())
        return seen

    assert [1, 0, False, 1, 0, True] == run_virtual(main())


def test_its_scheduler_is_on_the_loop() -> None:
    """Timed operators take their time from it."""

    async def main() -> list[Any]:
        found: list[Any] = []

        def subscribe(observer: Any, scheduler: Any = None) -> Any:
            found.append(scheduler)
            observer.on_completed()
            return Disposable()

        await run(Observable[Any](subscribe))
        return [isinstance(found[0], LoopScheduler), found[0].loop is asyncio.get_running_loop()]

    assert [True, True] == run_virtual(main())


def test_a_stream_may_end_in_another_thread() -> None:
    """The loop wakes up."""
    threads: list[threading.Thread] = []

    def subscribe(observer: Any, scheduler: Any = None) -> Any:
        def other() -> None:
            observer.on_next(1)
            observer.on_completed()

        threads.append(threading.Thread(target=other))
        threads[0].start()
        return Disposable()

    assert run_virtual(run(Observable[Any](subscribe))) == 1
    threads[0].join()


def test_an_error_keeps_nothing_alive() -> None:
    """No cycle of error, traceback and frame needs the garbage collector."""

    async def main() -> bool:
        error = OSError("x")
        try:
            await run(reactivex.throw(error))
        except OSError:
            pass
        trace = error.__traceback__
        while trace is not None:
            if error in trace.tb_frame.f_locals.values() and trace.tb_frame.f_code is run.__code__:
                return False
            trace = trace.tb_next
        return True

    assert run_virtual(main())
