# pyright: basic
# The types of redis-py's commands are partial.
"""``Line``: a board, or a simpler structure, in which tasks wait."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import attrs

import rxdispatch as rxd
from benchmarks.support.scripts import submit_script
from rxdispatch.boards.redis.engine import RedisEngine
from rxdispatch.boards.task_codec import NewTask, TaskCodec
from rxdispatch.store.client import Client

__all__ = [
    "CHUNK",
    "PAYLOAD",
    "Line",
    "deque_line",
    "fill_board",
    "heap_line",
    "list_line",
    "on_board",
    "set_and_hash_line",
    "set_line",
    "walk",
]

CHUNK: Final = 256
PAYLOAD: Final = "twenty bytes of text"
_ROWS: Final = 1_000

#: The server runs it, so that adding a million entries takes only seconds.
_FILL: Final = """
local rows = {{}}
for i = 1, ARGV[1] do
  for _, part in ipairs({{ {} }}) do rows[#rows + 1] = part end
end
redis.call('{}', KEYS[1], unpack(rows))
"""
_FILL_LIST: Final = _FILL.format("ARGV[2] .. i", "LPUSH")
_FILL_SET: Final = _FILL.format("ARGV[3] + i, ARGV[2] .. i", "ZADD")
_FILL_HASH: Final = _FILL.format("ARGV[2] .. i, ARGV[4]", "HSET")

_numbers = itertools.count(1)


@attrs.frozen
class Line:
    """
    A structure in which tasks wait.

    Attributes:
        make: Returns new tasks.
        put: Adds them.
        take: Takes as many tasks, in order.
        end: Finishes the taken tasks; None if taking finishes them.
    """

    make: Callable[[], Any]
    put: Callable[[Any], Awaitable[Any]]
    take: Callable[[], Awaitable[Any]]
    end: Callable[[Any], Awaitable[Any]] | None = None


async def walk(line: Line, times: int) -> list[float]:
    """Put, take and end that many times; return the total seconds of each step."""
    took = [0.0, 0.0, 0.0]
    for _ in range(times):
        made = line.make()
        begun = time.perf_counter()
        await line.put(made)
        put = time.perf_counter()
        taken = await line.take()
        got = time.perf_counter()
        if line.end is not None:
            await line.end(taken)
        for at, seconds in enumerate((put - begun, got - put, time.perf_counter() - got)):
            took[at] += seconds
        assert len(taken) == len(made)
    return took


def on_board(board: rxd.Board[str], payload: str = PAYLOAD, count: int = CHUNK) -> Line:
    """Return the line of a board: submit, claim and settle, *count* at a time."""

    def make() -> list[rxd.Task[str]]:
        return [rxd.Task(payload) for _ in range(count)]

    async def end(claims: list[rxd.Claim[str]]) -> None:
        await board.settle([claim.done() for claim in claims])

    return Line(make, board.submit, lambda: board.claim(count), end)


async def fill_board(board: rxd.Board[str], depth: int) -> None:
    """Add *depth* tasks to a board, directly by its script or engine."""
    engine = board._engine
    entry = TaskCodec(str).encode_all([rxd.Task(PAYLOAD)])[0]
    begun = next(_numbers)
    for first in range(0, depth, _ROWS):
        numbers = range(first, min(first + _ROWS, depth))
        # These ids are as long as the default ids.
        ids = [f"{number:08x}-{begun:04x}-7000-8000-{number:012x}" for number in numbers]
        if isinstance(engine, RedisEngine):
            rows = [part for name in ids for part in (name.encode(), entry.record, b"")]
            await submit_script(board, rows)
        else:
            await engine.submit([NewTask(name, entry.record, 0, 0.0, 0.0) for name in ids])


def _ids() -> list[bytes]:
    return [b"%036d" % next(_numbers) for _ in range(CHUNK)]


async def _fill(client: Client, depth: int, scripts: Mapping[str, str]) -> None:
    for first in range(0, depth, _ROWS):
        count, prefix = min(_ROWS, depth - first), b"%030d" % next(_numbers)
        for key, script in scripts.items():
            await client.call("fill", "EVAL", script, 1, key, count, prefix, first, PAYLOAD)


async def list_line(client: Client, key: str, depth: int) -> Line:
    """Return a list of *depth* ids: LPUSH and RPOP."""
    await _fill(client, depth, {key: _FILL_LIST})
    return Line(
        _ids,
        lambda ids: client.call("put", "LPUSH", key, *ids),
        lambda: client.call("take", "RPOP", key, CHUNK),
    )


def _scored(ids: list[bytes]) -> list[bytes | int]:
    return [part for name in ids for part in (1_000_000 + next(_numbers), name)]


async def set_line(client: Client, key: str, depth: int) -> Line:
    """Return a sorted set of *depth* ids: ZADD and ZPOPMIN."""
    await _fill(client, depth, {key: _FILL_SET})

    async def put(ids: list[bytes]) -> None:
        await client.call("put", "ZADD", key, *_scored(ids))

    async def take() -> list[bytes]:
        popped: list[bytes] = await client.call("take", "ZPOPMIN", key, CHUNK)
        return popped[::2]

    return Line(_ids, put, take)


async def set_and_hash_line(client: Client, key: str, depth: int) -> Line:
    """Return a sorted set of *depth* ids, and a hash of their payloads."""
    names = f"{key}:names"
    await _fill(client, depth, {names: _FILL_SET, key: _FILL_HASH})

    async def put(ids: list[bytes]) -> None:
        await client.call("put", "HSET", key, *(part for name in ids for part in (name, PAYLOAD)))
        await client.call("put", "ZADD", names, *_scored(ids))

    async def take() -> list[bytes]:
        popped: list[bytes] = await client.call("take", "ZPOPMIN", names, CHUNK)
        await client.call("take", "HMGET", key, *popped[::2])
        return popped[::2]

    async def end(ids: list[bytes]) -> None:
        await client.call("end", "HDEL", key, *ids)

    return Line(_ids, put, take, end)


def deque_line(depth: int) -> Line:
    """Return a ``deque`` of *depth* ids."""
    items: deque[bytes] = deque(b"%036d" % next(_numbers) for _ in range(depth))

    async def put(ids: list[bytes]) -> None:
        for name in ids:
            items.append(name)

    async def take() -> list[bytes]:
        return [items.popleft() for _ in range(CHUNK)]

    return Line(_ids, put, take)


def heap_line(depth: int) -> Line:
    """Return a heap of *depth* ids, by number."""
    items = [(number, b"%036d" % number) for number in itertools.islice(_numbers, depth)]

    async def put(ids: list[bytes]) -> None:
        for name in ids:
            heapq.heappush(items, (next(_numbers), name))

    async def take() -> list[bytes]:
        return [heapq.heappop(items)[1] for _ in range(CHUNK)]

    return Line(_ids, put, take)
