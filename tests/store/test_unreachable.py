"""Connection errors give the reason, and do not refer to a password."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from types import FrameType, TracebackType

import attrs
import pytest
from redis import exceptions

from rxdispatch.config import StoreSettings
from rxdispatch.errors import CodecError, ConfigError, RxDispatchError, StoreUnavailableError
from rxdispatch.store.client import Client
from rxdispatch.store.connections.connection import Connector
from rxdispatch.store.secret import Secret
from rxdispatch.store.unreachable_error import UnreachableError, chain, why
from rxdispatch.store.url import Target, parse_url
from tests.proxy import Proxy
from tests.servers import Certificates, system_redis, valkey_server

QUICK = StoreSettings(timeout=0.4, attempt_timeout=0.1)
SECRET = "pl4nted p@ss"


async def failure(target: Target, settings: StoreSettings = QUICK) -> RxDispatchError:
    """Return the error that connecting raises."""
    client = Client(target, settings)
    try:
        await client.open()
    except RxDispatchError as error:
        return error
    finally:
        await client.close()
    pytest.fail("it must not connect")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_a_refused_connection() -> None:
    """The message and the cause name the error of the operating system."""
    port = _free_port()
    error = await failure(parse_url(f"redis://127.0.0.1:{port}"))
    assert (
        f"connect to redis://127.0.0.1:{port}/0: the server must be reachable (connection refused)"
    ) == str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)


async def test_no_socket() -> None:
    """The error says that the unix socket does not exist."""
    error = await failure(parse_url("unix:///nowhere/s"))
    assert str(error).endswith("must be reachable (there is no such socket)")


async def test_an_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client does not retry, and fails before the timeout."""
    calls: list[object] = []

    def unknown(*args: object, **_: object) -> object:
        calls.append(args)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await failure(
        parse_url("redis://nowhere.invalid"), StoreSettings(timeout=60, attempt_timeout=9)
    )
    assert str(error).endswith("the server must be reachable (unknown host 'nowhere.invalid')")
    assert isinstance(error.__cause__, socket.gaierror)
    assert 1 == len(calls)


async def test_a_host_that_cannot_be_looked_up_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the name server cannot be reached, the client asks again until the timeout."""
    calls: list[object] = []

    def away(*args: object, **_: object) -> object:
        calls.append(args)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    error = await failure(parse_url("redis://nowhere.invalid"))
    assert "host 'nowhere.invalid' cannot be looked up now" in str(error)
    assert len(calls) > 1


async def test_tls_to_a_plain_port() -> None:
    """The error names the right scheme."""
    with system_redis() as url:
        error = await failure(parse_url(url.replace("redis://", "rediss://")))
    assert "a port without TLS needs redis://" in str(error)
    assert isinstance(error, StoreUnavailableError)
    assert not error.maybe_executed


async def test_a_plain_client_at_a_tls_port(throwaway_ca: Certificates) -> None:
    """The error names the right scheme, and nothing was executed."""
    with system_redis(tls=throwaway_ca) as url:
        error = await failure(parse_url(url.replace("rediss://", "redis://")))
    assert "rediss://" in str(error)
    assert isinstance(error, StoreUnavailableError)
    assert not error.maybe_executed


async def test_a_silent_server() -> None:
    """The error can only name the timeout; a request that was sent may have been executed."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, QUICK)
        await client.open()
        proxy.blackhole()
        with pytest.raises(StoreUnavailableError) as caught:
            await client.call("ask", "PING")
        await client.close()
    expected = "ask: the server did not answer in time; it may have been executed"
    assert expected == str(caught.value)


async def test_the_last_try_does_not_hide_why() -> None:
    """If a server refuses connections after a cut, the error says that."""
    async with valkey_server() as server:
        client = Client(server.target, QUICK)
        await client.open()
    with pytest.raises(StoreUnavailableError, match=r"no such socket|refused") as caught:
        await client.call("ask", "PING")
    await client.close()
    assert caught.value.__cause__ is not None


async def test_a_request_that_the_server_does_not_take() -> None:
    """The request fails at once instead of being repeated."""
    with system_redis(options={"proto-max-bulk-len": "1mb"}) as url:
        client = Client(parse_url(url), StoreSettings(timeout=60.0, attempt_timeout=30.0))
        await client.open()
        with pytest.raises(CodecError, match="proto-max-bulk-len"):
            await client.call("big", "SET", "k", b"x" * 8_000_000)
        assert b"PONG" == await client.call("ask", "PING")
        await client.close()


def frames_of(error: BaseException) -> Iterator[FrameType]:
    """Yield every frame that an error, its causes and its contexts refer to."""
    for part in chain(error):
        step: TracebackType | None = part.__traceback__
        while step is not None:
            yield step.tb_frame
            step = step.tb_next


def leaks(error: BaseException, secret: str) -> list[str]:
    """Return where *secret* appears: in texts of the chain, and in variables of its frames."""
    found = [f"text of {part!r}" for part in chain(error) if secret in f"{part} {part!r}"]
    for frame in frames_of(error):
        # The test itself has the secret.
        if frame.f_globals.get("__name__") != __name__:
            found += [
                f"{frame.f_code.co_qualname}: {name}"
                for name, value in frame.f_locals.items()
                if secret in repr(value)
            ]
    return found


def _with_secret(target: Target, user: str | None = None) -> Target:
    return attrs.evolve(target, user=user, password=Secret(SECRET))


@pytest.mark.parametrize("user", [None, "bob"])
async def test_no_frame_of_a_refused_login_holds_the_password(user: str | None) -> None:
    """The error does not refer to the password, so no error tracker can print it."""
    with system_redis(password="another") as url:
        error = await failure(_with_secret(parse_url(url), user))
    assert isinstance(error, ConfigError)
    assert [] == leaks(error, SECRET)


async def test_no_frame_of_a_refused_login_over_a_unix_socket_holds_the_password(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Here redis-py wraps the error."""
    path = tmp_path_factory.mktemp("s") / "s"
    with system_redis(password="another", options={"unixsocket": str(path)}):
        error = await failure(_with_secret(parse_url(f"unix://{path}")))
    assert isinstance(error, ConfigError)
    assert [] == leaks(error, SECRET)


async def test_no_frame_of_a_login_without_an_answer_holds_the_password() -> None:
    """The server is silent, or closes the connection, during the login."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        proxy.blackhole()
        silent = await failure(_with_secret(proxy.target))
    assert isinstance(silent, StoreUnavailableError)
    assert [] == leaks(silent, SECRET)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        hung_up = await failure(_with_secret(parse_url(f"redis://127.0.0.1:{port}")))
    assert isinstance(hung_up, StoreUnavailableError)
    assert [] == leaks(hung_up, SECRET)


async def test_no_frame_of_a_cancelled_login_holds_the_password() -> None:
    """The caller's error refers to no frame of redis-py."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        gate = proxy.hold(b"AUTH")
        client = Client(_with_secret(proxy.target), StoreSettings())
        opening = asyncio.create_task(client.open())
        await gate.reached()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await opening
        await client.close()
    assert [] == leaks(caught.value, SECRET)


async def test_no_frame_of_an_untrusted_certificate_holds_the_password(
    throwaway_ca: Certificates,
) -> None:
    """TLS fails before the login, with the connection's options in its frames."""
    with system_redis(tls=throwaway_ca, password=SECRET) as url:
        error = await failure(parse_url(url), StoreSettings())
    assert isinstance(error, ConfigError)
    assert "its certificate must be trusted" in str(error)
    assert [] == leaks(error, SECRET)


async def test_the_walk_finds_what_redis_py_keeps() -> None:
    """redis-py's own error refers to the password, so the tests above would notice it."""
    with system_redis(password="another") as url:
        connection = Connector(_with_secret(parse_url(url)), QUICK).make()
        with pytest.raises(exceptions.AuthenticationError) as caught:
            await connection.connect()  # type: ignore[no-untyped-call]
    assert [] != leaks(caught.value, SECRET)


def test_reasons() -> None:
    """Each kind of error has a reason in words."""
    alert = exceptions.InvalidResponse('Protocol error, got "\\x15" as reply type byte')
    wrong = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    wrong.reason = "WRONG_VERSION_NUMBER"
    for expected, error in (
        ("", TimeoutError()),
        ("", exceptions.TimeoutError("Timeout connecting to server")),
        ("connection refused", ConnectionRefusedError(111, "Connection refused")),
        ("connection reset by peer", ConnectionResetError(104, "Connection reset by peer")),
        (
            "the server closed the connection",
            exceptions.ConnectionError("Connection closed by server."),
        ),
        (
            "max number of clients reached",
            exceptions.ConnectionError("max number of clients reached"),
        ),
        ("the server speaks TLS; its port needs rediss://", alert),
        ("the server does not speak TLS; a port without TLS needs redis://", wrong),
        ("mine", UnreachableError("mine")),
    ):
        assert expected == why(error)


async def test_a_connector_raises_one_kind_of_error() -> None:
    """Every error of redis-py is replaced, also after the deadline."""
    connector = Connector(parse_url(f"redis://127.0.0.1:{_free_port()}"), QUICK)
    with pytest.raises(UnreachableError, match="connection refused"):
        await connector.open(connector.make())
    before = time.monotonic()
    with pytest.raises(UnreachableError):
        await connector.reach(connector.make(), 0)
    assert time.monotonic() - before < 5
