"""Concurrent submits are written together, and each caller gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from rxdispatch.boards.group_commit import PATIENCE, GroupCommit
from rxdispatch.boards.task_codec import NewTask
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.task import Task
from rxdispatch.testing import VirtualTimeLoop
from tests.boards.places import Place, counts


@pytest.fixture(autouse=True)
def loop_factory(request: pytest.FixtureRequest) -> type[VirtualTimeLoop] | None:
    """Use virtual time, but not with a real server."""
    return None if "server" in request.fixturenames else VirtualTimeLoop


class Store:
    """A store that takes a millisecond for each write, unless a test sets another time."""

    def __init__(self, *, most: int = 1000, most_bytes: int = 1000) -> None:
        self.writes: list[list[str]] = []
        self.takes = 0.001
        self.error: Exception | None = None
        self.running: set[asyncio.Task[None]] = set()
        self.group = GroupCommit(self.write, self.spawn, most=most, most_bytes=most_bytes)

    async def write(self, entries: Sequence[NewTask]) -> list[bool]:
        self.writes.append([entry.id for entry in entries])
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return [not entry.id.startswith("old") for entry in entries]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    def add(self, *ids: str, size: int = 1) -> asyncio.Task[list[bool]]:
        entries = [NewTask(name, b"x" * size, 0, 0.0, 0.0) for name in ids]
        return asyncio.get_running_loop().create_task(self.group.add(entries))


async def test_who_is_alone_is_written_at_once() -> None:
    """A single caller does not wait for others."""
    store = Store()
    for name in "abc":
        assert [True] == await store.add(name)
    assert [["a"], ["b"], ["c"]] == store.writes
    assert 0.003 == pytest.approx(asyncio.get_running_loop().time())


async def test_who_comes_while_one_is_written_shares_the_next_write() -> None:
    """Callers during a write share the next one, in order, each with its own answer."""
    store = Store()
    calls = [store.add("a"), store.add("b", "old-c"), store.add("old-d"), store.add("e")]
    assert [[True], [True, False], [False], [True]] == await asyncio.gather(*calls)
    assert [["a"], ["b", "old-c", "old-d", "e"]] == store.writes


async def test_a_write_has_its_limits() -> None:
    """A write is limited in number and bytes, and never splits one call."""
    store = Store(most=3, most_bytes=10)
    sizes = [store.add("first"), store.add("a", "b"), store.add("c", "d"), store.add("e", size=9)]
    await asyncio.gather(*sizes, store.add("f", size=50), store.add("g"))
    assert [["first"], ["a", "b"], ["c", "d"], ["e"], ["f"], ["g"]] == store.writes


async def test_ids_count() -> None:
    """Bytes of ids count like those of records."""
    store = Store(most_bytes=20)
    await asyncio.gather(*(store.add(name * 9) for name in "abcde"))
    assert [["a" * 9], ["b" * 9, "c" * 9], ["d" * 9, "e" * 9]] == store.writes


async def test_nobody_waits_long_for_a_write_that_hangs() -> None:
    """A caller starts another write beside the hanging one, so it waits for the server once."""
    store = Store()
    store.takes = 2.0
    hanging = store.add("a")
    await asyncio.sleep(0)
    store.takes = 0.001
    await store.add("b")
    assert PATIENCE + 0.001 == pytest.approx(asyncio.get_running_loop().time())
    assert not hanging.done()
    await hanging


async def test_a_failure_is_told_to_each_by_an_error_of_his_own() -> None:
    """Each caller gets its own error, with the same facts and cause."""
    store = Store()
    cause = OSError("gone")
    store.error = StoreUnavailableError("submit", maybe_executed=True)
    store.error.__cause__ = cause
    calls = [store.add(name) for name in "abc"]
    found = await asyncio.gather(*calls, return_exceptions=True)
    errors = [error for error in found if isinstance(error, StoreUnavailableError)]
    assert 3 == len({id(error) for error in errors})
    assert [(True, cause)] * 3 == [(e.maybe_executed, e.__cause__) for e in errors]
    store.error = None
    assert [True] == await store.add("d")


async def test_who_leaves_before_the_write_is_not_written() -> None:
    """The callers that stay are written."""
    store = Store()
    first, second, third = store.add("a"), store.add("b"), store.add("c")
    await asyncio.sleep(0)
    second.cancel()
    assert [[True], [True]] == list(await asyncio.gather(first, third))
    assert [["a"], ["c"]] == store.writes


async def test_who_leaves_during_the_write_harms_nobody() -> None:
    """The other callers get their answers."""
    store = Store()
    first, second, third = store.add("a"), store.add("b"), store.add("c")
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0.0005)
    second.cancel()
    assert [True] == await third
    assert [["a"], ["b", "c"]] == store.writes


async def test_all_leave() -> None:
    """If all callers leave, nothing is written."""
    store = Store()
    calls = [store.add(name) for name in "abc"]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(1.0)
    assert [["a"]] == store.writes


async def test_the_loop_is_closed_meanwhile() -> None:
    """Callers that wait for the group are cancelled."""
    store = Store()
    calls = [store.add(name) for name in "abc"]
    await asyncio.sleep(0.0015)
    for task in tuple(store.running):
        task.cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [True] == found[0]
    assert [asyncio.CancelledError] * 2 == [type(error) for error in found[1:]]


async def test_many_requests_take_few_scripts(server: Place) -> None:
    """Each caller gets its own answer; if two submit an id, it is new for one of them."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="there"))
        await bench.hub.client.call("reset", "CONFIG", "RESETSTAT")
        ids = [f"{number % 200}" for number in range(400)]
        found = await asyncio.gather(*(board.submit(Task(0, id=name)) for name in ids))
        text: bytes = await bench.hub.client.call("ask", "INFO", "commandstats")
        line = next(line for line in text.decode().splitlines() if "cmdstat_evalsha" in line)
        assert int(line.partition("calls=")[2].partition(",")[0]) < 40
        assert set(ids) == {name for result in found for name in result.accepted}
        assert 200 == sum(len(result.accepted) for result in found)
        assert 200 == sum(len(result.duplicates) for result in found)
        assert (0, 201, 0, 0, 0) == await counts(board)
