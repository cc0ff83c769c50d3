"""``no_leaks``: a check that everything a block started has ended."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from reactivex.observer.autodetachobserver import AutoDetachObserver

from rxdispatch.valve import Bypass, Gate

__all__ = ["no_leaks"]

_TURNS = 20


@asynccontextmanager
async def no_leaks() -> AsyncGenerator[None, None]:
    """
    Check that everything that starts inside the block has ended by its end.

    It counts timers and tasks of the loop, subscriptions to observables, and valves, except those
    that existed before. Cancelled tasks get some turns of the loop to end. A subscription counts
    while something refers to it, so garbage is collected first. Timers are found only on asyncio's
    own loops.

    Raises:
        AssertionError: If something leaks; the message names the leaks. If the block raises an
            error, only that error is raised.

    Example:
        >>> import reactivex
        >>> from rxdispatch.testing import run_virtual
        >>> async def main() -> None:
        ...     async with no_leaks():
        ...         task = asyncio.create_task(asyncio.sleep(5), name="sleeper")
        ...         await asyncio.sleep(1)
        >>> run_virtual(main())
        Traceback (most recent call last):
        AssertionError: a block must leave nothing behind, got 1 task: sleeper; 1 timer: ...
    """
    loop = asyncio.get_running_loop()
    before = {id(thing) for _, thing, _ in _found(loop)}
    # Existing objects are frozen: to scan them again would take most of the time.
    freezes = gc.get_freeze_count() == 0
    if freezes:
        gc.freeze()
    try:
        yield
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        gc.collect()
        left: dict[str, list[str]] = {}
        for kind, thing, text in _found(loop):
            if id(thing) not in before:
                left.setdefault(kind, []).append(text)
    finally:
        if freezes:
            gc.unfreeze()
    if left:
        leaks = "; ".join(
            f"{len(texts)} {kind}{'s' * (len(texts) > 1)}: {', '.join(texts[:5])}"
            for kind, texts in left.items()
        )
        raise AssertionError(f"a block must leave nothing behind, got {leaks}")


def _found(loop: asyncio.AbstractEventLoop) -> Iterator[tuple[str, Any, str]]:
    """Yield each possible leak: its kind, the object, and its name."""
    for task in asyncio.all_tasks(loop) - {asyncio.current_task(loop)}:
        yield "task", task, task.get_name()
    for timer in getattr(loop, "_scheduled", ()):
        if not timer.cancelled():
            yield "timer", timer, repr(timer)
    things: list[Any] = gc.get_objects()
    for thing in things:
        # By type: isinstance() would trigger lazy proxies.
        if type(thing) is AutoDetachObserver:
            if not thing.is_stopped:
                yield "subscription", thing, repr(vars(thing)["_on_next"])
        elif type(thing) is Gate and not thing.closed:
            yield "valve", thing, repr(thing._own)
        elif type(thing) is Bypass and not thing.closed:
            yield "valve", thing, repr(thing.stop)
