"""``Client``: calls to one server, repeated until a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis import asyncio as aioredis
from redis import exceptions
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import InvalidResponse, NoScriptError, ResponseError

from rxdispatch.config import StoreSettings
from rxdispatch.errors import ConfigError
from rxdispatch.home import Home
from rxdispatch.store.advice import advise
from rxdispatch.store.connections.connection import Connector
from rxdispatch.store.connections.connection_pool import ConnectionPool
from rxdispatch.store.connections.patience import Patience
from rxdispatch.store.connections.server_identity import (
    UNKNOWN,
    ask_identity,
    forget_identity,
    identity_of,
)
from rxdispatch.store.connections.wire import Value, exchange, pack, receive, send
from rxdispatch.store.fence import Fence
from rxdispatch.store.request_attempts import RequestAttempts
from rxdispatch.store.scripts import Script
from rxdispatch.store.url import Target
from rxdispatch.store.version import check_version

__all__ = ["Client"]

CAP: Final = 10
"""The longest time of a call while bytes still move, as a multiple of ``settings.timeout``."""

_REPEATED: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    InvalidResponse,
    OSError,
    EOFError,
)


class Client:
    """
    The client of one server.

    A call whose connection fails, or that gets no reply within ``settings.attempt_timeout``, is
    repeated over another connection until ``settings.timeout`` has passed. So every script and
    command must be safe to run twice. Both timeouts count from the last byte received or sent, and
    no call takes more than ten times ``settings.timeout``.

    It belongs to the event loop in which it is first used.

    Args:
        target: The server.
        settings: Timeouts, and the number of connections.

    Raises:
        ConfigError: If *target* names no server, or a TLS file cannot be read.
    """

    def __init__(self, target: Target, settings: StoreSettings) -> None:
        self.target = target
        self.settings = settings
        self.connector = Connector(target, settings)
        self.redis: aioredis.Redis = aioredis.Redis(connection_pool=self.connector.pool)
        self.home = Home(f"client of {target.safe}")
        self._pool = ConnectionPool(self.connector, settings.connections)
        self._ever_answered = False

    async def open(self) -> None:
        """
        Connect, log in, and check the server's version.

        Raises:
            ConfigError: If the server refuses the login or the database, has a certificate that is
                not trusted, or is too old.
            StoreUnavailableError: If it does not answer within ``settings.timeout``.
        """
        operation = f"connect to {self.target.safe}"
        await self._request(operation, pack(("PING",)), read_only=True)
        try:
            info = await self._request(operation, pack(("INFO", "server")), read_only=True)
            memory = await self._request(operation, pack(("INFO", "memory")), read_only=True)
        except (ConfigError, ResponseError):
            return  # the ACL forbids INFO
        check_version(info)
        advise(self.target.safe, info, memory)

    async def close(self) -> None:
        """Close every connection; calls that still run fail."""
        try:
            await self._pool.close()
        finally:
            try:
                await self.redis.aclose()
            finally:
                await self.connector.pool.aclose()

    async def run(
        self,
        operation: str,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Value],
        fence: Fence | None = None,
        on_written: Callable[[], None] | None = None,
    ) -> Any:
        """
        Run *script*.

        If the server does not have it, a second round trip sends its text, which the server keeps.

        Args:
            operation: The name of this call in errors.
            script: Must be safe to run twice.
            keys: Every key that the script touches.
            args: The arguments of the script.
            fence: Gives the script one more argument, the last: which server process the connection
                has reached; empty if that is unknown.
            on_written: Called when the request is written, before the reply; for each attempt.

        Raises:
            ConfigError: If the client is closed or used in another event loop, or the server's ACL
                forbids this.
            CodecError: If the request is larger than the server accepts.
            StoreUnavailableError: If no reply came within ``settings.timeout``.
            redis.exceptions.ResponseError: If the server or the script answers with an error.
        """
        count = len(keys)
        if fence is not None:
            # Replaced by what the connection knows, when there is one.
            args = (*args, UNKNOWN)
        return await self._request(
            operation,
            pack((b"EVALSHA", script.sha, count, *keys, *args)),
            lambda: pack((b"EVAL", script.text, count, *keys, *args)),
            fence,
            on_written=on_written,
        )

    async def call(self, operation: str, *command: Value) -> Any:
        """
        Send one *command*, such as ``("HGET", key, field)``, and repeat it as :meth:`run` does.

        Raises:
            StoreUnavailableError: If no reply came within ``settings.timeout``.
            redis.exceptions.ResponseError: If the server answers with an error.
        """
        return await self._request(operation, pack(command))

    async def _request(
        self,
        operation: str,
        packed: bytes,
        full: Callable[[], bytes] | None = None,
        fence: Fence | None = None,
        *,
        read_only: bool = False,
        on_written: Callable[[], None] | None = None,
    ) -> Any:
        self.home.check()
        if self._pool.closed:
            # Not "unavailable": a caller that waits for the server would wait forever.
            raise ConfigError(f"{operation}: the hub must be open", "closed")
        return await self._repeat(
            operation, packed, full, fence, read_only=read_only, on_written=on_written
        )

    async def _repeat(
        self,
        operation: str,
        packed: bytes,
        full: Callable[[], bytes] | None,
        fence: Fence | None,
        *,
        read_only: bool,
        on_written: Callable[[], None] | None,
    ) -> Any:
        loop = asyncio.get_running_loop()
        pool, attempt = self._pool, self.settings.attempt_timeout
        deadline = loop.time() + self.settings.timeout
        cap = loop.time() + self.settings.timeout * CAP
        attempts: RequestAttempts | None = None
        # Errors are raised outside the except blocks, so that they do not refer to frames of
        # redis-py, whose variables may hold a password.
        while True:
            sent = clean = False
            patience: Patience | None = None
            try:
                connection = await pool.take(deadline)
            except TimeoutError:
                break
            try:
                if pool.closed:
                    break
                if not connection.is_connected:
                    await self.connector.reach(connection, min(attempt, deadline - loop.time()))
                patience = Patience(
                    connection,
                    attempt=attempt,
                    deadline=deadline,
                    cap=cap,
                    size=len(packed),
                    on_written=on_written,
                )
                with patience:
                    sent = True
                    reply = await self._exchange(connection, packed, fence, patience)
                clean = self._ever_answered = True
                return reply
            except NoScriptError:
                clean = True
                if full is None:
                    raise
                packed, full = full(), None
                continue
            except ResponseError as error:
                if fence is not None and fence.refused(error) and loop.time() < deadline:
                    clean = True
                    forget_identity(connection)
                    continue
                attempts = attempts or self._attempts(operation, packed, read_only=read_only)
                if not attempts.answered(error):
                    clean = True
                    raise
            except _REPEATED as error:
                attempts = attempts or self._attempts(operation, packed, read_only=read_only)
                attempts.failed(error, sent=sent, ever_answered=self._ever_answered)
            finally:
                pool.give_back(connection, clean=clean)
                if patience is not None and patience.moved_at is not None:
                    deadline = min(cap, patience.moved_at + self.settings.timeout)
            if pool.closed or not await attempts.wait(deadline):
                break
        raise (attempts or self._attempts(operation, packed, read_only=read_only)).error()

    async def _exchange(
        self,
        connection: AbstractConnection,
        packed: bytes,
        fence: Fence | None,
        patience: Patience,
    ) -> Any:
        """Send a request, which names the server if there is a *fence*; return the reply."""
        if fence is None or not fence.on:
            return await exchange(connection, packed, patience)
        identity = identity_of(connection) or await ask_identity(connection)
        await send(connection, identity.seal(packed), patience)
        reply = await receive(connection)
        fence.answered(identity)
        return reply

    def _attempts(self, operation: str, packed: bytes, *, read_only: bool) -> RequestAttempts:
        return RequestAttempts(operation, self.target, size=len(packed), read_only=read_only)

    def __repr__(self) -> str:
        return f"<Client {self.target.safe}>"
