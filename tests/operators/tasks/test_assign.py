"""``assign``: each claim gets a slot, in order, and the slot ends with the claim."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from reactivex import Observable
from reactivex import operators as rx
from structlog.testing import capture_logs

from rxdispatch.boards.base import Board
from rxdispatch.claim import Claim
from rxdispatch.config import FeedSettings, Settings, StoreSettings
from rxdispatch.errors import ConfigError
from rxdispatch.hub import Hub, connect
from rxdispatch.node import Node
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.operators import assign, claim_each, execute, settle
from rxdispatch.operators.tasks._assignment import Assignment, current_node
from rxdispatch.operators.tasks._current_claim import current_claim
from rxdispatch.streams import run
from rxdispatch.task import Task
from rxdispatch.testing import Probe
from tests.operators.flow.runs import to_list
from tests.operators.tasks.places import Hand, ids, tasks
from tests.proxy import Proxy
from tests.servers import valkey_server


@pytest.fixture(autouse=True)
def loop_factory() -> None:
    """Use real time, as the server does."""


@attrs.frozen
class Bench:
    """A board and a fleet as one process sees them, and a hub of another process."""

    proxy: Proxy
    hub: Hub
    other: Hub
    feed: Feed
    board: Board[Any]

    async def fleet(self, **capacities: int) -> None:
        """Register nodes with these capacities."""
        nodes = [Node(name, capacity=capacity) for name, capacity in capacities.items()]
        await self.hub.nodes.register(nodes, ttl=1000.0)

    async def claims(self, count: int) -> list[Claim[Any]]:
        """Submit *count* tasks, and claim them."""
        await self.board.submit(tasks(count))
        return await self.board.claim(count)

    def jobs(self) -> int:
        """Return how many slots are taken, according to the feed."""
        return sum(node.current_jobs for node in self.feed.nodes())

    async def until_jobs(self, jobs: int) -> None:
        """Wait until *jobs* slots are taken."""
        await until(lambda: self.jobs() == jobs)

    async def counts(self) -> tuple[int, int, int, int]:
        """Return how many tasks are ready, claimed, done and dead, as another process sees them."""
        counts = await self.other.board("b").counts()
        return counts.ready, counts.claimed, counts.done, counts.dead

    async def settles(self, ready: int, claimed: int, done: int, dead: int) -> None:
        """Wait for these numbers of tasks."""
        async with asyncio.timeout(10.0):
            while await self.counts() != (ready, claimed, done, dead):
                await asyncio.sleep(0.005)


@asynccontextmanager
async def bench(limit: float = 2.0, grace: float = 10.0) -> AsyncGenerator[Bench]:
    """Run a server without nodes and tasks."""
    settings = Settings(
        grace=grace,
        feed=FeedSettings(pulse_interval=0.2),
        store=StoreSettings(timeout=limit, attempt_timeout=limit / 2),
    )
    async with (
        valkey_server() as server,
        Proxy(server.target) as proxy,
        connect(server.target.safe) as other,
        connect(proxy.target.safe, settings=settings) as hub,
        hub.feed() as feed,
    ):
        yield Bench(proxy, hub, other, feed, hub.board("b"))


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def nodes_of(items: list[Any]) -> list[str]:
    """Return the ids of the nodes of the assignments."""
    return [item.node.id for item in items if isinstance(item, Assignment)]


# -- values ----------------------------------------------------------------------------------


async def test_each_claim_gets_a_slot() -> None:
    """Slots come in the order of the claims, and are held until the claims are settled."""
    async with bench() as it:
        await it.fleet(a=3, b=5)
        claims = await it.claims(8)
        hand, log = Hand(), Probe()
        hand.stream().pipe(assign(it.feed)).subscribe(log)
        hand.push(*claims)
        await until(lambda: len(log.notifications) == 8)
        assert [claim.task.id for claim in claims] == ids(log.notifications)
        assert ["a"] * 3 + ["b"] * 5 == sorted(nodes_of(log.notifications))
        assert 8 == it.jobs()
        assert [True] * 8 == await it.board.settle([claim.done() for claim in claims])
        await it.until_jobs(0)
        hand.complete()
        assert "|" == log.notifications[-1]


async def test_criteria() -> None:
    """Only nodes that meet the criteria get a claim."""
    async with bench() as it:
        await it.hub.nodes.register(
            [Node("a", capacity=9), Node("b", pool="gpu", capacity=2, labels={"zone": "x"})]
        )
        hand, log = Hand(), Probe()
        criteria: dict[str, Any] = {"pool": "gpu", "labels": {"zone": "x"}}
        hand.stream().pipe(assign(it.feed, **criteria)).subscribe(log)
        claims = await it.claims(3)
        hand.push(*claims)
        await until(lambda: len(log.notifications) == 2)
        await it.hub.nodes.register(Node("c", pool="gpu", labels={"zone": "x"}))
        await until(lambda: len(log.notifications) == 3)
        assert ["b", "b", "c"] == nodes_of(log.notifications)
        hand.complete()
        await it.board.settle([claim.release() for claim in claims])


async def test_more_than_fits() -> None:
    """Waiting claims go on in order as slots are released, even by another process."""
    async with bench() as it:
        await it.fleet(a=1, b=1)
        claims = await it.claims(4)
        held = await it.other.nodes.reserve("b")
        hand, log = Hand(), Probe()
        hand.stream().pipe(assign(it.feed)).subscribe(log)
        hand.push(*claims)
        await until(lambda: log.notifications)
        await asyncio.sleep(0.1)
        assert ["a"] == nodes_of(log.notifications)
        await it.other.nodes.release(held)
        await until(lambda: len(log.notifications) == 2)
        await it.board.settle([claims[0].done()])
        await until(lambda: len(log.notifications) == 3)
        hand.complete()
        assert "|" != log.notifications[-1]
        await it.board.settle([claims[1].done()])
        await until(lambda: log.notifications[-1] == "|")
        assert (["a", "b", "a", "b"], ["0", "1", "2", "3"]) == (
            nodes_of(log.notifications),
            ids(log.notifications),
        )
        await it.board.settle([claim.done() for claim in claims[2:]])


async def test_a_fleet_that_comes_later() -> None:
    """Claims wait for the first node, for a node that is ready again, or for more capacity."""
    async with bench() as it:
        claims = await it.claims(3)
        hand, log = Hand(), Probe()
        hand.stream().pipe(assign(it.feed)).subscribe(log)
        hand.push(*claims)
        await it.fleet(a=1)
        await until(lambda: len(log.notifications) == 1)
        await it.fleet(a=2)
        await until(lambda: len(log.notifications) == 2)
        await it.hub.nodes.drain("a")
        await it.hub.nodes.register(Node("a", capacity=3))
        await until(lambda: len(log.notifications) == 3)
        hand.complete()
        assert "|" == log.notifications[-1]
        await it.board.settle([claim.done() for claim in claims])


async def test_many() -> None:
    """More claims than fit one call are assigned, and no node exceeds its capacity."""
    async with bench() as it:
        await it.fleet(a=7, b=20, c=150)
        most: list[int] = []
        it.feed.changes.subscribe(
            lambda change: (
                most.append(change.node.current_jobs - change.node.capacity)
                if change.node
                else None
            )
        )
        await it.board.submit(tasks(1500))

        async def work(task: Task[Any]) -> None:
            await asyncio.sleep(0)

        await run(
            it.board.claims(until="joined").pipe(
                assign(it.feed), execute(work, max_concurrent=400), settle(it.board)
            )
        )
        assert (0, 0, 1500, 0) == await it.counts()
        await it.until_jobs(0)
        assert 0 == max(most)


# -- ends ------------------------------------------------------------------------------------


async def test_an_empty_source_completes() -> None:
    """The stream completes at once, even without nodes."""
    async with bench() as it:
        hand, log = Hand(), Probe()
        hand.stream().pipe(assign(it.feed)).subscribe(log)
        hand.complete()
        assert ["|"] == log.notifications


async def test_an_error_of_the_source() -> None:
    """The error passes at once; claims without a slot go back, and the others keep theirs."""
    async with bench() as it:
        await it.fleet(a=1)
        claims = await it.claims(3)
        hand, log = Hand(), Probe()
        hand.stream().pipe(assign(it.feed)).subscribe(log)
        hand.push(*claims)
        await until(lambda: log.notifications)
        error = OSError("x")
        hand.fail(error)
        assert error is log.notifications[-1]
        await it.settles(2, 1, 0, 0)
        assert 1 == it.jobs()
        await it.board.settle([claims[0].done()])
        await it.until_jobs(0)
        assert (2, 0, 1, 0) == await it.counts()


async def test_disposal() -> None:
    """Claims without a slot go back, and the source is disposed."""
    async with bench() as it:
        await it.fleet(a=1)
        claims = await it.claims(4)
        hand, log = Hand(), Probe()
        subscription = hand.stream().pipe(assign(it.feed)).subscribe(log)
        hand.push(*claims[:3])
        await until(lambda: log.notifications)
        subscription.dispose()
        assert 1 == hand.disposed
        await it.settles(2, 2, 0, 0)
        await it.board.settle([claims[0].retry("no"), claims[3].release()])
        await it.until_jobs(0)
        assert 1 == len(log.notifications)


async def test_disposal_while_slots_are_asked_for() -> None:
    """The slots that the server has reserved by then are released."""
    async with bench() as it:
        await it.fleet(a=5)
        (claim,) = await it.claims(1)
        hand, log = Hand(), Probe()
        subscription = hand.stream().pipe(assign(it.feed)).subscribe(log)
        gate = it.proxy.hold(replies=True, count=None)
        hand.push(claim)
        watch = it.other.feed()
        async with watch:
            await until(lambda: sum(node.current_jobs for node in watch.nodes()) == 1)
            subscription.dispose()
            gate.open()
            await until(lambda: sum(node.current_jobs for node in watch.nodes()) == 0)
        await it.settles(1, 0, 0, 0)
        assert [] == log.notifications


async def test_subscribed_twice() -> None:
    """Each subscription has its own claims."""
    async with bench() as it:
        await it.fleet(a=5)
        hands, logs = [Hand(), Hand()], [Probe(), Probe()]
        operator = assign(it.feed)
        for hand, log in zip(hands, logs, strict=True):
            hand.stream().pipe(operator).subscribe(log)
        claims = await it.claims(4)
        hands[0].push(*claims[:2])
        hands[1].push(*claims[2:])
        await until(lambda: all(len(log.notifications) == 2 for log in logs))
        assert [["0", "1"], ["2", "3"]] == [ids(log.notifications) for log in logs]
        for hand in hands:
            hand.complete()
        await it.board.settle([claim.done() for claim in claims])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"lease": 0}, "lease must be a finite number of seconds > 0, got 0"),
    ({"lease": float("nan")}, "lease must be a finite number of seconds > 0, got nan"),
    ({"pool": ""}, "pool must be a str"),
    ({"pool": 5}, "pool must be a str"),
    ({"labels": ["x"]}, "labels must map str to str"),
    ({"where": 5}, "where must be a plain function"),
    ({"exclude": "a"}, "exclude must be an iterable"),
    ({"strategy": "best"}, "strategy must be one of"),
]


async def test_bad_arguments() -> None:
    """Bad arguments are refused when the operator is made."""
    async with bench() as it:
        for options, message in BAD:
            with pytest.raises(ConfigError) as caught:
                assign(it.feed, **options)
            assert str(caught.value).startswith(message)
        with pytest.raises((ConfigError, TypeError), match="colour"):
            assign(it.feed, colour="red")


async def test_a_feed_that_is_closed() -> None:
    """The stream ends with an error instead of waiting forever, and the claims go back."""
    async with bench() as it:
        await it.fleet(a=1)
        feed = it.hub.feed()
        async with feed:
            pass
        claims = await it.claims(2)
        hand, log = Hand(), Probe()
        hand.stream().pipe(assign(feed)).subscribe(log)
        hand.push(*claims)
        await until(lambda: log.notifications)
        assert isinstance(log.notifications[-1], ConfigError)
        await it.settles(2, 0, 0, 0)


# -- demand ----------------------------------------------------------------------------------


async def test_the_valve_is_closed_while_no_node_has_room() -> None:
    """The valve opens when another process releases a slot."""
    async with bench() as it:
        await it.fleet(a=1)
        held = await it.other.nodes.reserve("a")
        (claim,) = await it.claims(1)
        hand, log = Hand(), Probe()
        hand.stream().pipe(assign(it.feed)).subscribe(log)
        assert 256 == hand.gate.room()
        opened: list[int] = []
        hand.gate.listen(lambda: opened.append(hand.gate.room()))
        hand.push(claim)
        await until(lambda: hand.gate.room() == 0)
        await it.other.nodes.release(held)
        await until(lambda: log.notifications)
        await until(lambda: opened)
        assert 0 < opened[-1] == hand.gate.room()
        hand.complete()
        await it.board.settle([claim.done()])


async def test_no_slots_for_what_nobody_works_on() -> None:
    """No more slots are reserved than there is room below."""
    async with bench() as it:
        await it.fleet(a=9)
        claims = await it.claims(5)
        hand, probe = Hand(), Probe(room=2)
        probe.watch(hand.stream().pipe(assign(it.feed)))
        hand.push(*claims)
        await until(lambda: len(probe.notifications) == 2)
        await asyncio.sleep(0.05)
        assert 2 == it.jobs()
        probe.open(3)
        hand.complete()
        await until(lambda: probe.notifications[-1] == "|")
        assert 5 == it.jobs()
        await it.board.settle([claim.done() for claim in claims])


async def test_claims_are_taken_only_for_room() -> None:
    """Other tasks stay on the board, for workers whose nodes have room."""
    async with bench() as it:
        await it.fleet(a=2)
        await it.board.submit(tasks(1000))
        log = Probe()
        with it.board.claims(prefetch=600).pipe(assign(it.feed)).subscribe(log):
            await until(lambda: len(log.notifications) == 2)
            await asyncio.sleep(0.1)
            before = await it.counts()
            assert before[0] >= 400
            await asyncio.sleep(0.1)
            assert before == await it.counts()
            assert 2 == len(log.notifications)
        await it.settles(998, 2, 0, 0)
        await it.board.settle([item.claim.release() for item in log.notifications])


# -- how claims end --------------------------------------------------------------------------


async def test_every_settlement_frees_the_slot() -> None:
    """Done, retry, dead and release free the slot."""
    async with bench() as it:
        await it.fleet(a=9)
        log = Probe()
        await it.board.submit(tasks(4))
        subscription = it.board.claims().pipe(assign(it.feed)).subscribe(log)
        await until(lambda: len(log.notifications) == 4)
        one, two, three, four = (item.claim for item in log.notifications)
        left = 4
        for end in (one.done(), two.retry("no", 99.0), three.dead("no"), four.release(99.0)):
            assert [True] == await it.board.settle([end])
            left -= 1
            await it.until_jobs(left)
        subscription.dispose()


async def test_a_claim_that_is_lost() -> None:
    """The slot of the claim is free as soon as the loss is known."""
    async with bench() as it:
        await it.fleet(a=9)
        log = Probe()
        await it.board.submit(tasks(2))
        subscription = it.board.claims(lease=0.6).pipe(assign(it.feed)).subscribe(log)
        await until(lambda: len(log.notifications) == 2)
        await it.other.board("b").cancel(["0"])
        await it.until_jobs(1)
        assert [True, False] == [item.claim.lost for item in log.notifications]
        await it.board.settle([log.notifications[1].claim.done()])
        subscription.dispose()
        await it.until_jobs(0)


async def test_a_claim_that_is_dropped() -> None:
    """The slot is free, and the task is ready after a lease."""
    async with bench() as it:
        await it.fleet(a=9)
        await it.board.submit(tasks(3))
        seen: list[str] = []

        def unwanted(item: Assignment[Any]) -> bool:
            seen.append(item.node.id)
            return False

        with capture_logs() as logs:
            stream: Observable[Any] = it.board.claims().pipe(assign(it.feed), rx.filter(unwanted))
            with stream.subscribe():
                await until(lambda: len(seen) == 3)
                gc.collect()
                await until(lambda: it.jobs() == 0 and logs)
        assert {"claims_dropped"} == {entry["event"] for entry in logs}


async def test_a_claim_that_is_lost_while_it_waits() -> None:
    """The lost claim gets no slot, but those behind it do."""
    async with bench() as it:
        await it.fleet(a=1)
        held = await it.other.nodes.reserve("a")
        log = Probe()
        await it.board.submit(tasks(2))
        subscription = it.board.claims(lease=0.6).pipe(assign(it.feed)).subscribe(log)
        await it.settles(0, 2, 0, 0)
        await it.other.board("b").cancel(["0"])
        # Wait until a renewal has reported the loss.
        await asyncio.sleep(0.5)
        await it.other.nodes.release(held)
        await until(lambda: log.notifications)
        assert ["1"] == ids(log.notifications)
        await it.board.settle([log.notifications[0].claim.done()])
        subscription.dispose()
        assert (0, 0, 1, 1) == await it.counts()


async def test_a_hub_that_closes() -> None:
    """After the grace, claims that wait for a slot are ready again, and the slot is released."""
    settings = Settings(grace=0.2)
    async with bench() as it:
        await it.fleet(a=1)
        async with asyncio.timeout(5.0), connect(it.proxy.target.safe, settings=settings) as hub:
            feed = hub.feed()
            await feed.__aenter__()
            board: Board[Any] = hub.board("b")
            await board.submit(tasks(3))
            started: list[str] = []

            async def work(task: Task[Any]) -> None:
                started.append(task.id)
                await asyncio.sleep(60)

            board.claims().pipe(assign(feed), execute(work), settle(board)).subscribe()
            await until(lambda: started)
            await it.settles(0, 3, 0, 0)
        assert (3, 0, 0, 0) == await it.counts()
        assert ["0"] == started
        await it.until_jobs(0)


# -- a server that is away -------------------------------------------------------------------


async def test_a_server_that_is_away() -> None:
    """Claims wait, and go on when the server is back."""
    async with bench(limit=0.3) as it:
        await it.fleet(a=9)
        claims = await it.claims(3)
        hand, log = Hand(), Probe()
        hand.stream().pipe(assign(it.feed)).subscribe(log)
        it.proxy.blackhole()
        with capture_logs() as logs:
            hand.push(*claims)
            await until(lambda: "assign_waits" in {entry["event"] for entry in logs})
            assert [] == log.notifications
            it.proxy.heal()
            it.proxy.cut()
            await until(lambda: len(log.notifications) == 3)
        names = [entry["event"] for entry in logs if entry["event"].startswith("assign_")]
        assert ["assign_waits", "assign_goes_on"] == names
        # Slots of calls whose replies were lost are released.
        await it.until_jobs(3)
        hand.complete()
        assert "|" == log.notifications[-1]
        await it.board.settle([claim.done() for claim in claims])
        await it.until_jobs(0)


async def test_replies_that_are_lost() -> None:
    """No slot is counted twice."""
    async with bench() as it:
        await it.fleet(a=9)
        claims = await it.claims(3)
        hand, log = Hand(), Probe()
        hand.stream().pipe(assign(it.feed)).subscribe(log)
        it.proxy.drop_replies(2, b"EVALSHA")
        hand.push(*claims)
        await until(lambda: len(log.notifications) == 3)
        await it.until_jobs(3)
        hand.complete()
        await it.board.settle([claim.done() for claim in claims])
        await it.until_jobs(0)


# -- whole pipelines -------------------------------------------------------------------------


async def test_the_node_of_a_handler() -> None:
    """Handlers see their own node and claim, in coroutines and in threads."""
    async with bench() as it:
        await it.fleet(a=3, b=3)
        seen: dict[str, tuple[str, str]] = {}

        async def coroutine(task: Task[Any]) -> None:
            before = current_node().id
            await asyncio.sleep(0.01)
            assert before == current_node().id
            seen[task.id] = (before, current_claim().task.id)

        def function(task: Task[Any]) -> None:
            seen[task.id] = (current_node().id, current_claim().task.id)

        for handler in (coroutine, function):
            seen.clear()
            await it.board.submit(tasks(12))
            made: list[Assignment[Any]] = []
            await run(
                it.board.claims(until="joined").pipe(
                    assign(it.feed), rx.do_action(made.append), execute(handler), settle(it.board)
                )
            )
            expected = {item.claim.task.id: (item.node.id, item.claim.task.id) for item in made}
            assert expected == seen
            assert 12 == len(seen)
        await it.until_jobs(0)


async def test_no_node() -> None:
    """There is no node outside of a handler, or where nothing was assigned."""
    with pytest.raises(LookupError, match=r"^current_node\(\) must be called from within"):
        current_node()

    def asks(_: Task[Any]) -> Node:
        return current_node()

    async with bench() as it:
        await it.board.submit(tasks(1))
        outcomes: list[Any] = await to_list(
            it.board.claims(until="idle").pipe(execute(asks), settle(it.board))
        )
        assert ["retry"] == [outcome.status for outcome in outcomes]
        assert isinstance(outcomes[0].error.__cause__, LookupError)


async def test_handlers_that_fail() -> None:
    """The slot of each attempt is released, and the next attempt gets its own."""
    async with bench() as it:
        await it.fleet(a=1)
        tries: list[str] = []

        async def fail(task: Task[Any]) -> None:
            tries.append(current_node().id)
            raise OSError("x")

        await it.board.submit(tasks(2, max_attempts=1))
        await run(
            it.board.claims(until="joined").pipe(assign(it.feed), execute(fail), settle(it.board))
        )
        assert ["a", "a"] == tries
        assert (0, 0, 0, 2) == await it.counts()
        await it.until_jobs(0)


async def test_claims_that_were_won() -> None:
    """Claims from ``claim_each`` are assigned like any other."""
    async with bench() as it:
        await it.fleet(a=1)
        await it.board.submit(tasks(4))
        done: list[str] = []

        async def work(task: Task[Any]) -> None:
            done.append(f"{task.id} on {current_node().id}")

        names = Hand()
        ended = asyncio.create_task(
            run(
                names.stream().pipe(
                    claim_each(it.board), assign(it.feed), execute(work), settle(it.board)
                )
            )
        )
        await asyncio.sleep(0)
        names.push("3", "none", "1", "1")
        names.complete()
        await ended
        assert ["3 on a", "1 on a"] == done
        assert (2, 0, 2, 0) == await it.counts()
        await it.until_jobs(0)


async def test_until_idle() -> None:
    """The stream completes when nothing is ready, even with more tasks than slots."""
    async with bench() as it:
        await it.fleet(a=2)
        await it.board.submit(tasks(9))

        async def work(task: Task[Any]) -> None:
            await asyncio.sleep(0.002)

        async with asyncio.timeout(10.0):
            await run(
                it.board.claims(until="idle").pipe(assign(it.feed), execute(work), settle(it.board))
            )
        assert (0, 0, 9, 0) == await it.counts()
