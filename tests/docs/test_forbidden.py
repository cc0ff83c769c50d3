"""The error for a forbidden command names the user and the page, and no secret."""

from __future__ import annotations

import asyncio

import pytest

import rxdispatch as rxd
from rxdispatch.store.url import Target
from tests.docs.test_acl import PASSWORD, _allow, _as_worker, _rules
from tests.servers import Kind, any_server

RULE = r"the server's ACL must allow it to user 'worker' \(docs/how-to/own-redis.md"


async def failure(target: Target, use: str) -> BaseException:
    """Return the error that a user with too few rights gets."""
    settings = rxd.Settings(grace=0.0)
    async with rxd.connect(_as_worker(target), settings=settings) as hub, asyncio.timeout(20):
        with pytest.raises(rxd.RxDispatchError) as caught:
            await use_it(hub, use)
    return caught.value


async def use_it(hub: rxd.Hub, use: str) -> None:
    """Do something that needs rights."""
    if use == "feed":
        async with hub.feed():
            pass
    elif use == "claims":
        await rxd.run(hub.board("jobs").claims(until="idle"))
    else:
        await hub.board("jobs").submit(rxd.Task(1))


@pytest.mark.parametrize("kind", ["valkey", "redis"])
@pytest.mark.parametrize(
    ("use", "missing"),
    [
        ("submit", ["-zadd"]),
        ("submit", ["-eval", "-evalsha"]),
        ("submit", ["resetkeys"]),
        ("claims", ["-evalsha"]),
        ("feed", ["resetchannels"]),
        ("feed", ["-subscribe"]),
        ("feed", ["-evalsha"]),
    ],
)
async def test_what_is_missing(kind: Kind, use: str, missing: list[str]) -> None:
    """A forbidden command, key or channel, even in a script, does not look like a silent server."""
    async with any_server(kind) as target:
        await _allow(target, [*_rules(), *missing])
        error = await failure(target, use)
    assert isinstance(error, rxd.ConfigError), error
    with pytest.raises(rxd.ConfigError, match=RULE):
        raise error
    assert PASSWORD not in f"{error} {error!r}"
