"""Actors: one message at a time, answers, supervision, chains, and the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch.testing import VirtualTimeLoop


@pytest.fixture(autouse=True)
def loop_factory() -> type[VirtualTimeLoop]:
    """Run every test in virtual time."""
    return VirtualTimeLoop


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


async def echo(message: Any) -> Any:
    """Answer with the message."""
    return message


async def slow(message: Any) -> Any:
    """Return the message after ten seconds."""
    await asyncio.sleep(10.0)
    return message


async def picky(message: Any) -> Any:
    """Refuse negative numbers, and return others."""
    if message < 0:
        raise ValueError(message)
    return message


class Counter:
    """A handler with state that a restart resets."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.total = 0

    async def __call__(self, n: int) -> int:
        if n < 0:
            raise ValueError(n)
        self.total += n
        return self.total


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name must be a str of 1 to 200 characters"),
    ({"handle": None}, "an actor must be given either handle or factory"),
    ({"factory": Counter}, "an actor must be given either handle or factory"),
    ({"handle": print}, "handle must be a coroutine function, or an object with an async __call__"),
    ({"handle": None, "factory": echo}, "factory must be a class or a plain function"),
    ({"handle": None, "factory": 5}, "factory must be a class or a plain function"),
    ({"supervision": "x"}, 'supervision must be "resume", "restart" or "stop", got \'x\''),
    ({"supervision": "restart"}, 'factory must be given with supervision="restart"'),
    ({"queue_size": 0}, "queue_size must be an int >= 1, got 0"),
    ({"backoff": 5}, "backoff must be a Backoff or None, got 5"),
    ({"next": "other"}, "next must be an ActorRef outside of a hub, got 'other'"),
    ({"next": 5}, "next must be an ActorRef, a name or None, got 5"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda v: str(v)[:40])
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    """The error states the rule and the value."""
    given: dict[str, Any] = {"name": "a", "handle": echo, **options}
    with pytest.raises(rxd.ConfigError) as caught:
        rxd.Actor(**given)
    assert str(caught.value).startswith(message)


async def test_the_result_of_a_factory_is_checked() -> None:
    """The result is checked when the actor starts."""
    with pytest.raises(rxd.ConfigError, match=r"^result of factory must be a coroutine function"):
        rxd.Actor("a", factory=dict).start()  # type: ignore[arg-type]


async def test_an_actor_is_started_once() -> None:
    """After its end, the mailbox of the actor is closed."""
    actor = rxd.Actor("a", echo)
    async with actor as ref:
        assert "<ActorRef 'a' open>" == repr(ref)
    assert "<ActorRef 'a' closed>" == repr(ref)
    assert "a" == ref.name
    with pytest.raises(rxd.ConfigError, match=r"^the actor 'a' must be entered once"):
        actor.start()


# ------------------------------------------------ messages


async def test_one_at_a_time_and_in_order() -> None:
    """Messages of all senders are handled in order, one at a time."""
    at_work = 0
    seen: list[int] = []

    async def handle(n: int) -> None:
        nonlocal at_work
        at_work += 1
        assert 1 == at_work
        await asyncio.sleep(1.0)
        seen.append(n)
        at_work -= 1

    async with rxd.Actor("a", handle, queue_size=3) as ref:
        await asyncio.gather(*(ref.tell(n) for n in range(30)))
    assert list(range(30)) == seen
    assert 30.0 == now()


async def test_tell_waits_while_the_mailbox_is_full() -> None:
    """``offer`` returns False meanwhile."""
    async with rxd.Actor("a", slow, queue_size=2) as ref:
        await ref.tell(0)
        await asyncio.sleep(1)
        assert [True, True, False] == [ref.offer(n) for n in (1, 2, 3)]
        assert 2 == ref.waiting
        await ref.tell(4)
        assert 10.0 == now()
    assert 40.0 == now()


async def test_ask() -> None:
    """``ask`` returns the result of the handler, even None."""
    async with rxd.Actor("a", echo) as ref:
        assert [7, None, "x"] == [await ref.ask(m) for m in (7, None, "x")]
        with pytest.raises(rxd.ConfigError, match=r"^timeout must"):
            await ref.ask(1, timeout=0)


async def test_ask_raises_the_error_of_the_handler() -> None:
    """The ActorError has the handler's error as its cause, with the actor and the message."""
    with capture_logs():
        async with rxd.Actor("a", picky) as ref:
            await ref.tell(1)
            with pytest.raises(rxd.ActorError) as caught:
                await ref.ask(-1)
    assert isinstance(caught.value, rxd.TaskExecutionError)
    assert isinstance(caught.value.__cause__, ValueError)
    assert ("a", "a/2", -1) == (caught.value.actor, caught.value.task_id, caught.value.message)
    assert "actor 'a' failed to handle message 'a/2'" == str(caught.value)


async def test_a_timeout_error_of_the_handler_is_no_timeout_of_ask() -> None:
    """A TimeoutError of the handler is a failure like any other."""

    async def handle(_: int) -> None:
        raise TimeoutError

    with capture_logs():
        async with rxd.Actor("a", handle) as ref:
            with pytest.raises(rxd.ActorError):
                await ref.ask(1)


async def test_ask_times_out() -> None:
    """The message may be running, in the mailbox, or waiting for a place there."""
    seen: list[int] = []

    async def handle(n: int) -> Any:
        seen.append(n)
        return await slow(n)

    async with rxd.Actor("a", handle, queue_size=1) as ref:
        asks = [asyncio.create_task(ref.ask(n, timeout=2.0 + n)) for n in range(3)]
        ends = await asyncio.gather(*asks, return_exceptions=True)
        assert 4.0 == now()
        assert [rxd.ItemTimeoutError] * 3 == [type(end) for end in ends]
        assert 5 == await ref.ask(5, timeout=None)
        assert 20.0 == now()
    assert [0, 5] == seen


async def test_a_cancelled_ask_is_skipped() -> None:
    """Its message is skipped if it still waits; a message that runs goes on to the end."""
    seen: list[int] = []

    async def handle(n: int) -> None:
        await asyncio.sleep(10.0)
        seen.append(n)

    async with rxd.Actor("a", handle) as ref:
        asks = [asyncio.create_task(ref.ask(n, timeout=None)) for n in range(3)]
        await asyncio.sleep(1)
        asks[0].cancel()
        asks[1].cancel()
        await asyncio.wait(asks)
    assert [0, 2] == seen


# ------------------------------------------------ supervision


async def test_resume() -> None:
    """The next message gets the same state; the failure is emitted and logged."""
    told: list[rxd.ActorError] = []
    with capture_logs() as logs:
        async with rxd.Actor("a", Counter()) as ref:
            ref.failures.subscribe(told.append)
            for n in (1, -1, 2, -2):
                await ref.tell(n)
            assert 3 == await ref.ask(0)
    assert [("a/2", -1), ("a/4", -2)] == [(e.task_id, e.message) for e in told]
    assert [("actor_failed", "a/2"), ("actor_failed", "a/4")] == [
        (entry["event"], entry["message"]) for entry in logs
    ]


async def test_restart() -> None:
    """The next message gets a new handler, after a wait that grows with consecutive failures."""
    Counter.made = 0
    backoff = rxd.Backoff(first=1.0, jitter=0.0, attempts=3)
    with capture_logs():
        async with rxd.Actor("a", factory=Counter, supervision="restart", backoff=backoff) as ref:
            for n in (5, -1, -1, 2):
                await ref.tell(n)
            assert 3 == await ref.ask(1, timeout=10.0)
            assert 3.0 == now()
            await ref.tell(-1)
            assert 1 == await ref.ask(1, timeout=10.0)
            assert 4.0 == now()
    assert 4 == Counter.made


async def test_restart_has_a_limit() -> None:
    """After that many consecutive failures of handler or factory, the actor ends."""
    made = 0

    def factory() -> Any:
        nonlocal made
        made += 1
        if made > 1:
            raise LookupError
        return Counter()

    backoff = rxd.Backoff(first=1.0, factor=1.0, jitter=0.0, attempts=3)
    with capture_logs() as logs:
        async with rxd.Actor("a", factory=factory, supervision="restart", backoff=backoff) as ref:
            await ref.tell(-1)
            with pytest.raises(rxd.TaskRejectedError, match="the actor 'a' is closed"):
                await ref.ask(1, timeout=10.0)
    events = ["actor_failed", "actor_not_restarted", "actor_not_restarted", "actor_stopped"]
    assert events == [entry["event"] for entry in logs]
    assert 2.0 == now()


async def test_stop() -> None:
    """Pending asks get an error; each message that was told and not handled is a failure."""
    told: list[rxd.ActorError] = []
    with capture_logs():
        async with rxd.Actor("a", picky, supervision="stop", queue_size=2) as ref:
            ref.failures.subscribe(told.append)
            waiting = [
                asyncio.create_task(ref.tell(-1)),
                asyncio.create_task(ref.ask(1)),
                asyncio.create_task(ref.tell(2)),
                asyncio.create_task(ref.tell(3)),
                asyncio.create_task(ref.ask(4)),
            ]
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            await asyncio.sleep(1)
            assert ref.closed
            for refused in (ref.tell(5), ref.ask(6)):
                with pytest.raises(rxd.TaskRejectedError, match="the actor 'a' is closed"):
                    await refused
            with pytest.raises(rxd.TaskRejectedError, match="the actor 'a' is closed"):
                ref.offer(7)
    kept = [m for m, end in zip((-1, 1, 2, 3, 4), ends, strict=True) if end is None]
    refused_ones = [end for end in ends if end is not None]
    assert -1 in kept
    assert {rxd.TaskRejectedError} == {type(end) for end in refused_ones}
    assert kept == [error.message for error in told]


async def test_a_cancelled_error_that_the_handler_raises_is_a_failure() -> None:
    """The actor goes on."""

    async def handle(n: int) -> int:
        if n < 0:
            raise asyncio.CancelledError
        return n

    with capture_logs():
        async with rxd.Actor("a", handle) as ref:
            with pytest.raises(rxd.ActorError):
                await ref.ask(-1)
            assert 1 == await ref.ask(1)


# ------------------------------------------------ chains


async def test_next_gets_the_results() -> None:
    """None is not passed on, and a full mailbox of the next actor holds up the one before it."""
    seen: list[int] = []

    async def last(n: int) -> None:
        await asyncio.sleep(1.0)
        seen.append(n)

    async def even(n: int) -> int | None:
        return n if n % 2 == 0 else None

    async with (
        rxd.Actor("last", last, queue_size=1) as end,
        rxd.Actor("first", even, queue_size=2, next=end) as ref,
    ):
        for n in range(20):
            await ref.tell(n)
            assert ref.waiting <= 2
            assert end.waiting <= 1
        # All messages have been handled, except those that wait in a mailbox or run.
        assert len(seen) >= 10 - 4
    assert list(range(0, 20, 2)) == seen


async def test_next_has_stopped() -> None:
    """A result that cannot be passed on is a failure, but does not stop the actor."""
    told: list[rxd.ActorError] = []
    with capture_logs():
        async with rxd.Actor("last", echo) as end:
            pass
        async with rxd.Actor("first", echo, next=end, supervision="stop") as ref:
            ref.failures.subscribe(told.append)
            assert [1, 2] == [await ref.ask(n) for n in (1, 2)]
    assert [1, 2] == [error.message for error in told]
    assert {rxd.TaskRejectedError} == {type(error.__cause__) for error in told}


# ------------------------------------------------ the end


async def test_leaving_normally_handles_all() -> None:
    """All messages are handled, then ``failures`` completes."""
    seen: list[int] = []
    ended: list[bool] = []

    async def handle(n: int) -> None:
        await asyncio.sleep(1.0)
        seen.append(n)

    async with rxd.Actor("a", handle) as ref:
        ref.failures.subscribe(on_completed=lambda: ended.append(True))
        for n in range(50):
            await ref.tell(n)
    assert list(range(50)) == seen
    assert [True] == ended


@pytest.mark.parametrize("turns", range(6))
async def test_leaving_by_an_exception_cancels(turns: int) -> None:
    """Pending asks get an error, told messages are failures, and the handler has ended."""
    at_work = 0
    told: list[Any] = []

    async def handle(_: int) -> None:
        nonlocal at_work
        at_work += 1
        try:
            await asyncio.sleep(10.0)
        finally:
            await asyncio.sleep(1.0)
            at_work -= 1

    asks: list[asyncio.Task[Any]] = []
    with capture_logs():  # noqa: SIM117
        with pytest.raises(LookupError):  # noqa: PT012
            async with rxd.Actor("a", handle, queue_size=3) as ref:
                ref.failures.subscribe(lambda error: told.append(error.message))
                await ref.tell("first")
                asks = [asyncio.create_task(ref.ask(n, timeout=None)) for n in range(2)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                raise LookupError
    assert 0 == at_work
    ends = await asyncio.gather(*asks, return_exceptions=True)
    assert [rxd.TaskRejectedError] * 2 == [type(end) for end in ends]
    assert ["first"] == told


async def test_drain_with_a_timeout() -> None:
    """The remaining messages are cancelled or refused."""
    with capture_logs():
        async with rxd.Actor("a", slow) as ref:
            await ref.tell(0)
            waiting = asyncio.create_task(ref.ask(1, timeout=None))
            await asyncio.sleep(0)
            assert not await ref.drain(15.0)
            with pytest.raises(rxd.TaskRejectedError):
                await waiting
            assert not await ref.drain()
    assert 15.0 == now()


async def test_a_failure_is_emitted_once_although_the_restart_is_cancelled() -> None:
    """The running message is finished, and those behind it are refused."""
    told: list[tuple[Any, str]] = []
    with capture_logs():
        async with rxd.Actor("a", factory=Counter, supervision="restart") as ref:
            ref.failures.subscribe(
                lambda error: told.append((error.message, type(error.__cause__).__name__))
            )
            await ref.tell(-1)
            await ref.tell(2)
            await asyncio.sleep(0.5)
            assert not await ref.drain(timeout=0.5)
    assert [(-1, "ValueError"), (2, "TaskRejectedError")] == told


def test_a_loop_that_ends_ends_the_actor() -> None:
    """Without leaving the block, the running message is cancelled, and no other begins."""
    begun: list[int] = []
    told: list[Any] = []

    async def handle(n: int) -> None:
        begun.append(n)
        await asyncio.sleep(10.0)

    async def main() -> None:
        ref = rxd.Actor("a", handle).start()
        ref.failures.subscribe(lambda error: told.append(error.message))
        for n in range(3):
            await ref.tell(n)
        await asyncio.sleep(0)

    with capture_logs():
        asyncio.run(main())
    assert [0] == begun
    assert [0] == told[:1]
