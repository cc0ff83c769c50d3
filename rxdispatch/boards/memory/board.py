"""``MemoryBoard``: a board inside one process."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar, overload

from rxdispatch.boards.base import Board
from rxdispatch.boards.engine import Options
from rxdispatch.boards.memory.engine import MemoryEngine
from rxdispatch.checks import board_name

__all__ = ["MemoryBoard"]

P = TypeVar("P")


class MemoryBoard(Board[P]):
    """
    A board inside one process and one event loop; it ends with the process.

    Args:
        name: 1 to 200 characters, without braces and control characters.
        max_crashes: How many workers a task may lose before it is dead; 3 by default.
        payload: The type that payloads are decoded into; None leaves them as plain values.
        remember: Seconds for which the id of a done task counts as a duplicate; 0 by default.
        dead_limit: How many dead letters are kept; 100,000 by default. With more, the board
            discards the oldest.
        engine: The engine of another handle, to share its tasks.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> import asyncio
        >>> from rxdispatch.task import Task
        >>> async def main() -> int:
        ...     board = MemoryBoard("jobs")
        ...     _ = await board.submit(Task(n) for n in range(3))
        ...     claims = await board.claim(10)
        ...     _ = await board.settle(claim.done() for claim in claims)
        ...     return (await board.counts()).done
        >>> asyncio.run(main())
        3
    """

    @overload
    def __init__(
        self: MemoryBoard[Any],
        name: str,
        *,
        max_crashes: int | None = None,
        payload: None = None,
        remember: float | timedelta | None = None,
        dead_limit: int | None = None,
        engine: MemoryEngine | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        name: str,
        *,
        max_crashes: int | None = None,
        payload: type[P],
        remember: float | timedelta | None = None,
        dead_limit: int | None = None,
        engine: MemoryEngine | None = None,
    ) -> None: ...

    def __init__(
        self,
        name: str,
        *,
        max_crashes: int | None = None,
        payload: type[P] | None = None,
        remember: float | timedelta | None = None,
        dead_limit: int | None = None,
        engine: MemoryEngine | None = None,
    ) -> None:
        board_name("name", name)
        options = Options.of(max_crashes, remember, dead_limit)
        if engine is None:
            engine = MemoryEngine()
        engine.agree(options)
        super().__init__(name, engine, payload)
