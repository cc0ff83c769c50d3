"""``Client``: calls to the server that are repeated until a limit in time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis import asyncio as aioredis
from redis import exceptions
from redis.exceptions import (
    AuthenticationError,
    InvalidResponse,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
)

from rxdispatch.config import StoreSettings
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.store.connection import Connector
from rxdispatch.store.pool import Pool
from rxdispatch.store.scripts import Script
from rxdispatch.store.url import Target
from rxdispatch.store.version import check_version
from rxdispatch.store.wire import Value, exchange, pack

__all__ = ["Client"]

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.25

_REPEATED: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    InvalidResponse,
    OSError,
    EOFError,
)


class Client:
    """
    Talks to one server.

    A call whose connection fails, or which gets no reply within ``settings.attempt``, is sent
    again over another connection until ``settings.limit`` has passed. So every script and
    command must be safe to run twice.

    Args:
        target: The server.
        settings: Limits in time and number.

    Raises:
        ConfigError: If *target* names no server, or a TLS file cannot be read.
    """

    def __init__(self, target: Target, settings: StoreSettings) -> None:
        self.target = target
        self.settings = settings
        self.connector = Connector(target, settings)
        self.redis: aioredis.Redis = aioredis.Redis(connection_pool=self.connector.pool)
        self._pool = Pool(self.connector, settings.connections)

    async def open(self) -> None:
        """
        See that the server is there and lets us in.

        Raises:
            ConfigError: If it refuses the user and password, the database or the certificate,
                or is too old.
            StoreUnavailableError: If it does not answer within ``settings.limit``.
        """
        operation = f"connect to {self.target.safe}"
        await self.call(operation, "PING")
        try:
            info = await self.call(operation, "INFO", "server")
        except ResponseError:
            return  # a user who may not ask
        check_version(info)

    async def close(self) -> None:
        """Close every connection; calls that are still running fail."""
        await self._pool.close()
        await self.redis.aclose()
        await self.connector.pool.aclose()

    async def run(
        self, operation: str, script: Script, keys: Sequence[bytes], args: Sequence[Value]
    ) -> Any:
        """
        Run *script*.

        A server that does not know it yet, or no longer, is sent its text in the next round
        trip, and keeps it.

        Args:
            operation: What this is called in errors.
            script: Must be safe to run twice.
            keys: Every key that the script touches.
            args: Its data.

        Raises:
            ConfigError: If the client is closed.
            StoreUnavailableError: If no reply came within ``settings.limit``.
            redis.exceptions.ResponseError: If the server or the script says no.
        """
        count = len(keys)
        return await self._request(
            operation,
            pack((b"EVALSHA", script.sha, count, *keys, *args)),
            lambda: pack((b"EVAL", script.text, count, *keys, *args)),
        )

    async def call(self, operation: str, *command: Value) -> Any:
        """
        Send one *command*, such as ``("HGET", key, field)``; otherwise as :meth:`run`.

        Raises:
            StoreUnavailableError: If no reply came within ``settings.limit``.
            redis.exceptions.ResponseError: If the server says no.
        """
        return await self._request(operation, pack(command), None)

    async def _request(
        self, operation: str, packed: bytes, full: Callable[[], bytes] | None
    ) -> Any:
        if self._pool.closed:
            # Not "unavailable": who waits for the server to come back would wait for ever.
            raise ConfigError(f"{operation}: the hub must be open", "closed")
        return await self._repeat(operation, packed, full)

    async def _repeat(self, operation: str, packed: bytes, full: Callable[[], bytes] | None) -> Any:
        loop = asyncio.get_running_loop()
        pool = self._pool
        deadline = loop.time() + self.settings.limit
        pause = _FIRST_PAUSE
        maybe_executed = False
        while True:
            sent = clean = False
            try:
                connection = await pool.take(deadline)
            except TimeoutError as error:
                raise StoreUnavailableError(operation, maybe_executed=maybe_executed) from error
            if pool.closed:
                pool.give_back(connection, clean=False)
                raise StoreUnavailableError(operation, maybe_executed=maybe_executed)
            try:
                async with asyncio.timeout_at(min(deadline, loop.time() + self.settings.attempt)):
                    if not connection.is_connected:
                        await self.connector.open(connection)
                    sent = True
                    reply = await exchange(connection, packed)
                clean = True
                return reply
            except AuthenticationError:
                raise self.connector.login_refused() from None
            except NoScriptError:
                clean = True
                if full is None:
                    raise
                packed, full = full(), None
                continue
            except (ReadOnlyError, MasterDownError) as error:
                # Not executed; another connection may lead to the new primary.
                cause: Exception = error
            except ResponseError as error:
                clean = True
                if not str(error).startswith("BUSY "):
                    raise
                cause = error
            except _REPEATED as error:
                cause = error
                maybe_executed = maybe_executed or sent
            finally:
                pool.give_back(connection, clean=clean)
            left = deadline - loop.time()
            if left <= 0 or pool.closed:
                raise StoreUnavailableError(operation, maybe_executed=maybe_executed) from cause
            await asyncio.sleep(min(left, pause * random.uniform(0.5, 1.0)))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def __repr__(self) -> str:
        return f"<Client {self.target.safe}>"
