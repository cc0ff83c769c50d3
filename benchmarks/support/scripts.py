"""Calls the board's scripts directly: the floor for boards on a server."""

from __future__ import annotations

import itertools
from typing import Any

from rxdispatch.boards.redis.engine import RedisEngine
from rxdispatch.store.scripts import Script, load_script

__all__ = ["claim_script", "settle_script", "submit_script"]

_SUBMIT, _CLAIM, _SETTLE = (
    load_script("rxdispatch.boards.redis", name) for name in ("submit", "claim", "settle")
)
_requests = itertools.count(1)


async def _run(board: Any, operation: str, script: Script, args: list[Any]) -> Any:
    engine: RedisEngine = board._engine
    names = engine._keys
    session = names.key("session:bare")
    keys = [session if name == "session" else names.key(name) for name in script.keys]
    head = (names.events, names.joined, b"", b"", b"", 0, next(_requests), b"")
    return await engine._calls._client.run(operation, script, keys, (*head, *args), engine.fence)


async def submit_script(board: Any, rows: list[bytes]) -> bytes:
    """Add tasks; *rows* holds the id, the record and the options of each task, one by one."""
    reply: bytes = await _run(board, "submit", _SUBMIT, [len(rows) // 3, *rows])
    return reply


async def claim_script(board: Any, limit: int) -> tuple[int, list[bytes]]:
    """Claim up to *limit* tasks; return the first token, and the ids."""
    reply = await _run(
        board, "claim", _CLAIM, [limit, 30_000_000, b"w", 0, b"", b"", 0, 0, b"n", b"any"]
    )
    return reply[0], reply[2]


async def settle_script(board: Any, first: int, ids: list[bytes]) -> bytes:
    """Settle tasks as done; *first* is the token of the first task."""
    tokens = range(first, first + len(ids))
    reply: bytes = await _run(board, "settle", _SETTLE, [len(ids), 0, *ids, *tokens])
    return reply
