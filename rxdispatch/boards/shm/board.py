"""``SharedMemoryBoard``: a board that the processes of one host share, without a server."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from rxdispatch.boards.base import Board
from rxdispatch.boards.engine import Options
from rxdispatch.boards.shm.engine import SharedEngine
from rxdispatch.boards.shm.storage.geometry import Geometry
from rxdispatch.boards.shm.storage.mapping import Mapping, path_of
from rxdispatch.checks import board_name

__all__ = ["SharedMemoryBoard"]

P = TypeVar("P")


class SharedMemoryBoard(Board[P]):
    """
    A board that the processes of one Linux host share; needs the extra ``shm``.

    Make one with :meth:`create` and open it in other processes with :meth:`attach`; neither needs
    a running event loop. The tasks are in a file in ``/dev/shm`` until :meth:`unlink`, even while
    no process has it open. Claims, renewals and settlements take no lock. A submission takes a
    lock, which the kernel drops when its holder dies. ``hints``, ``events`` and ``join`` poll:
    every millisecond at first, and every 20 ms when nothing happens.

    A task takes a cell of 192 bytes, with room for 80 bytes of id and payload, and 48 bytes of
    bookkeeping. The file has about 3.5 MB besides. Leases last at most three days. In its life, a
    board may have tasks of 1,024 kinds.

    Example:
        >>> import asyncio
        >>> from rxdispatch.task import Task
        >>> async def main(board: SharedMemoryBoard[int]) -> int:
        ...     _ = await board.submit(Task(n) for n in range(3))
        ...     claims = await board.claim(10)
        ...     _ = await board.settle(claim.done() for claim in claims)
        ...     return (await board.counts()).done
        >>> with SharedMemoryBoard.create("an example", capacity=100) as board:
        ...     asyncio.run(main(board))
        ...     board.unlink()
        3
    """

    def __init__(self, name: str, engine: SharedEngine, payload: type[P] | None) -> None:
        super().__init__(name, engine, payload)
        self._shared = engine

    @classmethod
    def create(
        cls,
        name: str,
        *,
        capacity: int = 65_536,
        max_crashes: int | None = None,
        payload: type[Any] | None = None,
        remember: float | timedelta | None = None,
        dead_limit: int | None = None,
    ) -> Self:
        """
        Make a board that does not exist yet.

        Args:
            name: 1 to 200 characters, without braces and control characters. Boards of different
                users of the host may have the same name.
            capacity: How many tasks fit if id and payload have at most 80 bytes; a larger task, or
                an error, takes another cell for each further 184 bytes.
            max_crashes: How many workers a task may lose before it is dead; 3 by default.
            payload: The type that payloads are decoded into; None leaves them as plain values.
            remember: Seconds for which the id of a done task counts as a duplicate; 0 by default.
            dead_limit: How many dead letters are kept; 100,000 by default. With more, the board
                discards the oldest.

        Raises:
            ConfigError: If a board of that name exists, another user's file is in its place, an
                argument breaks its rule, or the extra is not installed.
        """
        board_name("name", name)
        options = Options.of(max_crashes, remember, dead_limit)
        geometry = Geometry(capacity)
        mapping = Mapping.create(name, geometry)
        try:
            return cls(name, SharedEngine(name, mapping, options), payload)
        except BaseException:
            mapping.close()
            path_of(name).unlink()
            raise

    @classmethod
    def attach(
        cls,
        name: str,
        *,
        max_crashes: int | None = None,
        payload: type[Any] | None = None,
        remember: float | timedelta | None = None,
        dead_limit: int | None = None,
    ) -> Self:
        """
        Open an existing board.

        Raises:
            ConfigError: If there is no board of that name, the file has another version of the
                layout, another user may have made it or can use it, or an option differs from the
                stored one.
        """
        board_name("name", name)
        options = Options.of(max_crashes, remember, dead_limit)
        mapping = Mapping.attach(name)
        try:
            return cls(name, SharedEngine(name, mapping, options), payload)
        except BaseException:
            mapping.close()
            raise

    def close(self) -> None:
        """Close this handle; its claims end with their leases."""
        self._shared.close()

    def unlink(self) -> None:
        """Remove the board's file; the memory is freed when the last handle is closed."""
        path_of(self.name).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
