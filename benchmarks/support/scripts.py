"""Calls the board's scripts directly: the floor for boards on a server."""

from __future__ import annotations

import itertools
import struct
from typing import Any

from rxdispatch.boards.redis.engine import RedisEngine
from rxdispatch.boards.redis.keys import BoardKeys
from rxdispatch.store.client import Client
from rxdispatch.store.scripts import load_script

__all__ = ["claim_script", "settle_script", "submit_script"]

_SUBMIT = load_script("rxdispatch.boards.redis", "prelude", "submit")
_CLAIM = load_script("rxdispatch.boards.redis", "prelude", "claim")
_SETTLE = load_script("rxdispatch.boards.redis", "prelude", "settle")
_requests = itertools.count(1)


def _where(board: Any) -> tuple[Client, BoardKeys, tuple[bytes, ...]]:
    engine: RedisEngine = board._engine
    keys: BoardKeys = engine._keys
    reply = keys.replies + b"bare:" + str(next(_requests)).encode()
    return engine._client, keys, (*keys.keys, reply)


async def submit_script(board: Any, rows: list[bytes]) -> bytes:
    """Add tasks; *rows* holds the id, the record and the options of each task, one by one."""
    client, names, keys = _where(board)
    head = (names.events, names.hints, b"", b"", b"", len(rows) // 3)
    reply: bytes = await client.run("submit", _SUBMIT, keys, (*head, *rows))
    return reply


async def claim_script(board: Any, limit: int) -> tuple[int, list[bytes]]:
    """Claim up to *limit* tasks; return the first token, and the ids."""
    client, names, keys = _where(board)
    head = (names.events, names.hints, b"", b"", b"", limit, 30_000_000, b"w", b"any")
    reply = await client.run("claim", _CLAIM, keys, head)
    return reply[0], reply[2]


async def settle_script(board: Any, first: int, ids: list[bytes]) -> bytes:
    """Settle tasks as done; *first* is the token of the first task."""
    client, names, keys = _where(board)
    tokens = [struct.pack(">Q", first + i) for i in range(len(ids))]
    head = (names.events, names.hints, b"", b"", b"", len(ids))
    reply: bytes = await client.run("settle", _SETTLE, keys, (*head, *ids, *tokens))
    return reply
