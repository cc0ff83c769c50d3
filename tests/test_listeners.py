"""All listeners are served, whatever one of them raises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from reactivex import Observer
from reactivex.subject import Subject
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.listeners import call_each, tell_each
from rxdispatch.relay import Relay
from rxdispatch.store.pubsub.channel_subscription import ChannelSubscription
from rxdispatch.streams import KillSwitch, run
from rxdispatch.testing import run_virtual
from rxdispatch.valve import Gate

ORDINARY = [ValueError("a bug"), asyncio.CancelledError("own"), GeneratorExit(), StopIteration(1)]
LEAVING = [KeyboardInterrupt(), SystemExit(3)]
ids = [type(error).__name__ for error in (*ORDINARY, *LEAVING)]
any_error = pytest.mark.parametrize("error", [*ORDINARY, *LEAVING], ids=ids)


def failing(error: BaseException) -> Callable[..., None]:
    """Return a function that raises *error* for any arguments."""

    def fail(*_: Any) -> None:
        raise error

    return fail


def leaves(error: BaseException) -> bool:
    """Return whether *error* is re-raised."""
    return isinstance(error, (KeyboardInterrupt, SystemExit))


def passes_on(error: BaseException, act: Callable[[], object]) -> list[Any]:
    """Run *act*, which raises *error* only if it ends the process; return the log events."""
    with capture_logs() as logs:
        if leaves(error):
            with pytest.raises(type(error)):
                act()
        else:
            act()
    return [entry["event"] for entry in logs]


@any_error
def test_tell_each(error: BaseException) -> None:
    """The other listeners are served; then the error is logged or re-raised."""
    heard: list[int] = []
    calls: list[Callable[[], object]] = [failing(error), partial(heard.append, 1)]
    expected = [] if leaves(error) else ["subscriber_failed"]
    assert expected == passes_on(error, lambda: tell_each("here", calls))
    assert [1] == heard


def test_call_each_raises_the_first_error_last() -> None:
    """An error that ends the process has precedence over the first one."""
    heard: list[int] = []
    with pytest.raises(ValueError, match="one"):
        call_each([failing(ValueError("one")), failing(ValueError("two")), lambda: heard.append(1)])
    with pytest.raises(SystemExit):
        call_each([failing(ValueError("one")), failing(SystemExit(1)), lambda: heard.append(2)])
    assert [1, 2] == heard


@any_error
def test_a_watcher_of_a_relay_without_on_error(error: BaseException) -> None:
    """The error affects neither the producer nor later subscribers, and is logged once."""
    relay: Relay[int] = Relay("events")
    heard: list[int] = []
    relay.observable.subscribe(failing(error))
    relay.observable.subscribe(heard.append)
    expected = [] if leaves(error) else ["subscriber_failed"]
    assert expected == passes_on(error, lambda: relay.emit(1))
    assert [1] == heard
    if not leaves(error):
        # The watcher is unsubscribed.
        assert [] == passes_on(error, lambda: relay.emit(2))


@any_error
def test_a_watcher_of_a_relay_that_raises_in_its_on_error(error: BaseException) -> None:
    """The other subscribers still get the value."""
    relay: Relay[int] = Relay("events")
    heard: list[int] = []
    relay.observable.subscribe(failing(OSError("first")), failing(error))
    relay.observable.subscribe(heard.append)
    expected = ["subscriber_failed"] * (1 if leaves(error) else 2)
    assert expected == passes_on(error, lambda: relay.emit(1))
    assert [1] == heard


@any_error
def test_a_watcher_of_a_relay_that_raises_at_the_end(error: BaseException) -> None:
    """The other subscribers still see the end."""
    relay: Relay[int] = Relay("events")
    ended: list[str] = []
    relay.observable.subscribe(on_completed=failing(error))
    relay.observable.subscribe(on_completed=lambda: ended.append("ended"))
    passes_on(error, relay.complete)
    assert ["ended"] == ended


@any_error
def test_broadcast_serves_the_others(error: BaseException) -> None:
    """All three methods serve the others; only errors that end the process reach the source."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        shared = source.pipe(ops.broadcast(3))
        heard: list[Any] = []
        shared.subscribe(failing(error), failing(error))
        shared.subscribe(on_completed=failing(error))
        shared.subscribe(heard.append, on_completed=lambda: heard.append("|"))
        passes_on(error, lambda: source.on_next(1))
        passes_on(error, source.on_completed)
        return heard

    assert [1, "|"] == run_virtual(main())


@any_error
def test_broadcast_tells_all_of_an_error(error: BaseException) -> None:
    """Even the subscribers after one whose ``on_error`` raises get the error."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        shared = source.pipe(ops.broadcast(3))
        heard: list[Any] = []
        shared.subscribe(on_error=failing(error))
        shared.subscribe(on_error=heard.append)
        passes_on(error, lambda: source.on_error(OSError("lost")))
        return [str(one) for one in heard]

    assert ["lost"] == run_virtual(main())


@any_error
def test_a_drain_completes_all_streams(error: BaseException) -> None:
    """All streams end, although a subscriber raises at the completion."""

    async def main() -> list[str]:
        switch, ended = KillSwitch(), list[str]()
        source: Subject[int] = Subject()
        source.pipe(switch.gate()).subscribe(on_completed=failing(error))
        source.pipe(switch.gate()).subscribe(on_completed=lambda: ended.append("second"))
        with capture_logs():
            if leaves(error):
                with pytest.raises(type(error)):
                    await switch.drain(1.0)
            else:
                assert await switch.drain(1.0)
        return ended

    assert ["second"] == run_virtual(main())


@any_error
def test_an_abort_ends_all_streams(error: BaseException) -> None:
    """All streams end, although a subscriber raises, or has no ``on_error``."""

    async def main() -> list[str]:
        switch, ended = KillSwitch(), list[str]()
        source: Subject[int] = Subject()
        source.pipe(switch.gate()).subscribe(on_error=failing(error))
        source.pipe(switch.gate()).subscribe()
        source.pipe(switch.gate()).subscribe(on_error=lambda reason: ended.append(str(reason)))
        passes_on(error, lambda: switch.abort(OSError("stop")))
        return ended

    assert ["stop"] == run_virtual(main())


@any_error
def test_a_gate_that_closes_tells_all(error: BaseException) -> None:
    """Closing notifies all, even if a source emits into the new room and its subscriber raises."""
    gate = Gate(lambda: 1, None)
    told: list[str] = []
    gate.listen(failing(error))
    gate.listen(lambda: told.append("room"))
    gate.when_closed(failing(OSError("second")))
    gate.when_closed(lambda: told.append("closed"))
    with pytest.raises(type(error)):
        gate.dispose()
    assert ["room", "closed"] == told


@any_error
def test_a_subscriber_of_an_ingress_that_raises(error: BaseException) -> None:
    """Neither the producer nor the caller of close sees the error."""

    async def main() -> list[Any]:
        ingress = rxd.Ingress[int](3)
        ended: list[Any] = []
        ingress.subscribe(failing(error), ended.append)
        await asyncio.sleep(0)
        passes_on(error, lambda: ingress.offer(1))
        await asyncio.sleep(0)
        return ended

    assert ([] if leaves(error) else [error]) == run_virtual(main())


def test_closing_an_ingress_whose_subscriber_raises_at_the_end() -> None:
    """The error is logged."""

    async def main() -> None:
        ingress = rxd.Ingress[int](3)
        ingress.subscribe(on_completed=failing(ValueError("bug")))
        await asyncio.sleep(0)
        assert ["subscriber_failed"] == passes_on(ValueError(), ingress.close)

    run_virtual(main())


def test_watchers_of_a_board_harm_nobody() -> None:
    """Tasks can be submitted, executed and settled, although the watchers raise."""

    async def main() -> tuple[int, list[str]]:
        async with rxd.connect("memory://") as hub:
            board = hub.board("jobs")
            for _ in range(2):
                board.events.subscribe(failing(ValueError("bug")), on_completed=failing(OSError()))
            seen: list[str] = []
            board.events.subscribe(lambda event: seen.append(event.kind))
            await board.submit(rxd.Task(n) for n in range(3))

            async def handle(task: rxd.Task[Any]) -> None:
                del task

            claims = board.claims(until="joined")
            await run(claims.pipe(ops.execute(handle), ops.settle(board)))
            return (await board.counts()).done, sorted(set(seen))

    with capture_logs() as logs:
        assert (3, ["claimed", "done", "submitted"]) == asyncio.run(main())
    told = [entry["error"] for entry in logs if entry["event"] == "subscriber_failed"]
    assert ["ValueError: bug"] * 2 == told


@pytest.mark.parametrize("error", ORDINARY, ids=lambda error: type(error).__name__)
def test_a_listener_of_a_channel_that_raises(error: BaseException) -> None:
    """The others get the message and the end, and the connection keeps being read."""

    async def main() -> list[Any]:
        heard: list[Any] = []
        channel = ChannelSubscription(b"events", lambda _: None)
        channel.add(Observer(failing(error), on_completed=failing(error)))
        channel.add(Observer(heard.append, on_completed=lambda: heard.append("|")))
        with capture_logs() as logs:
            channel.emit(b"message")
            channel.complete()
        assert ["channel_listener_failed"] * 2 == [entry["event"] for entry in logs]
        return heard

    assert [b"message", "|"] == run_virtual(main())
