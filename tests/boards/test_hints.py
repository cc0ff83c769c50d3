"""Which of many workers claim after a hint."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from reactivex import Subject
from reactivex import operators as rx

from rxdispatch.boards.redis.hints import FIRST, SPACING, read_hints
from rxdispatch.store.pubsub.channels import Channels
from rxdispatch.task import Task
from rxdispatch.testing import VirtualTimeLoop
from tests.boards.places import Bench, Place

CROWD = 200


@pytest.fixture(autouse=True)
def loop_factory(request: pytest.FixtureRequest) -> type[VirtualTimeLoop] | None:
    """Use virtual time, but not with a real server."""
    return None if "server" in request.fixturenames else VirtualTimeLoop


@asynccontextmanager
async def listeners(bench: Bench, count: int) -> AsyncGenerator[list[bytes | None]]:
    """Subscribe *count* listeners to a board's hints; yield what one of them receives."""
    heard: list[bytes | None] = []
    channels = [Channels(bench.hub.client) for _ in range(count)]
    try:
        for each in channels:
            stream = each.channel(bench.key("hints")).pipe(rx.filter(bool))
            stream.subscribe(heard.append if each is channels[0] else None)
            await each.confirmed(bench.key("hints"))
        yield heard
    finally:
        for each in channels:
            await each.close()


class Crowd:
    """Many listeners, and what each received when."""

    def __init__(self, size: int) -> None:
        self.source: Subject[bytes | None] = Subject()
        self.heard: list[tuple[float, str]] = []
        loop = asyncio.get_running_loop()
        for _ in range(size):
            self.source.pipe(read_hints()).subscribe(
                lambda signal: self.heard.append((loop.time(), signal))
            )

    def told(self) -> Counter[str]:
        """Return how often each signal was received so far."""
        return Counter(signal for _, signal in self.heard)


async def test_few_listeners_all_claim() -> None:
    """Few listeners claim at once, and all of them get every other signal."""
    crowd = Crowd(3)
    for message in (b"r", b"j", None):
        crowd.source.on_next(message)
    assert {"ready": 3, "joined": 3, "reconnected": 3} == crowd.told()


async def test_of_many_a_few_claim_at_once_and_the_others_in_turn() -> None:
    """Each listener claims once, at a pace that the server can serve."""
    crowd = Crowd(CROWD)
    begun = asyncio.get_running_loop().time()
    crowd.source.on_next(b"r1/%d" % CROWD)
    # Each of 200 is chosen with a chance of 1 in 50; more than 20 happen once in 10^10 runs.
    assert crowd.told()["ready"] <= 5 * FIRST
    await asyncio.sleep(CROWD * SPACING)
    assert {"ready": CROWD} == crowd.told()
    assert max(at for at, _ in crowd.heard) - begun <= CROWD * SPACING


async def test_who_waits_for_a_turn_hears_that_nothing_is_left() -> None:
    """A listener that waits for its turn does not claim after it hears that nothing is left."""
    crowd = Crowd(CROWD)
    crowd.source.on_next(b"r1/%d" % CROWD)
    first = crowd.told()["ready"]
    crowd.source.on_next(b"e")
    await asyncio.sleep(1.0)
    assert first == crowd.told()["ready"]


async def test_tasks_for_all_let_all_claim() -> None:
    """With as many tasks as listeners, all claim at once."""
    crowd = Crowd(CROWD)
    crowd.source.on_next(b"r50/%d" % CROWD)
    assert {"ready": CROWD} == crowd.told()


async def test_a_later_hint_takes_the_place_of_an_earlier_one() -> None:
    """A listener does not claim twice for two hints."""
    crowd = Crowd(CROWD)
    crowd.source.on_next(b"r1/100000")
    early = crowd.told()["ready"]
    crowd.source.on_next(b"r")
    await asyncio.sleep(100_000 * SPACING)
    assert early + CROWD == crowd.told()["ready"]


@pytest.mark.parametrize(
    "message", [b"", b"x", b"r1", b"r/", b"r1/", b"r/8", b"r-1/8", b"r1/8/8", b"r1/" + b"9" * 99]
)
async def test_what_others_publish_is_passed_over(message: bytes) -> None:
    """Foreign messages on the channel are ignored."""
    crowd = Crowd(1)
    crowd.source.on_next(message)
    await asyncio.sleep(1.0)
    assert [] == crowd.heard


async def test_nothing_is_left_behind() -> None:
    """A listener that leaves before its turn, or whose source ends, leaves no timer."""
    source: Subject[bytes | None] = Subject()
    heard: list[str] = []
    with source.pipe(read_hints()).subscribe(heard.append):
        source.on_next(b"r1/100000000")
    await asyncio.sleep(100_000_000 * SPACING)
    assert [] == heard


async def test_the_scripts_count_who_listens(server: Place) -> None:
    """The hints say when no task is left, so that a crowd does not claim one task."""
    async with server.bench() as bench:
        board = bench.board()
        async with listeners(bench, 11) as heard:
            for number in range(3):
                await board.submit(Task(number))
                claims = await board.claim(5)
                await board.settle([claim.done() for claim in claims])
            async with asyncio.timeout(10):
                while len(heard) < 9:
                    await asyncio.sleep(0.01)
        # A script knows the number of listeners only after it has published something.
        assert [b"r", b"e", b"j", b"r1/11", b"e", b"j", b"r1/11", b"e", b"j"] == heard


async def test_a_crowd_hears_that_the_last_task_was_cancelled(server: Place) -> None:
    """A hint tells those that wait for their turn, so that they do not claim."""
    async with server.bench() as bench:
        board = bench.board()
        async with listeners(bench, 11) as heard:
            await board.submit([Task(0, id="a"), Task(0, id="b")])
            await board.cancel("a")
            await board.cancel("b")
            async with asyncio.timeout(10):
                while b"j" not in heard:
                    await asyncio.sleep(0.01)
        assert [b"r", b"e", b"j"] == heard


async def test_a_lapsed_task_of_a_kind_that_the_worker_does_not_know(server: Place) -> None:
    """The claim that finds the lapsed lease tells those that know the kind."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, kind="x"))
        await board.claim(1, lease=10.0)
        await bench.later(20)
        async with listeners(bench, 1) as heard:
            assert [] == await board.claim(1, kinds=["y"])
            async with asyncio.timeout(10):
                while not heard:
                    await asyncio.sleep(0.01)
        assert [b"r"] == heard
