"""Logging in: ACL users, passwords and TLS, and no secret in any message."""

from __future__ import annotations

import logging
import traceback
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import attrs
import pytest
import structlog

from rxdispatch.config import StoreSettings
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.store.client import Client
from rxdispatch.store.connections.connection import Connector
from rxdispatch.store.pubsub.channels import Channels
from rxdispatch.store.url import parse_url
from tests.servers import Certificates, system_redis

SECRET = "s3cr3t p@ss/w#rd:%"
QUICK = StoreSettings(timeout=0.3)


async def ping(url: str, settings: StoreSettings | None = None) -> object:
    """Connect, send one command, and close."""
    client = Client(parse_url(url), settings or StoreSettings())
    try:
        await client.open()
        return await client.call("ask", "PING")
    finally:
        await client.close()


async def test_a_password() -> None:
    """The client logs in with the password of the default user."""
    with system_redis(password=SECRET) as url:
        assert await ping(url)


async def test_an_acl_user() -> None:
    """The user logs in over TCP, and on the connection of the channels too."""
    with system_redis(acl=["default off", f'bob on "#{_sha256(SECRET)}" ~* &* +@all']) as url:
        login = url.replace("//", f"//bob:{quote(SECRET, safe='')}@")
        assert await ping(login)
        client = Client(parse_url(login), StoreSettings())
        channels = Channels(client)
        with channels.channel(b"c").subscribe():
            await channels.confirmed(b"c")
        await channels.close()
        await client.close()


@pytest.mark.parametrize("login", ["bob:wr0ng@", ":wr0ng@", "", "nobody:wr0ng@"])
async def test_a_wrong_password(login: str, caplog: pytest.LogCaptureFixture) -> None:
    """The login fails at once, and no output contains the password."""
    caplog.set_level(logging.DEBUG)
    with (
        system_redis(acl=[f'bob on "#{_sha256(SECRET)}" ~* &* +@all'], password=SECRET) as url,
        structlog.testing.capture_logs() as logs,
    ):
        target = parse_url(url.replace(quote(SECRET, safe=""), "x").replace(":x@", login))
        client = Client(target, StoreSettings())
        with pytest.raises(ConfigError, match="the server must accept the user and password") as e:
            await client.open()
        shown = [
            *traceback.format_exception(e.value),
            repr(e.value),
            repr(vars(e.value)),
            repr(client),
            repr(vars(client)),
            repr(target),
            repr(attrs.asdict(target)),
            repr(client.redis),
            repr(client.connector.pool.connection_kwargs),
            repr(vars(client.connector)),
            repr(logs),
            caplog.text,
        ]
        await client.close()
    assert [] == [text for text in shown if "wr0ng" in text]


async def test_a_wrong_password_over_a_unix_socket(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Here redis-py wraps the error of the server."""
    path = tmp_path_factory.mktemp("s") / "s"
    with system_redis(password=SECRET, options={"unixsocket": str(path)}):
        assert await ping(f"unix://:{quote(SECRET, safe='')}@{path}")
        with pytest.raises(ConfigError, match="the server must accept the user and password"):
            await ping(f"unix://:wrong@{path}")


async def test_a_changed_password() -> None:
    """The next connection fails."""
    with system_redis(password=SECRET) as url:
        client = Client(parse_url(url), StoreSettings())
        await client.open()
        await client.call("change", "CONFIG", "SET", "requirepass", "other")
        await client.call("cut", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
        with pytest.raises(ConfigError, match="the server must accept the user and password"):
            await client.call("ask", "PING")
        await client.close()


async def test_tls(throwaway_ca: Certificates) -> None:
    """The client trusts the given certificate authority."""
    with system_redis(tls=throwaway_ca, password=SECRET) as url:
        assert await ping(f"{url}?ssl_ca_certs={throwaway_ca.ca}")
        assert await ping(f"{url}?ssl_cert_reqs=none")
        with pytest.raises(ConfigError, match="its certificate must be trusted"):
            await ping(url)
        with pytest.raises(ConfigError, match="ssl_ca_certs must be a file") as caught:
            await ping(f"{url}?ssl_ca_certs=/nowhere.pem")
        assert caught.value.value == "/nowhere.pem"
        with pytest.raises(StoreUnavailableError):
            await ping(url.replace("rediss", "redis"), QUICK)


async def test_authorities_are_read_once(throwaway_ca: Certificates) -> None:
    """All connections share one TLS context."""
    target = parse_url(f"rediss://localhost?ssl_ca_certs={throwaway_ca.ca}")
    connector = Connector(target, QUICK)
    contexts = [getattr(connector.make(), "ssl_context").get() for _ in range(2)]  # noqa: B009
    assert contexts[0] is contexts[1] is not None


async def test_given_authorities_replace_those_of_the_system(
    throwaway_ca: Certificates, other_ca: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that only the system trusts is refused before the login."""
    with system_redis(tls=throwaway_ca, password=SECRET) as url:
        monkeypatch.setenv("SSL_CERT_FILE", str(throwaway_ca.ca))
        assert await ping(url)
        assert await ping(f"{url}?ssl_ca_certs={throwaway_ca.ca}")
        with pytest.raises(ConfigError, match="its certificate must be trusted"):
            await ping(f"{url}?ssl_ca_certs={other_ca.ca}")
        monkeypatch.setenv("SSL_CERT_FILE", str(other_ca.ca))
        assert await ping(f"{url}?ssl_ca_certs={throwaway_ca.ca}")
        with pytest.raises(ConfigError, match="its certificate must be trusted"):
            await ping(url)


async def test_a_client_certificate(throwaway_ca: Certificates) -> None:
    """The client sends its certificate if the server asks for one."""
    options = {"tls-auth-clients": "yes"}
    own = f"&ssl_certfile={throwaway_ca.cert}&ssl_keyfile={throwaway_ca.key}"
    with system_redis(tls=throwaway_ca, options=options) as url:
        assert await ping(f"{url}?ssl_ca_certs={throwaway_ca.ca}{own}")
        with pytest.raises(StoreUnavailableError):
            await ping(f"{url}?ssl_ca_certs={throwaway_ca.ca}", QUICK)


async def test_files_without_certificates(throwaway_ca: Certificates, tmp_path: Path) -> None:
    """The client refuses them when it is made."""
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(ConfigError, match="ssl_ca_certs must hold certificates"):
        await ping(f"rediss://localhost?ssl_ca_certs={empty}")
    with pytest.raises(ConfigError, match="ssl_certfile must hold a certificate"):
        await ping(f"rediss://localhost?ssl_certfile={throwaway_ca.ca}")


def _sha256(text: str) -> str:
    return sha256(text.encode()).hexdigest()
