"""``ErrorHistory``: how much of earlier errors is kept."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import weakref
from typing import Any

import pytest
import reactivex
from reactivex import abc
from reactivex.disposable import Disposable
from structlog.testing import capture_logs

from rxdispatch.backoff import Backoff
from rxdispatch.operators.flow._error_history import KEPT, ErrorHistory
from rxdispatch.operators.flow._retry_backoff import retry_backoff
from rxdispatch.streams import run
from rxdispatch.testing import run_virtual


class Request:
    """A local variable of a frame that fails."""


def raised(error: BaseException, held: object = None) -> BaseException:
    """Raise *error* in a frame that holds *held*, and return it."""
    del_me = held
    try:
        raise error
    except BaseException as caught:
        assert del_me is held
        return caught


def contexts(error: BaseException) -> list[BaseException]:
    """Return the chain of contexts of *error*."""
    chain: list[BaseException] = []
    link = error.__context__
    while link is not None:
        chain.append(link)
        link = link.__context__
    return chain


def test_the_last_few_errors_are_kept() -> None:
    """The chain does not grow with the number of failures."""
    history = ErrorHistory()
    errors = [raised(OSError(n)) for n in range(50)]
    for error in errors:
        history.add(error)
    assert errors[-2 : -KEPT - 1 : -1] == contexts(errors[-1])
    assert [] == contexts(errors[0])


def test_frames_of_older_errors_are_let_go() -> None:
    """Only the newest error keeps its traceback, and with it the local variables."""
    history = ErrorHistory()
    requests = [Request() for _ in range(3)]
    held = [weakref.ref(request) for request in requests]
    errors = [raised(OSError(n), request) for n, request in enumerate(requests)]
    del requests
    while len(history._row) < len(errors):
        history.add(errors[len(history._row)])
    gc.collect()
    assert [True, True, False] == [one() is None for one in held]
    assert errors[2].__traceback__ is not None


def test_causes_of_older_errors_let_their_frames_go_too() -> None:
    """Parts of groups lose their frames too; errors that the newest one shares keep theirs."""
    history = ErrorHistory()
    cause, part, shared = raised(KeyError(1)), raised(KeyError(2)), raised(KeyError(3))
    group = BaseExceptionGroup("both", [part, shared])
    group.__cause__ = cause
    newer = OSError("newer")
    newer.__cause__ = shared
    history.add(group)
    history.add(newer)
    assert (None, None) == (cause.__traceback__, part.__traceback__)
    assert shared.__traceback__ is not None


def test_an_error_that_is_its_own_cause() -> None:
    """A cycle that a user makes is followed once."""
    history = ErrorHistory()
    circle = OSError("lost")
    circle.__cause__ = circle
    one, two = OSError("one"), OSError("two")
    one.__context__, two.__context__ = two, one
    last = OSError("last")
    for error in (circle, one, two, last):
        history.add(error)
    assert two is last.__context__


def test_errors_that_take_turns_make_no_circle() -> None:
    """Each chain of contexts has an end."""
    history = ErrorHistory()
    one, two, three = OSError("one"), OSError("two"), OSError("three")
    for error in (one, two, two, three, one, two, three):
        history.add(error)
        assert len(contexts(error)) < 3


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """An error that refuses assignments to attributes."""

    number: int


def test_errors_that_refuse_assignments() -> None:
    """A frozen dataclass refuses them after it was made."""
    history = ErrorHistory()
    errors = [FrozenError(n) for n in range(3)]
    for error in errors:
        history.add(error)
    assert errors[1] is errors[2].__context__


def test_a_text_instead_of_an_error() -> None:
    """A source may fail with any object, which RxPY passes on."""
    history = ErrorHistory()
    text: Any = "lost"
    for error in (OSError("one"), text, last := OSError("last")):
        history.add(error)
    assert last.__context__ is None


@pytest.mark.parametrize("own", [True, False])
def test_a_row_without_end_keeps_no_memory(own: bool) -> None:
    """After a thousand failures, the frames of only one are alive."""
    held: list[weakref.ref[Request]] = []

    def connect(
        observer: abc.ObserverBase[int], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        del scheduler
        request = Request()
        held.append(weakref.ref(request))
        try:
            try:
                raise KeyError(len(held))
            except KeyError as cause:
                error = OSError(len(held))
                error.__cause__ = cause if own else None
                error.__suppress_context__ = own
                raise error from error.__cause__
        except OSError as failed:
            if not own:
                failed.__context__ = None
            if len(held) < 1000:
                observer.on_error(failed)
            else:
                observer.on_completed()
        return Disposable()

    async def main() -> int:
        await run(reactivex.create(connect).pipe(retry_backoff(Backoff(attempts=None))))
        gc.collect()
        return sum(one() is not None for one in held)

    assert run_virtual(main()) <= 1


def test_an_own_cause_no_longer_blocks_the_loop() -> None:
    """The second failure after such an error used to block the loop forever."""
    circle = OSError("lost")
    circle.__cause__ = circle
    errors = iter([circle, OSError("again")])

    def connect(
        observer: abc.ObserverBase[int], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        del scheduler
        error = next(errors, None)
        if error is None:
            observer.on_completed()
        else:
            observer.on_error(error)
        return Disposable()

    async def main() -> None:
        await asyncio.wait_for(run(reactivex.create(connect).pipe(retry_backoff())), 100)

    with capture_logs():
        run_virtual(main())
