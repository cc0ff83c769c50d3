"""``Lookups``: a large answer arrives in parts, and completely."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import pytest

from rxdispatch.node import Node
from rxdispatch.nodes.engine import Page
from tests.nodes.places import KINDS, ground
from tests.servers import Kind

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@pytest.mark.parametrize("kind", KINDS)
async def test_large_nodes_come_in_several_replies(kind: Kind) -> None:
    """No reply is much larger than 1 MiB, and each node is requested only once at a time."""
    async with ground(kind) as at, at.hub.feed() as feed:
        names = [f"n{n}" for n in range(60)]
        await at.nodes.register([Node(name) for name in names], ttl=1000.0)
        for start in range(0, 60, 10):
            some = names[start : start + 10]
            await at.nodes.heartbeats({name: {"x": "y" * 60_000} for name in some})
        lookups: Any = feed._replication.lookups
        plain = lookups._engine.lookup
        sizes: list[int] = []
        seen: list[str] = []

        async def lookup(ids: Iterable[str]) -> Page:
            seen.append(tenant.get())
            page: Page = await plain(ids)
            sizes.append(len(page.message))
            return page

        lookups._engine.lookup = lookup
        try:
            tenant.set("ACME")
            wanted = [*names[:30], "none", *names[30:]]
            answers = await asyncio.gather(*(lookups.ask(name) for name in wanted))
        finally:
            del lookups._engine.lookup
        assert [True] * 61 == answers
        assert 4 == len(sizes)
        assert max(sizes) < 1_200_000
        assert {"nobody"} == set(seen)
        assert not lookups._wanted
        assert not lookups._asked
