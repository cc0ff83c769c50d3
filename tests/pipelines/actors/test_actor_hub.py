"""Actors of a hub: names, chains by name, and closing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.testing import VirtualTimeLoop


@pytest.fixture(autouse=True)
def loop_factory() -> type[VirtualTimeLoop]:
    """Run every test in virtual time."""
    return VirtualTimeLoop


async def echo(message: Any) -> Any:
    """Answer with the message."""
    return message


async def test_names() -> None:
    """Unknown and taken names are refused; the name of an ended actor is free again."""
    async with rxd.connect("memory://") as hub:
        ref = hub.actor("a", echo)
        assert ref is hub.actor_ref("a")
        with pytest.raises(
            rxd.ConfigError, match=r"^name must be .* an actor of this hub, got 'b'"
        ):
            hub.actor_ref("b")
        with pytest.raises(rxd.ConfigError, match=r"^actors must have distinct names, got 'a'"):
            hub.actor("a", echo)
        with pytest.raises(rxd.ConfigError, match=r"^queue_size must"):
            hub.actor("b", echo, queue_size=0)
        assert await ref.drain()
        assert 1 == await hub.actor("a", echo).ask(1)
    with pytest.raises(rxd.ConfigError, match=r"^hub must be open"):
        hub.actor_ref("a")


async def test_next_by_name() -> None:
    """The next actor may start later; until it does, a result for it is a failure."""
    seen: list[int] = []
    told: list[Any] = []

    async def note(n: int) -> None:
        seen.append(n)

    with capture_logs():
        async with rxd.connect("memory://") as hub:
            first = hub.actor("first", echo, next="last")
            first.failures.subscribe(lambda error: told.append(type(error.__cause__)))
            await first.ask(1)
            await asyncio.sleep(0)
            hub.actor("last", note)
            await first.tell(2)
    assert [2] == seen
    assert [rxd.ConfigError] == told


async def test_closing_empties_mailboxes() -> None:
    """Chains, and actors that handlers of boards send to, are emptied in any order of start."""
    seen: list[int] = []

    async def note(n: int) -> None:
        await asyncio.sleep(0.1)
        seen.append(n)

    async def forward(n: int) -> int:
        await asyncio.sleep(0.1)
        return n

    async with rxd.connect("memory://") as hub:
        hub.actor("last", note, queue_size=2)
        hub.actor("middle", forward, queue_size=2, next="last")
        first = hub.actor("first", forward, next="middle")
        board = hub.board("b")

        async def handle(task: rxd.Task[int]) -> None:
            await asyncio.sleep(1.0)
            await first.tell(task.payload)

        board.claims().pipe(ops.execute(handle), ops.settle(board)).subscribe()
        await board.submit([rxd.Task(n) for n in range(100, 103)])
        for n in range(20):
            await first.tell(n)
        await asyncio.sleep(0.5)
    assert [*range(20), 100, 101, 102] == sorted(seen)


async def test_closing_cancels_after_the_grace() -> None:
    """The running message is cancelled, and the others are refused."""
    ends: list[Any] = []

    async def slow(_: Any) -> None:
        await asyncio.sleep(100.0)

    settings = rxd.Settings(grace=5.0)
    with capture_logs():
        async with rxd.connect("memory://", settings=settings) as hub:
            ref = hub.actor("a", slow)
            asks = [asyncio.create_task(ref.ask(n, timeout=None)) for n in range(3)]
            await asyncio.sleep(0)
        ends = await asyncio.gather(*asks, return_exceptions=True)
    assert [rxd.TaskRejectedError] * 3 == [type(end) for end in ends]
    assert 5.0 == asyncio.get_running_loop().time()


async def test_closing_by_an_exception_cancels_at_once() -> None:
    """An exception leaves no grace."""

    async def slow(_: Any) -> None:
        await asyncio.sleep(100.0)

    with capture_logs(), pytest.raises(LookupError):  # noqa: PT012
        async with rxd.connect("memory://") as hub:
            await hub.actor("a", slow).tell(1)
            await asyncio.sleep(1)
            raise LookupError
    assert 1.0 == asyncio.get_running_loop().time()


async def test_a_ring_that_never_rests_ends_with_the_grace() -> None:
    """Two actors that send messages to each other forever are cancelled after the grace."""

    async def forward(n: int) -> int:
        await asyncio.sleep(0.3)
        return n + 1

    with capture_logs():
        async with rxd.connect("memory://") as hub:
            hub.actor("a", forward, next="b")
            await hub.actor("b", forward, next="a").tell(0)
    assert 10.0 == asyncio.get_running_loop().time()


async def test_cancelled_while_closing() -> None:
    """The actors end at once."""

    async def slow(_: Any) -> None:
        await asyncio.sleep(100.0)

    async def main() -> None:
        async with rxd.connect("memory://") as hub:
            await hub.actor("a", slow).tell(1)

    with capture_logs():
        task = asyncio.create_task(main())
        await asyncio.sleep(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert 2.0 == asyncio.get_running_loop().time()


async def test_names_are_found_while_the_hub_closes() -> None:
    """Running actors may still send each other messages; new actors are refused."""
    seen: list[int] = []
    refused: list[str] = []

    async def count(n: int) -> None:
        seen.append(n)
        if n:
            await hub.actor_ref("ab"[n % 2]).tell(n - 1)
            return
        try:
            hub.actor("c", count)
        except rxd.ConfigError as error:
            refused.append(str(error))

    async with rxd.connect("memory://") as hub:
        hub.actor("a", count)
        await hub.actor("b", count).tell(5)
    assert [5, 4, 3, 2, 1, 0] == seen
    assert ["hub must be open; use it with 'async with', got 'closing'"] == refused


async def test_a_hub_forgets_actors_that_have_ended() -> None:
    """However an actor ended, its name is free again, and its failures have been reported."""

    async def odd(message: Any) -> None:
        raise ValueError(message)

    with capture_logs():
        async with rxd.connect("memory://") as hub:
            for n in range(3):
                ref = hub.actor(f"stopped-{n}", echo)
                assert n == await ref.ask(n)
                assert await ref.drain()
            failing = hub.actor("failed", odd, supervision="stop")
            with pytest.raises(rxd.ActorError):
                await failing.ask(1)
            await asyncio.sleep(0)
            cut = hub.actor("cut", slow_to_end)
            await cut.tell(5.0)
            await asyncio.sleep(1)
            assert not await cut.drain(timeout=1)
            assert {} == hub._actors._actors
            with pytest.raises(rxd.ConfigError, match="an actor of this hub"):
                hub.actor_ref("stopped-0")


async def slow_to_end(span: float) -> None:
    """Sleep for *span* seconds, and a moment longer after a cancellation."""
    try:
        await asyncio.sleep(span)
    finally:
        await asyncio.sleep(0.5)


async def test_a_name_is_taken_until_its_actor_has_ended() -> None:
    """The hub waits for the end of the actor."""
    at_work: list[int] = []
    most: list[int] = []

    async def handle(message: int) -> None:
        at_work.append(message)
        most.append(len(at_work))
        await asyncio.sleep(0.3)
        at_work.remove(message)

    async with rxd.connect("memory://") as hub:
        old = hub.actor("account", handle)
        for n in range(4):
            await old.tell(n)
        stopping = asyncio.create_task(old.drain())
        await asyncio.sleep(0.05)
        assert old.closed
        with pytest.raises(rxd.ConfigError, match="distinct names"):
            hub.actor("account", handle)
        assert old is hub.actor_ref("account")
    assert ([], [1, 1, 1, 1]) == (at_work, most)
    assert await stopping


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError()])
async def test_an_actor_lives_whatever_its_handler_raises(error: BaseException) -> None:
    """Any error of the handler or the factory is a failure like others."""
    made: list[int] = []

    async def handle(message: Any) -> Any:
        if message == "bad":
            raise error
        return message

    def factory() -> Any:
        made.append(1)
        if len(made) == 2:
            raise error
        return handle

    backoff = rxd.Backoff(first=0.1)
    with capture_logs() as logs:
        async with rxd.connect("memory://") as hub:
            ref = hub.actor("a", factory=factory, supervision="restart", backoff=backoff)
            with pytest.raises(rxd.ActorError) as caught:
                await ref.ask("bad")
            assert error is caught.value.__cause__
            assert "good" == await ref.ask("good", timeout=10)
    assert 3 == len(made)
    assert ["actor_failed", "actor_not_restarted"] == [entry["event"] for entry in logs]
