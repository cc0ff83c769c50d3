"""``Connector``: connections of ``redis.asyncio`` with our settings and hidden secrets."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any, cast

from redis import asyncio as aioredis
from redis.asyncio.connection import (
    AbstractConnection,
    RedisSSLContext,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from rxdispatch.config import StoreSettings
from rxdispatch.errors import ConfigError
from rxdispatch.store.url import Target, Tls

__all__ = ["Connector"]


class Connector:
    """
    Makes connections to one server.

    The retries of redis-py are off: they know nothing of limits in time, nor of what is safe
    to repeat.

    Args:
        target: The server.
        settings: Their limits in time.

    Raises:
        ConfigError: If there is no server to connect to, or a TLS file cannot be read.
    """

    def __init__(self, target: Target, settings: StoreSettings) -> None:
        if target.scheme == "memory":
            raise ConfigError("the url must name a server", target.safe)
        self.target = target
        self.pool = aioredis.BlockingConnectionPool(
            max_connections=settings.connections,
            timeout=settings.limit,
            **_options(target, settings),
        )
        self._context: RedisSSLContext | None = None

    def make(self) -> AbstractConnection:
        """Return a connection that is not open yet and belongs to no pool."""
        # redis-py leaves these two methods without types.
        connection = cast("AbstractConnection", cast("Any", self.pool).make_connection())
        if isinstance(connection, SSLConnection):
            # Reading the authorities takes tens of milliseconds: once, not once a connection.
            if self._context is None:
                self._context = connection.ssl_context
            connection.ssl_context = self._context
        return connection

    async def open(self, connection: AbstractConnection) -> None:
        """
        Connect and log in.

        Raises:
            ConfigError: If trying again cannot help.
            RedisError: If it can.
        """
        try:
            await cast("Any", connection).connect()
        except RedisError as error:
            refusal = self._refusal(error)
            if refusal is None:
                raise
            raise refusal from error

    def login_refused(self) -> ConfigError:
        """What to raise when the server does not know us."""
        return ConfigError(f"{self.target.safe}: the server must accept the user and password")

    def _refusal(self, error: RedisError) -> ConfigError | None:
        """Return what is wrong with the URL if that is why connecting failed, else None."""
        # Over a unix socket redis-py logs in twice and wraps what comes of the first time.
        for reason in (error, error.__cause__, error.__context__):
            if isinstance(reason, AuthenticationError):
                return self.login_refused()
            if isinstance(reason, ResponseError):
                return ConfigError(f"{self.target.safe}: the login must succeed ({reason})")
            if isinstance(reason, ssl.SSLCertVerificationError):
                why = reason.verify_message
                return ConfigError(f"{self.target.safe}: its certificate must be trusted ({why})")
        return None


class _Login(CredentialProvider):
    """Gives user and password away at login only; redis-py would keep them as plain text."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = "" if self._target.password is None else self._target.password.reveal()
        return (password,) if self._target.user is None else (self._target.user, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


def _options(target: Target, settings: StoreSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "db": target.db,
        # Our own limit covers a whole attempt; one for each read would only cost time.
        "socket_timeout": None,
        "socket_connect_timeout": settings.attempt,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "health_check_interval": 0,
        # RESP 2 and no CLIENT SETINFO: a connection is ready after one round trip less.
        "protocol": 2,
        "driver_info": None,
    }
    if target.password is not None:
        options["credential_provider"] = _Login(target)
    if target.scheme == "unix":
        options |= {"connection_class": UnixDomainSocketConnection, "path": target.path}
    else:
        options |= {"host": target.host, "port": target.port}
    if target.tls is not None:
        options |= {"connection_class": SSLConnection, **_tls(target.tls)}
    return options


def _tls(tls: Tls) -> dict[str, Any]:
    for name, path in (
        ("ssl_ca_certs", tls.ca_certs),
        ("ssl_certfile", tls.certfile),
        ("ssl_keyfile", tls.keyfile),
    ):
        if path is not None and not (Path(path).is_file() and os.access(path, os.R_OK)):
            raise ConfigError(f"{name} must be a file that can be read", path)
    return {
        "ssl_ca_certs": tls.ca_certs,
        "ssl_certfile": tls.certfile,
        "ssl_keyfile": tls.keyfile,
        "ssl_cert_reqs": tls.cert_reqs,
        "ssl_check_hostname": tls.check_hostname,
    }
