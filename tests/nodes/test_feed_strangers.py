"""Foreign messages on the channel are counted and dropped, and do no harm."""

from __future__ import annotations

import asyncio
import math
import random
import struct
from collections.abc import Callable

import msgspec
import pytest

from rxdispatch.node import Node
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.nodes.records import MESSAGE_LIMIT
from tests.nodes.fleets import CHANGES, Account, Scene, converged, scene, stepped_feed
from tests.nodes.places import until

TTL = 1000.0
RECORD, TOMBSTONE, TOUCH = 1, 2, 3

Forge = Callable[[bytes, int], bytes]


def _row(kind: int, seq: int, body: bytes, name: bytes = b"a") -> bytes:
    return struct.pack(">BQIHI", kind, seq, 9000, len(name), len(body)) + name + body


def _message(
    epoch: bytes, first: int, *rows: bytes, form: int = 1, count: int | None = None
) -> bytes:
    head = struct.pack(">B16sQI", form, epoch, first, len(rows) if count is None else count)
    return head + b"".join(rows)


def _record(
    state: bytes = b"\x80", *, form: int = 1, status: int = 0, spec: bytes | None = None
) -> bytes:
    spec = msgspec.msgpack.encode(("default", {})) if spec is None else spec
    return struct.pack(">BBQQIIII", form, status, 5, 1, 1, 0, 30_000, len(spec)) + spec + state


def _next(*rows: Callable[[int], bytes]) -> Forge:
    """Return a message with the next numbers, and one row for each of *rows*."""
    return lambda epoch, high: _message(
        epoch, high + 1, *(row(high + 1 + n) for n, row in enumerate(rows))
    )


def _bad_state(value: object) -> Forge:
    state = msgspec.msgpack.encode({"x": value})
    return _next(lambda seq: _row(RECORD, seq, _record(state)))


UNREADABLE: dict[str, Forge] = {
    "nothing": lambda _, __: b"",
    "text": lambda _, __: b"hello",
    "another format": lambda e, h: _message(e, h + 1, _row(TOMBSTONE, h + 1, b""), form=2),
    "cut short": lambda e, h: _message(e, h + 1, _row(RECORD, h + 1, _record()))[:-3],
    "more after the end": lambda e, h: _message(e, h + 1, _row(TOMBSTONE, h + 1, b"")) + b"x",
    "rows that are not there": lambda e, h: _message(e, h + 1, count=2**32 - 1),
    "numbers with a gap": lambda e, h: _message(e, h + 1, _row(TOMBSTONE, h - 1, b"")),
    "oversized": lambda e, h: _message(e, h + 1, _row(RECORD, h + 1, b"x" * MESSAGE_LIMIT)),
}

BAD_ROWS: dict[str, Forge] = {
    "NaN": _bad_state(math.nan),
    "infinity": _bad_state([1, {"y": -math.inf}]),
    "an extension": _bad_state(msgspec.msgpack.Ext(7, b"x")),
    "deeply nested": _next(lambda seq: _row(RECORD, seq, _record(b"\x81\xa1x" * 5000 + b"\xc0"))),
    "a state that is no map": _next(lambda seq: _row(RECORD, seq, _record(b"\x93\x01\x02\x03"))),
    "a state that is not whole": _next(lambda seq: _row(RECORD, seq, _record(b"\x82\xa1x"))),
    "a strange kind": _next(lambda seq: _row(77, seq, b"")),
    "a strange status": _next(lambda seq: _row(RECORD, seq, _record(status=9))),
    "a record of another format": _next(lambda seq: _row(RECORD, seq, _record(form=3))),
    "a spec that is none": _next(lambda seq: _row(RECORD, seq, _record(spec=b"\xc1"))),
    "no record": _next(lambda seq: _row(RECORD, seq, b"")),
    "no name": _next(lambda seq: _row(RECORD, seq, _record(), b"")),
    "a name that is no text": _next(lambda seq: _row(TOMBSTONE, seq, b"", b"\xff\xfe")),
    "a heartbeat of no version": _next(lambda seq: _row(TOUCH, seq, b"123")),
}

NUMBERS: dict[str, Forge] = {
    "far ahead": lambda e, h: _message(e, h + 10**6, _row(TOMBSTONE, h + 10**6, b"")),
    "the highest number": lambda e, _: _message(e, 2**64 - 1, _row(TOMBSTONE, 2**64 - 1, b"")),
    "long ago": lambda e, _: _message(e, 1, _row(TOMBSTONE, 1, b"")),
    "none": lambda e, _: _message(e, 0),
    "of another epoch": lambda _, h: _message(b"?" * 16, h + 1, _row(TOMBSTONE, h + 1, b"")),
}


async def _publish(at: Scene, feed: Feed, forge: Forge, times: int = 1) -> None:
    for _ in range(times):
        await at.call("PUBLISH", CHANGES, forge(feed._replica.epoch, feed._replica.high))
    await feed._replication._channels.barrier(5.0)


async def _goes_on(at: Scene, feed: Feed, account: Account) -> None:
    """Check that the feed still receives the registry's messages."""
    await at.straight.nodes.register(Node("after", capacity=len(account.changes)), ttl=TTL)
    truth = await converged(at, feed)
    assert {"a", "b", "after"} == truth.keys()
    await until(lambda: feed.current)


@pytest.mark.parametrize("what", UNREADABLE)
async def test_what_is_no_message(what: str) -> None:
    """The feed drops a foreign message, and makes no call for it."""
    async with scene(pulse_interval=60.0) as at:
        await at.straight.nodes.register([Node("a"), Node("b")], ttl=TTL)
        feed, engine = stepped_feed(at.hub, pulse_interval=60.0)
        async with feed:
            with Account(feed) as account:
                calls = dict(engine.count)
                await _publish(at, feed, UNREADABLE[what], 5)
                assert 5 == feed.stats.malformed
                assert [] == account.changes
                await _goes_on(at, feed, account)
                assert calls == engine.count


@pytest.mark.parametrize("what", BAD_ROWS)
async def test_what_is_no_row(what: str) -> None:
    """A bad row may have been a change, so the feed asks the registry, at most once for each."""
    async with scene(pulse_interval=60.0) as at:
        await at.straight.nodes.register([Node("a"), Node("b")], ttl=TTL)
        feed, engine = stepped_feed(at.hub, pulse_interval=60.0)
        async with feed:
            with Account(feed) as account:
                before = engine.count["changes"]
                await _publish(at, feed, BAD_ROWS[what], 5)
                await _goes_on(at, feed, account)
                assert 5 <= feed.stats.malformed
                assert [] == account.kinds("a")
                assert engine.count["changes"] - before <= 12
                # The feed has finished: no calls go on in the background.
                calls = dict(engine.count)
                await asyncio.sleep(0.1)
                assert calls == engine.count


@pytest.mark.parametrize("what", NUMBERS)
async def test_numbers_that_never_were(what: str) -> None:
    """Numbers that were never assigned remove and block nothing, and cause no endless calls."""
    async with scene(pulse_interval=60.0) as at:
        await at.straight.nodes.register([Node("a"), Node("b")], ttl=TTL)
        feed, engine = stepped_feed(at.hub, pulse_interval=60.0)
        async with feed:
            with Account(feed) as account:
                before = engine.count["changes"]
                await _publish(at, feed, NUMBERS[what], 5)
                await _goes_on(at, feed, account)
                assert [] == account.kinds("a")
                assert engine.count["changes"] - before <= 20
                calls = dict(engine.count)
                await asyncio.sleep(0.1)
                assert calls == engine.count


async def test_noise_among_writes() -> None:
    """Under constant foreign messages and random bytes, the feed ends up equal to the registry."""
    rng = random.Random(9)
    forges = [*UNREADABLE.values(), *BAD_ROWS.values(), *NUMBERS.values()]
    async with scene(pulse_interval=0.2) as at, at.hub.feed() as feed:
        with Account(feed) as account:
            await at.straight.nodes.register([Node("a"), Node("b")], ttl=TTL)
            for n in range(150):
                await at.straight.nodes.heartbeats({"a": {"n": n}, "b": None})
                text = rng.choice(forges)(feed._replica.epoch, feed._replica.high)
                if rng.random() < 0.3:
                    text = rng.randbytes(rng.randrange(80))
                elif rng.random() < 0.5 and text:
                    at_ = rng.randrange(min(len(text), 60))
                    text = text[:at_] + rng.randbytes(1) + text[at_ + 1 :]
                await at.call("PUBLISH", CHANGES, text)
            await _goes_on(at, feed, account)
        assert feed.stats.malformed > 0
        assert feed.stats.catch_ups + feed.stats.relists < 400
