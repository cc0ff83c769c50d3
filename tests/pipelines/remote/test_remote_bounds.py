"""Functions over HTTP with untrusted peers: bounds, refusals and secrets."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from tests.failures.fleet import eventually
from tests.pipelines.remote.asgi_server import AsgiServer

JSON = {"content-type": "application/json"}
EVENT = '{"id": "a", "data": 1}'


async def double(n: int) -> int:
    """Return twice the number."""
    return 2 * n


def served(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.AsyncClient:
    """Return a client whose server replies by calling *answer*."""
    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


class Endless(httpx.AsyncByteStream):
    """An endless body, in parts of 1,000 bytes."""

    def __init__(self) -> None:
        self.read = 0
        self.closed = False

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> bytes:
        self.read += 1
        return b"x" * 1000

    async def aclose(self) -> None:
        self.closed = True


# -- the calling side ------------------------------------------------------------------------


async def test_an_answer_without_end_is_given_up() -> None:
    """The client reads no more than *max_answer* of it."""
    endless = Endless()
    async with served(lambda _: httpx.Response(200, stream=endless)) as client:
        fn = rxd.remote("http://a/b", client=client, backoff=None, max_answer=10_000)
        with pytest.raises(rxd.RemoteError, match="at most 10000 bytes") as caught:
            await fn(1)
    assert ("TooLarge", 200) == (caught.value.type, caught.value.status)
    assert endless.read <= 12
    assert endless.closed


async def test_compressed_answers_are_refused_unless_asked_for() -> None:
    """A few bytes may expand to gigabytes; if the request allows that, the decoded bytes count."""
    bomb = gzip.compress(b'{"id": "a", "data": "' + b"x" * 1_000_000 + b'"}')
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["accept-encoding"])
        return httpx.Response(200, content=bomb, headers={"content-encoding": "gzip"})

    async with served(answer) as client:
        plain = rxd.remote("http://a/b", client=client, backoff=None)
        with pytest.raises(rxd.RemoteError, match="must not be encoded"):
            await plain(1)
        asking = rxd.remote(
            "http://a/b",
            client=client,
            backoff=None,
            headers={"Accept-Encoding": "gzip"},
            id=lambda _: "a",
            max_answer=100_000,
        )
        with pytest.raises(rxd.RemoteError, match="at most 100000 bytes"):
            await asking(1)
        wide = rxd.remote(
            "http://a/b", client=client, headers={"accept-encoding": "gzip"}, id=lambda _: "a"
        )
        assert 1_000_000 == len(await wide(1))
    assert ["identity", "gzip", "gzip"] == seen


async def test_messages_of_the_server_are_cut() -> None:
    """The messages become error messages and dead letters here."""
    error = {"type": "T" * 10_000, "message": "m" * 100_000}
    async with served(lambda _: httpx.Response(400, json={"error": error})) as client:
        with pytest.raises(rxd.RemoteError) as caught:
            await rxd.remote("http://a/b", client=client, backoff=None)(1)
    assert (200, 2000) == (len(caught.value.type), len(caught.value.message))


async def test_headers_that_the_caller_must_not_set() -> None:
    """Headers that a function returns are checked before each attempt."""
    async with served(lambda _: httpx.Response(500)) as client:
        fn = rxd.remote("http://a/b", client=client, headers=lambda: {"Idempotency-Key": "mine"})
        with pytest.raises(rxd.ConfigError, match="must not replace those of remote"):
            await fn(1)


async def test_cookies_of_one_item_are_not_sent_with_another() -> None:
    """The default client keeps none."""
    app = rxd.serve_stages({"double": double})

    async def setting(scope: Any, receive: Any, send: Any) -> None:
        async def with_cookie(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"set-cookie", b"session=1"))
            await send(message)

        await app(scope, receive, with_cookie)

    async with AsgiServer(setting) as server, rxd.remote(f"{server.url}/double") as fn:
        assert [2, 4] == [await fn(1), await fn(2)]
    assert [None, None] == [request.get("cookie") for request in server.requests]


async def test_a_password_in_the_url_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The password is sent as basic authentication, and httpx logs the URL without it."""
    caplog.set_level(logging.DEBUG)
    async with AsgiServer(rxd.serve_stages({"double": double})) as server:
        url = server.url.replace("//", "//us%40er:hunter2-PW@")
        async with rxd.remote(f"{url}/double") as fn:
            assert 2 == await fn(1)
    assert [httpx.BasicAuth("us@er", "hunter2-PW")._auth_header] == [
        request["authorization"] for request in server.requests
    ]
    assert "hunter2-PW" not in caplog.text
    assert "HTTP Request: POST" in caplog.text


# -- the serving side ------------------------------------------------------------------------


async def test_bodies_that_do_not_arrive() -> None:
    """Stalled bodies take a bounded number of places for a bounded time, and no other memory."""
    app = rxd.serve_stages({"double": double}, max_concurrent=2, body_timeout=0.3)
    head = b"POST /double HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n"

    async def stalled(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(head + b"{")
            return await reader.readline()
        finally:
            writer.transport.abort()

    async with AsgiServer(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        held = [asyncio.create_task(stalled(server.port)) for _ in range(2)]
        await eventually(lambda: app.reading == 2)
        busy = await client.post("/double", content=EVENT, headers=JSON)
        assert (503, "1") == (busy.status_code, busy.headers["retry-after"])
        assert [b"HTTP/1.1 408 Told\r\n"] * 2 == await asyncio.gather(*held)
        assert 0 == app.reading
        answer = await client.post("/double", content=EVENT, headers=JSON)
        assert {"id": "a", "data": 2} == answer.json()


async def test_errors_stay_on_the_server() -> None:
    """The client gets the event's id, and the server's log has the error with that id."""

    async def fail(_: Any) -> None:
        raise OSError("postgresql://app:hunter2@10.0.0.5/prod")

    async with (
        AsgiServer(rxd.serve_stages({"fail": fail})) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        with capture_logs() as logs:
            answer = await client.post("/fail", content=EVENT, headers=JSON)
    assert 500 == answer.status_code
    assert "StageFailed" == answer.json()["error"]["type"]
    assert "hunter2" not in answer.text
    assert "OSError" not in answer.text
    (entry,) = logs
    assert ("stage_failed", "fail", "a") == (entry["event"], entry["stage"], entry["event_id"])
    assert entry["error"].startswith("OSError: postgresql://")


class PanicError(BaseException):
    """An error that some extension modules raise."""


@pytest.mark.parametrize(
    "error",
    [PanicError("p"), GeneratorExit(), asyncio.CancelledError(), ExceptionGroup("g", [OSError()])],
)
async def test_whatever_a_function_raises_is_an_answer(error: BaseException) -> None:
    """The slot is free, and the client gets an error."""

    async def fail(_: Any) -> None:
        raise error

    app = rxd.serve_stages({"fail": fail})
    async with AsgiServer(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/fail", content=EVENT, headers=JSON)
    assert (500, 0) == (answer.status_code, app.at_work)


async def test_a_function_that_takes_too_long() -> None:
    """The function is cancelled after the timeout, and the answer names the event and the limit."""

    async def sleep(_: Any) -> None:
        await asyncio.sleep(60)

    app = rxd.serve_stages({"sleep": sleep}, timeout=0.05, expose_errors=True)
    async with AsgiServer(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/sleep", content=EVENT, headers=JSON)
    assert (500, 0) == (answer.status_code, app.at_work)
    rule = "'a' must be done within 0.05 s"
    assert {"type": "ItemTimeoutError", "message": rule} == answer.json()["error"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_a_form_of_another_site_is_refused(kind: str | None) -> None:
    """A browser can post forms to other sites without a preflight request, but not JSON."""
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)

    headers = {"origin": "http://evil.example"} | ({} if kind is None else {"content-type": kind})
    async with (
        AsgiServer(rxd.serve_stages({"note": note})) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        answer = await client.post("/note", content=EVENT, headers=headers)
        preflight = await client.options("/note", headers=headers)
    assert (415, 405, []) == (answer.status_code, preflight.status_code, ran)
    assert "access-control-allow-origin" not in preflight.headers


async def _token(scope: Any) -> bool:
    return dict(scope["headers"]).get(b"authorization") == b"Bearer t"


def _plain_token(scope: Any) -> bool:
    return dict(scope["headers"]).get(b"authorization") == b"Bearer t"


def _broken(_: Any) -> bool:
    raise KeyError("no such user")


def _truthy(_: Any) -> Any:
    return "yes"


@pytest.mark.parametrize(
    ("authorize", "status"), [(_token, 200), (_plain_token, 200), (_broken, 403), (_truthy, 403)]
)
async def test_only_authorized_requests_may_call(authorize: Any, status: int) -> None:
    """Only True authorizes; a refusal reveals nothing about the app."""
    app = rxd.serve_stages({"double": double}, authorize=authorize)
    async with AsgiServer(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        known = {**JSON, "authorization": "Bearer t"}
        assert status == (await client.post("/double", content=EVENT, headers=known)).status_code
        assert (
            403 == (await client.post("/double", content=EVENT, headers=JSON)).status_code
            or authorize is _truthy
        )
        unknown = await client.post("/none", content=EVENT, headers=JSON)
        assert 403 == unknown.status_code
        assert "double" not in unknown.text
        assert 200 == (await client.get("/healthz")).status_code
