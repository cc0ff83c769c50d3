"""``Connector``: opens connections of ``redis.asyncio`` with our settings and hidden secrets."""

from __future__ import annotations

import asyncio
import inspect
import os
import ssl
from pathlib import Path
from typing import Any, Final, cast

from redis import asyncio as aioredis
from redis.asyncio.connection import (
    AbstractConnection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from rxdispatch.config import StoreSettings
from rxdispatch.errors import ConfigError
from rxdispatch.store.connections.patience import count_bytes
from rxdispatch.store.request_attempts import login_refused
from rxdispatch.store.unreachable_error import UnreachableError, bare, chain
from rxdispatch.store.url import Target, Tls

__all__ = ["Connector"]

_VERIFY: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}

# The options that keep redis-py from sending its own name: since its version 7.2, and before.
_NAMES: Final = (("driver_info",), ("lib_name", "lib_version"))
_KNOWN: Final = inspect.signature(AbstractConnection).parameters
_UNNAMED: Final[dict[str, Any]] = dict.fromkeys(next(n for n in _NAMES if n[0] in _KNOWN))


class Connector:
    """
    Makes connections to one server.

    The retries of redis-py are off: they know neither our timeouts nor what is safe to repeat.

    Args:
        target: The server.
        settings: The timeouts.

    Raises:
        ConfigError: If there is no server to connect to, or a TLS file cannot be read.
    """

    def __init__(self, target: Target, settings: StoreSettings) -> None:
        if target.scheme == "memory":
            raise ConfigError("the url must name a server", target.safe)
        self.target = target
        self.pool = aioredis.BlockingConnectionPool(
            max_connections=settings.connections,
            timeout=settings.timeout,
            **_options(target, settings),
        )

    def make(self) -> AbstractConnection:
        """Return a connection that is not open and belongs to no pool."""
        # These two methods of redis-py have no types.
        return cast("AbstractConnection", cast("Any", self.pool).make_connection())

    async def open(self, connection: AbstractConnection) -> None:
        """
        Connect and log in.

        Raises:
            ConfigError: If the server refuses the login, or its certificate is not trusted.
            UnreachableError: If the connection fails for another reason. Neither error refers to a
                frame of redis-py, whose variables hold the password.
        """
        failure: Exception
        try:
            await cast("Any", connection).connect()
            count_bytes(connection)
            return
        except asyncio.CancelledError as error:
            bare(error)
            raise
        except (RedisError, OSError) as error:
            tls = self.target.tls is not None
            failure = self._refusal(error) or UnreachableError.of(error, self.target.host, tls=tls)
        raise failure

    async def reach(self, connection: AbstractConnection, seconds: float) -> None:
        """
        Do the same as :meth:`open`, within *seconds*.

        Raises:
            ConfigError: If the server refuses the login, or its certificate is not trusted.
            UnreachableError: If the connection fails for another reason, or the time is over.
        """
        try:
            async with asyncio.timeout(seconds):
                await self.open(connection)
            return
        except TimeoutError as error:
            late = UnreachableError.of(
                bare(error), self.target.host, tls=self.target.tls is not None
            )
        raise late

    def _refusal(self, error: Exception) -> ConfigError | None:
        """Return the error to raise if the login or the certificate failed, else None."""
        # Over a unix socket redis-py logs in twice, and wraps the error of the first login.
        for reason in chain(error):
            if isinstance(reason, AuthenticationError):
                return login_refused(self.target)
            if isinstance(reason, ResponseError):
                return ConfigError(f"{self.target.safe}: the login must succeed ({reason})")
            if isinstance(reason, ssl.SSLCertVerificationError):
                why = reason.verify_message
                return ConfigError(f"{self.target.safe}: its certificate must be trusted ({why})")
        return None


class _TlsConnection(SSLConnection):
    """
    A connection with a TLS context of our own.

    redis-py would trust the system's certificate authorities besides the given ones.
    """

    def __init__(self, *, trust: ssl.SSLContext, **options: Any) -> None:
        cast("Any", super()).__init__(**options)
        self.ssl_context.context = trust


class _Login(CredentialProvider):
    """Reveals user and password only at login; redis-py would keep them as plain text."""

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
        # Our own timeout covers a whole attempt; one for each read would only cost time.
        "socket_timeout": None,
        "socket_connect_timeout": settings.attempt_timeout,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "health_check_interval": 0,
        # RESP 2 and no CLIENT SETINFO: that saves a round trip before a connection is ready.
        "protocol": 2,
        **_UNNAMED,
    }
    if target.password is not None:
        options["credential_provider"] = _Login(target)
    if target.scheme == "unix":
        options |= {"connection_class": UnixDomainSocketConnection, "path": target.path}
    else:
        options |= {"host": target.host, "port": target.port}
    if target.tls is not None:
        # Once, and not for each connection: reading the authorities takes tens of milliseconds.
        options |= {"connection_class": _TlsConnection, "trust": _trust(target.tls)}
    return options


def _trust(tls: Tls) -> ssl.SSLContext:
    """Return the TLS context: the trusted authorities and our own certificate."""
    for name, path in (
        ("ssl_ca_certs", tls.ca_certs),
        ("ssl_certfile", tls.certfile),
        ("ssl_keyfile", tls.keyfile),
    ):
        if path is not None and not (Path(path).is_file() and os.access(path, os.R_OK)):
            raise ConfigError(f"{name} must be a file that can be read", path)
    try:
        # With a file of authorities, those of the system are not trusted.
        context = ssl.create_default_context(cafile=tls.ca_certs)
    except ssl.SSLError:
        raise ConfigError("ssl_ca_certs must hold certificates in PEM", tls.ca_certs) from None
    context.check_hostname = tls.check_hostname
    context.verify_mode = _VERIFY[tls.cert_reqs]
    if tls.certfile is not None:
        try:
            # For an encrypted key OpenSSL would ask for the password on the terminal.
            context.load_cert_chain(tls.certfile, tls.keyfile, password=_no_password)
        except (ssl.SSLError, ValueError):
            rule = "ssl_certfile must hold a certificate, with its key there or in ssl_keyfile"
            raise ConfigError(f"{rule}, not encrypted", tls.certfile) from None
    return context


def _no_password() -> str:
    return ""
