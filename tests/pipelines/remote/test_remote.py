"""Functions over HTTP: client and server, on real sockets."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import reactivex
from opentelemetry.sdk.trace import TracerProvider

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.store.url import parse_url
from tests.failures.fleet import eventually
from tests.operators.flow.runs import to_list
from tests.pipelines.remote.asgi_server import AsgiServer
from tests.proxy import Proxy

QUICK = rxd.Backoff(first=0.001, maximum=0.1, attempts=6)


async def double(n: int) -> int:
    """Return twice the number; refuse negative ones."""
    if n < 0:
        raise ValueError("n must be >= 0")
    return 2 * n


async def test_items_of_a_stream_are_sent_and_come_back() -> None:
    """A failure affects only its own item, which is attempted as often as configured."""
    async with (
        AsgiServer(rxd.serve_stages({"double": double}, expose_errors=True)) as server,
        rxd.remote(f"{server.url}/double", backoff=QUICK, id=lambda n: f"n {n}") as fn,
    ):
        failed: list[Any] = []

        def on_error(item: int, error: BaseException) -> int:
            failed.append((item, error))
            return 0

        stream = reactivex.of(1, -2, 3).pipe(ops.map_async(fn, ordered=True, on_error=on_error))
        assert [2, 0, 6] == await to_list(stream)
    ((item, error),) = failed
    assert isinstance(error, rxd.RemoteError)
    expected = (-2, 500, "ValueError", "n must be >= 0", "n -2", "double")
    assert expected == (item, error.status, error.type, error.message, error.id, error.stage)
    keys = [headers["idempotency-key"] for headers in server.requests]
    assert [1, 6, 1] == [keys.count(f"n%20{n}") for n in (1, -2, 3)]


async def test_a_connection_that_is_cut_is_tried_again() -> None:
    """The request has the same key, so that the server can recognise it."""
    proxy: Any = None
    cuts = 3

    async def flaky(n: int) -> int:
        nonlocal cuts
        if cuts:
            cuts -= 1
            proxy.cut()
            await asyncio.sleep(10)
        return n

    async with AsgiServer(rxd.serve_stages({"flaky": flaky})) as server:
        async with Proxy(parse_url(f"redis://127.0.0.1:{server.port}"), tcp=True) as proxy:
            url = f"http://127.0.0.1:{proxy.target.port}/flaky"
            async with rxd.remote(url, backoff=QUICK) as fn:
                assert 7 == await fn(7)
        assert 4 == len(server.requests)
        assert 1 == len({headers["idempotency-key"] for headers in server.requests})
    async with rxd.remote(f"{server.url}/flaky", backoff=None) as fn:
        with pytest.raises(rxd.RemoteError, match="did not answer") as caught:
            await fn(1)
    assert caught.value.status is None
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


async def test_a_client_that_disconnects_cancels_the_call() -> None:
    """A timeout of the client does so too; then the slot is free."""
    ended: list[str] = []

    async def slow(_: int) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    app = rxd.serve_stages({"slow": slow}, max_concurrent=1)
    async with (
        AsgiServer(app) as server,
        rxd.remote(f"{server.url}/slow", timeout=0.1, backoff=None) as fn,
        rxd.remote(f"{server.url}/slow", backoff=None) as patient,
    ):
        with pytest.raises(rxd.ItemTimeoutError):
            await fn(1)
        await eventually(lambda: app.at_work == 0)
        calling = asyncio.create_task(patient(2))
        await eventually(lambda: app.at_work == 1)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        await eventually(lambda: app.at_work == 0)
    assert ["cancelled"] * 2 == ended


async def test_too_much_work_is_put_off() -> None:
    """The app replies 503, and the client retries, but not too early."""
    go = asyncio.Event()

    async def wait(n: int) -> int:
        await go.wait()
        return n

    app = rxd.serve_stages({"wait": wait}, max_concurrent=2)
    patient = rxd.Backoff(first=0.001, maximum=2)
    async with (
        AsgiServer(app) as server,
        rxd.remote(f"{server.url}/wait", backoff=patient) as fn,
        rxd.remote(f"{server.url}/wait", backoff=QUICK) as hasty,
    ):
        loop = asyncio.get_running_loop()
        held = [asyncio.create_task(fn(n)) for n in range(2)]
        await eventually(lambda: app.at_work == 2)
        # The hasty client does not wait for a whole second.
        with pytest.raises(rxd.RemoteError, match="answered 503") as caught:
            await hasty(8)
        assert 1.0 == caught.value.retry_after
        start = loop.time()
        third = asyncio.create_task(fn(2))
        await eventually(lambda: len(server.requests) == 4)
        go.set()
        assert [0, 1, 2] == await asyncio.gather(*held, third)
        assert loop.time() - start >= 1.0


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("POST", "/treble", '{"id": "a", "data": 1}', 404, "must be one of double, odd"),
        ("POST", "/double", "{", 400, "must be JSON"),
        ("POST", "/double", "[]", 400, "must be an object"),
        ("POST", "/double", '{"data": 1}', 400, "id must be"),
        ("POST", "/double", '{"id": "a"}', 400, "data must be given"),
        ("POST", "/double", '{"id": "a", "data": 1, "stage": "b"}', 400, "stage must be"),
        ("POST", "/double", '{"id": "a", "data": "' + 200 * "x" + '"}', 413, "at most 200 bytes"),
        ("POST", "/odd", '{"id": "a", "data": 1}', 500, "object"),
        ("POST", "/odd", '{"id": "a", "data": null}', 500, "finite numbers, got nan"),
        ("POST", "/odd", '{"id": "a", "data": 2}', 500, "\ufffd"),
        ("GET", "/double", "", 405, "use POST"),
        ("POST", "/healthz", "", 405, "use GET"),
    ],
)
async def test_refusals_name_the_rule(
    method: str, path: str, body: str, status: int, told: str
) -> None:
    """The reply is JSON, with the id if it is known."""

    async def odd(n: int | None) -> object:
        if n == 2:
            raise ValueError("\ud800")
        return float("nan") if n is None else object()

    app = rxd.serve_stages({"double": double, "odd": odd}, max_body=200, expose_errors=True)
    async with AsgiServer(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        kind = {"content-type": "application/json; charset=utf-8"}
        answer = await client.request(method, path, content=body, headers=kind)
        assert status == answer.status_code
        assert told in answer.json()["error"]["message"]
        assert {"status": "ok", "at_work": 0} == (await client.get("/healthz")).json()


async def test_a_body_without_a_length_is_bounded_too() -> None:
    """The parts are counted; if the client disconnects in between, the body is dropped."""
    app = rxd.serve_stages({"double": double}, max_body=10)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    kind = (b"Content-Type", b"application/json")
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/double", "headers": [kind]}

    async def parts() -> Any:
        return {"type": "http.request", "body": b"123456", "more_body": True}

    await app(scope, parts, send)
    assert 413 == sent[0]["status"]
    sent.clear()

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    await app(scope, gone, send)
    assert [] == sent


async def test_the_lifespan_of_the_server() -> None:
    """Startup and shutdown are acknowledged; other scopes are refused."""
    app = rxd.serve_stages({"double": double})
    kinds = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> Any:
        return {"type": next(kinds)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == sent
    with pytest.raises(rxd.ConfigError, match="scope"):
        await app({"type": "websocket"}, receive, send)


def answering(*answers: httpx.Response) -> httpx.AsyncClient:
    """Return a client whose server gives these replies, one after the other."""
    left = list(answers)
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda _: left.pop(0)))


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", 7.0),
        ("soon", None),
        ("-1", 0.0),
        ("inf", None),
        ("Fri, 01 Jan 2010 00:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2010 00:00:00 -0000", 0.0),
        ("Fri, 01 Jan 2010 00:00:00 +999999999999", None),
    ],
)
async def test_what_retry_after_says(retry_after: str, seconds: float | None) -> None:
    """The header has seconds or a date; anything else is ignored."""
    answer = httpx.Response(429, headers={"retry-after": retry_after})
    async with answering(answer) as client:
        with pytest.raises(rxd.RemoteError) as caught:
            await rxd.remote("http://a/b", client=client, backoff=None)(1)
    assert seconds == caught.value.retry_after


async def test_invalid_answers() -> None:
    """A reply with the result of another event is refused, and not retried."""
    answers = [httpx.Response(200, json={"id": "b", "data": 1}), httpx.Response(404, text="lost")]
    async with answering(*answers) as client:
        fn = rxd.remote("http://a/b", client=client, id=lambda _: "a")
        with pytest.raises(rxd.RemoteError, match="BadAnswer"):
            await fn(1)
        with pytest.raises(rxd.RemoteError, match=r"answered 404 .* HTTPError: Not Found"):
            await fn(1)
        await fn.close()
        assert not client.is_closed
    for data in (object(), "\ud800", [None, {"a": (float("nan"),)}], -float("inf")):
        with pytest.raises(rxd.CodecError):
            await fn(data)


async def test_an_answer_that_cannot_be_read_is_retried() -> None:
    """Any error that the client raises is retried."""

    def garbled(request: httpx.Request) -> httpx.Response:
        raise httpx.DecodingError("no gzip", request=request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(garbled)) as client:
        with pytest.raises(rxd.RemoteError, match="DecodingError: no gzip"):
            await rxd.remote("http://a/b", client=client, backoff=QUICK)(1)


async def test_headers_and_the_trace_are_sent() -> None:
    """Headers are computed for each attempt."""
    counts = iter("12")

    def headers() -> dict[str, str]:
        return {"authorization": f"Bearer {next(counts)}"}

    async with (
        AsgiServer(rxd.serve_stages({"double": double})) as server,
        rxd.remote(f"{server.url}/double", headers=headers) as fn,
    ):
        with TracerProvider().get_tracer("test").start_as_current_span("outer") as span:
            await fn(1)
        await fn(2)
    first, second = server.requests
    assert ["Bearer 1", "Bearer 2"] == [first["authorization"], second["authorization"]]
    assert f"{span.get_span_context().trace_id:032x}" in first["traceparent"]
    assert "traceparent" not in second


def test_without_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing extra."""
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(rxd.ConfigError, match=r"rxdispatch\[http\]"):
        rxd.remote("http://a/b")


BAD: Any = object()


@pytest.mark.parametrize(
    "make",
    [
        lambda: rxd.remote("ftp://a/b"),
        lambda: rxd.remote("http://a"),
        lambda: rxd.remote(BAD),
        lambda: rxd.remote("http://[a/b"),
        lambda: rxd.remote("http://a/b", max_answer=0),
        lambda: rxd.remote("http://a/b", headers={"Content-Length": "1"}),
        lambda: rxd.remote("http://a/b", headers={"X": "1", "x": "2"}),
        lambda: rxd.serve_stages({"a": double}, body_timeout=0),
        lambda: rxd.serve_stages({"a": double}, timeout=0),
        lambda: rxd.serve_stages({"a": double}, authorize=BAD),
        lambda: rxd.remote("http://a/b", timeout=0),
        lambda: rxd.remote("http://a/b", backoff=BAD),
        lambda: rxd.remote("http://a/b", headers=BAD),
        lambda: rxd.remote("http://a/b", id=BAD),
        lambda: rxd.serve_stages({}),
        lambda: rxd.serve_stages({"a/b": double}),
        lambda: rxd.serve_stages({"healthz": double}),
        lambda: rxd.serve_stages({"a": BAD}),
        lambda: rxd.serve_stages({"a": double}, max_concurrent=0),
        lambda: rxd.serve_stages({"a": double}, max_body=0),
    ],
)
def test_bad_arguments(make: Callable[[], object]) -> None:
    """The error states the rule."""
    with pytest.raises(rxd.ConfigError):
        make()
