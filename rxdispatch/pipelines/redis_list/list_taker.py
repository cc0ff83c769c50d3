"""``ListTaker``: moves entries of a list to the processing list of one worker."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from rxdispatch.errors import ConfigError
from rxdispatch.log import get_logger
from rxdispatch.pipelines.redis_list.held_entries import HeldEntries, ListWorker
from rxdispatch.store.client import Client
from rxdispatch.store.connections.wire import Value, abort, exchange, pack

__all__ = ["ListTaker"]

log = get_logger(__name__)

_FAILURES: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.InvalidResponse,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    OSError,
    EOFError,
)

_PAUSE: Final = (0.05, 0.3)


class ListTaker:
    """
    Takes entries from a list, one at a time, on a connection of its own that may block.

    A connection that fails may have moved an entry without delivering it. So the taker makes the
    server close that connection before it uses a new one. Then it takes the entries in the
    processing list that the worker does not hold, like any others.
    """

    def __init__(self, client: Client, worker: ListWorker, held: HeldEntries) -> None:
        self._client = client
        self._worker = worker
        self._held = held
        self._connection: AbstractConnection | None = None
        self._name: int | None = None
        self._away = False

    async def take(self) -> list[bytes]:
        """
        Wait for entries, and return those that are new in our processing list.

        Raises:
            ConfigError: If the server refuses a command.
        """
        while True:
            try:
                found = await self._take()
            except _FAILURES as error:
                self._drop()
                if not self._away:
                    self._away = True
                    log.warning("redis_list_lost", key=self._key, error=type(error).__name__)
                await asyncio.sleep(random.uniform(*_PAUSE))
            except exceptions.ResponseError as error:
                raise ConfigError(
                    f"{self._key}: the server must accept the commands ({error})"
                ) from error
            else:
                if found:
                    return found

    async def close(self) -> bool:
        """Close the connection; return whether it is certain that the server moves no more."""
        self._drop()
        try:
            await self._kill(self._client.call)
        except Exception:
            return False
        return self._name is None

    async def _take(self) -> list[bytes]:
        connection = self._connection
        if connection is None:
            await self._open()
            # Entries that the previous connection may have moved.
            return await self._strays()
        worker, block = self._worker, self._client.settings.ping_interval
        value = await self._ask(
            *("BLMOVE", worker.source, worker.held, worker.side, "RIGHT", block), patience=block
        )
        # If nothing came, look for strays: we may not be permitted to close the old connection, so
        # it may have moved an entry since the last look.
        return await self._strays() if value is None else [value]

    async def _open(self) -> None:
        connection = self._client.connector.make()
        self._connection = connection
        await self._client.connector.reach(connection, self._client.settings.attempt_timeout)
        try:
            await self._kill(self._ask_as)
        except exceptions.ResponseError:
            pass  # not permitted; the server closes the old connection sooner or later
        self._name = await self._ask("CLIENT", "ID")
        if self._away:
            self._away = False
            log.info("redis_list_restored", key=self._key)

    async def _kill(self, ask: Callable[..., Awaitable[Any]]) -> None:
        if self._name is not None:
            await ask("close a connection", "CLIENT", "KILL", "ID", self._name)
            self._name = None

    async def _strays(self) -> list[bytes]:
        held = Counter(self._held.values.values())
        found: list[bytes] = await self._ask("LRANGE", self._worker.held, 0, -1)
        return [*(Counter(found) - held).elements()]

    async def _ask(self, *command: Value, patience: float = 0.0) -> Any:
        connection = self._connection
        assert connection is not None
        async with asyncio.timeout(self._client.settings.attempt_timeout + patience):
            return await exchange(connection, pack(command))

    async def _ask_as(self, _: str, *command: Value) -> Any:
        return await self._ask(*command)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            abort(connection)

    @property
    def _key(self) -> str:
        return self._worker.source.decode(errors="replace")
