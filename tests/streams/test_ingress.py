"""``Ingress``: producers, policies, cancellation, threads, and the end."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex import operators as rx
from structlog.testing import capture_logs

from rxdispatch.errors import BufferOverflowError, ConfigError, TaskRejectedError
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.streams._ingress import Ingress
from rxdispatch.streams._kill_switch import KillSwitch
from rxdispatch.streams._run import run
from rxdispatch.testing import Probe, run_virtual
from tests.dropped import dropped
from tests.operators.flow.runs import to_list


async def turn() -> None:
    """Give all tasks a few turns of the loop."""
    for _ in range(3):
        await asyncio.sleep(0)


# ---------------------------------------------------------------- values


async def test_what_is_put_is_emitted() -> None:
    """Items are emitted at once if there is room; a closed stream completes."""
    ingress = Ingress[int](1)
    log = Probe()
    ingress.subscribe(log)
    for n in range(3):
        await ingress.put(n)
    assert ingress.offer(3)
    assert [0, 1, 2, 3] == log.notifications
    ingress.close()
    assert [0, 1, 2, 3, "|"] == log.notifications


async def test_it_is_an_observable_as_any_other() -> None:
    """An ingress has the operators of an Observable."""
    ingress = Ingress[int](5)

    def double(n: int) -> int:
        return 2 * n

    running = asyncio.create_task(to_list(ingress.pipe(rx.map(double), rx.take(2))))
    await turn()
    for n in range(3):
        ingress.offer(n)
    assert [0, 2] == await running
    # ``take`` has left, so this item is for the next subscriber.
    assert 1 == ingress.waiting


async def test_items_wait_for_a_subscriber() -> None:
    """Items that one subscriber leaves behind wait for the next one."""
    ingress = Ingress[int](5)
    for n in range(5):
        assert ingress.offer(n)
    assert not ingress.offer(5)
    assert [0, 1] == await to_list(ingress.pipe(rx.take(2)))
    log = Probe()
    ingress.subscribe(log)
    assert [] == log.notifications
    await turn()
    assert [2, 3, 4] == log.notifications


async def test_there_is_one_subscriber_at_a_time() -> None:
    """A second subscriber gets an error."""
    ingress = Ingress[int](5)
    one, two, three = Probe(), Probe(), Probe()
    subscription = ingress.subscribe(one)
    ingress.subscribe(two)
    assert isinstance(two.notifications[0], ConfigError)
    ingress.offer(1)
    assert [1] == one.notifications
    subscription.dispose()
    subscription.dispose()
    ingress.subscribe(three)
    ingress.offer(2)
    assert [2] == three.notifications


async def test_each_item_keeps_its_context() -> None:
    """Each item has the context of its producer, even if it waited."""
    name: ContextVar[str] = ContextVar("name", default="nobody")
    ingress = Ingress[int](1)
    seen: list[str] = []
    probe = Probe(room=0, on_item=lambda _: seen.append(name.get()))
    probe.watch(ingress)

    async def produce(who: str) -> None:
        name.set(who)
        await ingress.put(1)

    producers = [asyncio.create_task(produce(who)) for who in ("ann", "bob", "eve")]
    await turn()
    for _ in producers:
        probe.open(1)
        await turn()
    assert ["ann", "bob", "eve"] == seen
    await asyncio.gather(*producers)


async def test_an_item_that_an_item_leads_to_comes_after_it() -> None:
    """Emission does not recurse."""
    ingress = Ingress[int](5)
    got: list[Any] = []

    def on_next(n: int) -> None:
        got.append(("begin", n))
        if n < 3:
            ingress.offer(n + 1)
        got.append(("end", n))

    ingress.subscribe(on_next)
    ingress.offer(0)
    assert [(what, n) for n in range(4) for what in ("begin", "end")] == got


# ---------------------------------------------------------------- waiting


async def test_put_waits_for_a_place() -> None:
    """Puts get places in the order of their calls."""
    ingress = Ingress[int](2)
    probe = Probe(room=0)
    probe.watch(ingress)
    puts = [asyncio.create_task(ingress.put(n)) for n in range(5)]
    await turn()
    assert [True, True, False, False, False] == [put.done() for put in puts]
    assert not ingress.offer(9)
    probe.open(1)
    # The place is promised to the waiting put, so no other producer gets it.
    assert not ingress.offer(9)
    await turn()
    assert [0] == probe.notifications
    assert puts[2].done()
    assert not puts[3].done()
    probe.open(9)
    await turn()
    assert [0, 1, 2, 3, 4] == probe.notifications
    assert 0 == ingress.waiting


@pytest.mark.parametrize("promised", [False, True])
async def test_a_cancelled_put_leaves_nothing(promised: bool) -> None:
    """No item enters and no place is lost, even if a place was just promised."""
    ingress = Ingress[int](1)
    probe = Probe(room=0)
    probe.watch(ingress)
    await ingress.put(0)
    doomed = asyncio.create_task(ingress.put(1))
    after = asyncio.create_task(ingress.put(2))
    await turn()
    if promised:
        probe.open(1)
    doomed.cancel()
    await asyncio.wait([doomed])
    assert doomed.cancelled()
    probe.open(9)
    await turn()
    probe.open(9)
    assert [0, 2] == probe.notifications
    await after
    assert ingress.offer(3)
    probe.close()
    assert ingress.offer(4)
    assert not ingress.offer(5)


async def test_all_waiting_puts_may_be_cancelled() -> None:
    """``wait_empty`` returns then."""
    ingress = Ingress[int](1)
    probe = Probe(room=0)
    probe.watch(ingress)
    await ingress.put(0)
    doomed = [asyncio.create_task(ingress.put(n)) for n in range(5)]
    joined = asyncio.create_task(ingress.wait_empty())
    await turn()
    probe.open(1)
    for put in doomed:
        put.cancel()
    await asyncio.wait(doomed)
    await joined
    assert [0] == probe.notifications


def test_producers_go_at_the_pace_of_a_slow_stage() -> None:
    """The number of items in the stream is bounded."""

    async def main() -> list[int]:
        ingress = Ingress[int](4)
        put = done = most = 0

        async def slow(_: int) -> None:
            nonlocal done, most
            most = max(most, put - done)
            await asyncio.sleep(1)
            done += 1

        async def produce() -> None:
            nonlocal put
            for n in range(500):
                await ingress.put(n)
                put += 1

        running = asyncio.create_task(run(ingress.pipe(map_async(slow, max_concurrent=3))))
        await asyncio.gather(*(produce() for _ in range(3)))
        ingress.close()
        await running
        return [done, most]

    done, most = run_virtual(main())
    assert 1500 == done
    assert most <= 4 + 3


# ---------------------------------------------------------------- policies


async def overflowing(overflow: Any, wait: bool) -> tuple[Ingress[int], list[Any], list[Any]]:
    """Put five items into an ingress with room for two."""
    ingress = Ingress[int](2, overflow=overflow)
    probe = Probe(room=0)
    probe.watch(ingress)
    answers: list[Any] = []
    for n in range(5):
        try:
            if wait:
                await ingress.put(n)
                answers.append(None)
            else:
                answers.append(ingress.offer(n))
        except BufferOverflowError as error:
            answers.append(error.size)
    probe.open(9)
    ingress.close()
    return ingress, probe.notifications, answers


@pytest.mark.parametrize("wait", [False, True])
def test_the_oldest_may_be_dropped(wait: bool) -> None:
    """A burst of drops is logged once."""
    with capture_logs() as logs:
        ingress, items, answers = run_virtual(overflowing("drop_oldest", wait))
    assert [3, 4, "|"] == items
    assert [None if wait else True] * 5 == answers
    assert 3 == ingress.dropped
    assert [
        {
            "event": "items_dropped",
            "operator": "ingress",
            "reason": "drop_oldest",
            "items": 3,
            "total": 3,
            "log_level": "warning",
        }
    ] == logs


@pytest.mark.parametrize("wait", [False, True])
def test_the_newest_may_be_dropped(wait: bool) -> None:
    """``offer`` returns False to the producer."""
    with capture_logs() as logs:
        ingress, items, answers = run_virtual(overflowing("drop_newest", wait))
    assert [0, 1, "|"] == items
    assert ([None] * 5 if wait else [True, True, False, False, False]) == answers
    assert 3 == ingress.dropped == dropped(logs)


@pytest.mark.parametrize("wait", [False, True])
def test_overflow_may_be_an_error_of_the_producer(wait: bool) -> None:
    """The stream goes on."""
    with capture_logs() as logs:
        _, items, answers = run_virtual(overflowing("error", wait))
    assert [0, 1, "|"] == items
    assert [2, 2, 2] == answers[2:]
    assert [] == logs


@pytest.mark.parametrize("wait", [False, True])
def test_a_callable_takes_what_does_not_fit(wait: bool) -> None:
    """The producer gets its errors."""
    taken: list[int] = []
    _, items, answers = run_virtual(overflowing(taken.append, wait))
    assert [0, 1, "|"] == items
    assert [2, 3, 4] == taken
    assert ([None] * 5 if wait else [True, True, False, False, False]) == answers

    def refuse(_: int) -> None:
        raise OSError("x")

    with pytest.raises(OSError, match="x"):
        run_virtual(overflowing(refuse, wait))


# ---------------------------------------------------------------- refusal


async def test_admit_may_refuse() -> None:
    """Every way to put items in asks it; admitted items pass."""
    ingress = Ingress[int](5, admit=lambda n: n % 2 == 0)
    assert ingress.offer(0)
    for way_in in (ingress.offer, ingress.offer_threadsafe):
        with pytest.raises(TaskRejectedError, match="admit refused the item"):
            way_in(1)
    with pytest.raises(TaskRejectedError, match="admit refused the item"):
        await ingress.put(1)
    await ingress.put(2)
    assert 2 == ingress.waiting


async def test_admit_is_asked_before_the_item_waits() -> None:
    """A changing health is checked again for each item."""
    healthy = True
    ingress = Ingress[int](1, admit=lambda _: healthy)
    await ingress.put(0)
    waiting = asyncio.create_task(ingress.put(1))
    await turn()
    healthy = False
    with pytest.raises(TaskRejectedError):
        await ingress.put(2)
    probe = Probe(room=9)
    probe.watch(ingress)
    await waiting
    await turn()
    assert [0, 1] == probe.notifications


# ---------------------------------------------------------------- the end


async def test_closing_delivers_what_waits() -> None:
    """No item enters after that; a later subscriber gets only the completion."""
    ingress = Ingress[int](5)
    probe = Probe(room=0)
    probe.watch(ingress)
    ingress.offer(1)
    ingress.close()
    ingress.close()
    assert ingress.closed
    for way_in in (ingress.offer, ingress.offer_threadsafe):
        with pytest.raises(TaskRejectedError, match="the ingress is closed"):
            way_in(2)
    with pytest.raises(TaskRejectedError, match="the ingress is closed"):
        await ingress.put(2)
    probe.open(9)
    assert [1, "|"] == probe.notifications
    assert [] == await to_list(ingress)


@pytest.mark.parametrize("promised", [False, True])
async def test_closing_refuses_puts_that_wait(promised: bool) -> None:
    """Waiting puts are refused, even one whose place was just promised."""
    ingress = Ingress[int](1)
    probe = Probe(room=0)
    probe.watch(ingress)
    await ingress.put(0)
    puts = [asyncio.create_task(ingress.put(n)) for n in (1, 2)]
    await turn()
    if promised:
        probe.open(1)
    ingress.close()
    await asyncio.wait(puts)
    assert all(isinstance(put.exception(), TaskRejectedError) for put in puts)
    probe.open(9)
    assert [0, "|"] == probe.notifications
    await ingress.wait_empty()


async def test_closing_from_within_on_next() -> None:
    """Waiting items come before the completion."""
    ingress = Ingress[int](5)
    log = Probe()
    ingress.pipe(rx.do_action(lambda _: ingress.close())).subscribe(log)
    ingress.offer_threadsafe(1)
    ingress.offer_threadsafe(2)
    await turn()
    assert [1, 2, "|"] == log.notifications


async def test_wait_empty_waits_until_all_is_emitted() -> None:
    """``wait_empty`` waits for items and for waiting puts, but not for the operators below."""
    ingress = Ingress[int](1)
    await ingress.wait_empty()
    probe = Probe(room=0)
    probe.watch(ingress)
    await ingress.put(0)
    put = asyncio.create_task(ingress.put(1))
    joins = [asyncio.create_task(ingress.wait_empty()) for _ in range(3)]
    await turn()
    joins[2].cancel()
    probe.open(1)
    await turn()
    assert [0] == probe.notifications
    assert [False, False, True] == [join.done() for join in joins]
    probe.open(1)
    await turn()
    assert [0, 1] == probe.notifications
    await asyncio.gather(*joins[:2], put)


async def test_a_subscriber_that_raises_ends_its_own_stream_only() -> None:
    """The producer does not see the error; waiting items stay for the next."""
    error = ValueError("x")
    ingress = Ingress[int](5)

    def fail(_: int) -> None:
        raise error

    bad, good = Probe(room=0, on_item=fail), Probe()
    bad.watch(ingress)
    for n in range(3):
        await ingress.put(n)
    bad.open(9)
    await turn()
    assert [0, error] == bad.notifications
    ingress.subscribe(good)
    await turn()
    assert [1, 2] == good.notifications


async def test_disposal_from_within_on_next() -> None:
    """No more items are emitted, and none is lost."""
    ingress = Ingress[int](5)
    probe = Probe(room=0, on_item=lambda _: probe.dispose())
    probe.watch(ingress)
    for n in range(3):
        ingress.offer(n)
    probe.open(9)
    assert [0] == probe.notifications
    assert 2 == ingress.waiting
    probe.open(9)
    assert [0] == probe.notifications


def test_a_drain_leaves_what_was_not_begun() -> None:
    """The switch stops the source, whose waiting items stay."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        done: list[int] = []

        async def slow(n: int) -> None:
            await asyncio.sleep(1)
            done.append(n)

        ingress = Ingress[int](9)
        stream = ingress.pipe(switch.gate(), map_async(slow, max_concurrent=2))
        running = asyncio.create_task(run(stream))
        for n in range(5):
            await ingress.put(n)
        await asyncio.sleep(0.5)
        drained = await switch.drain(100)
        await running
        return [drained, done, ingress.waiting]

    assert [True, [0, 1], 3] == run_virtual(main())


# ---------------------------------------------------------------- threads and loops


def test_threads_may_offer() -> None:
    """Items of each thread keep their order, and none is lost."""

    async def main(round_: int) -> None:
        ingress = Ingress[tuple[int, int]](16)
        count = 200

        def produce(who: int) -> None:
            for n in range(count):
                while not ingress.offer_threadsafe((who, n)):
                    pass

        threads = [threading.Thread(target=produce, args=(who,)) for who in range(2)]
        items: list[tuple[int, int]] = []
        subscription = ingress.subscribe(items.append)
        for thread in threads:
            thread.start()
        for n in range(count):
            await ingress.put((2, n))
        for thread in threads:
            while thread.is_alive():
                await asyncio.sleep(0.001)
            thread.join()
        await asyncio.sleep(0)
        await ingress.wait_empty()
        subscription.dispose()
        assert 3 * count == len(items), round_
        for who in range(3):
            assert list(range(count)) == [n for one, n in items if one == who]

    for round_ in range(10):
        asyncio.run(main(round_))


def test_threads_may_drop() -> None:
    """Every drop is counted: delivered + dropped = offered."""

    async def main(overflow: Any) -> None:
        ingress = Ingress[int](4, overflow=overflow)
        count = 500

        def produce() -> None:
            for n in range(count):
                ingress.offer_threadsafe(n)

        threads = [threading.Thread(target=produce) for _ in range(2)]
        items: list[int] = []
        subscription = ingress.subscribe(items.append)
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await ingress.wait_empty()
        subscription.dispose()
        assert 2 * count == len(items) + ingress.dropped
        assert ingress.dropped == dropped(logs)

    for _ in range(10):
        for overflow in ("drop_oldest", "drop_newest"):
            with capture_logs() as logs:
                asyncio.run(main(overflow))


def test_items_may_come_before_there_is_a_loop_and_outlive_it() -> None:
    """The items wait for a subscriber on the next loop."""
    ingress = Ingress[int](3)
    assert ingress.offer_threadsafe(0)

    async def take(count: int) -> list[Any]:
        got: list[Any] = await to_list(ingress.pipe(rx.take(count)))
        waiting = asyncio.create_task(ingress.put(7))
        await turn()
        waiting.cancel()
        return got

    assert [0] == run_virtual(take(1))
    assert ingress.offer_threadsafe(1)
    assert [7, 1] == run_virtual(take(2))


async def test_it_belongs_to_one_loop_at_a_time() -> None:
    """Use on another loop raises."""
    ingress = Ingress[int](3)
    ingress.offer(0)
    found: list[BaseException] = []

    async def other() -> None:
        try:
            ingress.offer(1)
        except RuntimeError as error:
            found.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(other()))
    thread.start()
    thread.join()
    assert "an ingress must be used on one loop, got another one" == str(found[0])


# ---------------------------------------------------------------- properties


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["put", "offer"]), st.just(0)),
            st.tuples(st.sampled_from(["open", "cancel"]), st.integers(0, 3)),
        ),
        max_size=40,
    ),
    size=st.integers(1, 3),
    overflow=st.sampled_from(["wait", "drop_oldest", "drop_newest"]),
)
def test_no_item_is_lost_without_a_word(
    steps: list[tuple[str, int]], size: int, overflow: Any
) -> None:
    """At every step, delivered + dropped + held + refused + cancelled = offered."""

    async def main() -> None:
        ingress = Ingress[int](size, overflow=overflow)
        probe = Probe(room=0)
        probe.watch(ingress)
        puts: dict[int, asyncio.Task[None]] = {}
        refused: set[int] = set()
        for number, (what, count) in enumerate(steps):
            if what == "put":
                puts[number] = asyncio.create_task(ingress.put(number))
            elif what == "offer":
                if not ingress.offer(number):
                    refused.add(number)
            elif what == "open":
                probe.open(count)
                probe.close()
            else:
                open_puts = [put for put in puts.values() if not put.done()]
                if count < len(open_puts):
                    open_puts[count].cancel()
            await turn()
            assert ingress.waiting <= size
        probe.open(10**6)
        await turn()
        await ingress.wait_empty()
        assert all(put.done() for put in puts.values())
        items = probe.notifications
        offered = {n for n, (what, _) in enumerate(steps) if what in ("put", "offer")}
        cancelled = {n for n, put in puts.items() if put.cancelled()}
        assert len(set(items)) == len(items)
        if overflow == "wait":
            assert offered == {*items} | cancelled | refused
            assert len(offered) == len(items) + len(cancelled) + len(refused)
        else:
            assert len(offered) == len(items) + ingress.dropped + len(cancelled)

    with capture_logs():
        run_virtual(main())


# ---------------------------------------------------------------- arguments


def test_a_bad_argument_is_refused() -> None:
    """The constructor refuses it."""

    async def later(_: Any) -> bool:
        return True

    wrong: Any = 1
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"size": 0}, "size must be an int >= 1, got 0"),
        ({"size": 1, "overflow": wrong}, "overflow must be one of .*, got 1"),
        ({"size": 1, "overflow": later}, "overflow must be a plain function"),
        ({"size": 1, "admit": wrong}, "admit must be callable or None, got 1"),
        ({"size": 1, "admit": later}, "admit must be a plain function"),
    )
    for arguments, message in cases:
        with pytest.raises(ConfigError, match=message):
            Ingress[Any](**arguments)
