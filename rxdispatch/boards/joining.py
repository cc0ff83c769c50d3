"""Waiting until a board has nothing scheduled, ready or claimed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any, Final

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdispatch.boards.engine import Engine
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.log import get_logger

__all__ = ["hints_until", "wait_until_joined"]

log = get_logger(__name__)

_POLL: Final = 1.5  # seconds


async def wait_until_joined(engine: Engine, board: str, kinds: Sequence[str] | None) -> None:
    """Sweep until nothing is scheduled, ready or claimed; an outage of the server only delays."""
    changed = asyncio.Event()
    watch = engine.signals.subscribe(lambda signal: changed.set() if signal != "ready" else None)
    try:
        while True:
            changed.clear()
            wait = _POLL * random.uniform(0.7, 1.2)
            try:
                unfinished = await engine.tick(kinds)
            except StoreUnavailableError:
                log.warning("join_waits_for_server", board=board)
            else:
                if not (unfinished.scheduled or unfinished.ready or unfinished.claimed):
                    return
                if unfinished.due_in is not None:
                    wait = min(wait, max(unfinished.due_in, 0.01))
            try:
                async with asyncio.timeout(wait):
                    await changed.wait()
            except TimeoutError:
                pass
    finally:
        watch.dispose()


def hints_until(until: Any, join: Callable[[], Coroutine[Any, Any, None]]) -> Observable[None]:
    """
    Return a stream that emits nothing, and ends when a stream of claims has to complete.

    Raises:
        ConfigError: If *until* is not ``never``, ``idle`` or ``joined``.
    """
    match until:
        case "never":
            return reactivex.never()
        case "idle":
            return reactivex.empty()
        case "joined":
            return _until_joined(join)
        case _:
            raise ConfigError("until must be 'never', 'idle' or 'joined'", until)


def _until_joined(join: Callable[[], Coroutine[Any, Any, None]]) -> Observable[None]:
    """Return a stream that completes when *join* returns."""

    def subscribe(
        observer: abc.ObserverBase[None], _: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled():
                return
            error = task.exception()
            if isinstance(error, Exception):
                observer.on_error(error)
            else:
                observer.on_completed()

        joined = asyncio.get_running_loop().create_task(join(), context=Context())
        joined.add_done_callback(ended)

        def stop() -> None:
            joined.cancel()

        return Disposable(stop)

    return Observable(subscribe)
