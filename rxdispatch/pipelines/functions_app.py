"""``serve_stages``: functions that are called over HTTP, as an ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, cast
from urllib.parse import unquote

import msgspec

from rxdispatch.checks import name_of
from rxdispatch.errors import ConfigError
from rxdispatch.log import get_logger
from rxdispatch.pipelines.functions_json import to_json
from rxdispatch.pipelines.stage import _is_async

__all__ = ["StageApp", "serve_stages"]

log = get_logger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_RETRY_AFTER: Final = "1"


class _RefusedError(Exception):
    """An answer that is not a result."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        event: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        # Anything may be in it, and not all of that in UTF-8.
        told = message.encode(errors="backslashreplace").decode()
        self.body = {"id": event, "error": {"type": kind, "message": told}}


class _HungUpError(Exception):
    """The client is gone."""


class StageApp:
    """The ASGI app that :func:`serve_stages` returns."""

    def __init__(
        self,
        stages: Mapping[str, Callable[[Any], Awaitable[Any]]],
        max_concurrent: int,
        max_body: int,
    ) -> None:
        self._stages = dict(stages)
        self._max_concurrent = max_concurrent
        self._max_body = max_body
        #: How many calls are at work.
        self.at_work = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request, or the life of the server."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            try:
                status, body, headers = 200, await self._answer(scope, receive), {}
            except _RefusedError as refused:
                status, body = refused.status, msgspec.json.encode(refused.body)
                headers = dict(refused.headers)
            except _HungUpError:
                return
            await _respond(send, status, body, headers)
        else:
            raise ConfigError("scope must be of type http or lifespan", scope["type"])

    async def _answer(self, scope: Message, receive: Receive) -> bytes:
        path, method = scope["path"].removeprefix(scope.get("root_path", "")), scope["method"]
        if path == "/healthz":
            if method not in {"GET", "HEAD"}:
                raise _RefusedError(405, "BadMethod", "use GET", headers={"allow": "GET, HEAD"})
            return msgspec.json.encode({"status": "ok", "at_work": self.at_work})
        name = unquote(path.removeprefix("/"))
        fn = self._stages.get(name)
        if fn is None:
            known = ", ".join(self._stages)
            raise _RefusedError(404, "UnknownStage", f"stage must be one of {known}, got {name!r}")
        if method != "POST":
            raise _RefusedError(405, "BadMethod", "use POST", headers={"allow": "POST"})
        # Before the body is read, which costs memory, and again when it is there.
        self._require_room(None)
        event, data = _event(name, await self._body(scope, receive))
        self._require_room(event)
        self.at_work += 1
        try:
            return await _work(name, fn, event, data, receive)
        finally:
            self.at_work -= 1

    def _require_room(self, event: str | None) -> None:
        if self.at_work >= self._max_concurrent:
            message = f"at most {self._max_concurrent} calls may be at work"
            raise _RefusedError(503, "Busy", message, event, {"retry-after": _RETRY_AFTER})

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        for key, value in scope["headers"]:
            if key.lower() == b"content-length" and value.isdigit():
                self._require_fit(int(value))
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _HungUpError
            body += message.get("body", b"")
            self._require_fit(len(body))
            more = message.get("more_body", False)
        return bytes(body)

    def _require_fit(self, size: int) -> None:
        if size > self._max_body:
            message = f"the body must be at most {self._max_body} bytes"
            # What is left of it would be taken for the next request.
            raise _RefusedError(413, "TooLarge", message, headers={"connection": "close"})


def serve_stages(
    stages: Mapping[str, Callable[[Any], Awaitable[Any]]],
    *,
    max_concurrent: int = 100,
    max_body: int = 1024 * 1024,
) -> StageApp:
    """
    Return an ASGI app that serves coroutine functions by name; any ASGI server runs it.

    ``POST /{stage}`` takes an event as :func:`remote` sends it, and answers ``{"id", "data"}``
    or ``{"id", "error": {"type", "message"}}``: 400 for a bad event, 404 for an unknown stage,
    413 for too large a body, 500 for a function that failed, and 503 with ``Retry-After`` when
    enough is at work. ``GET /healthz`` answers 200. A client that hangs up cancels its call.
    Messages of errors go to the client.

    Args:
        stages: Functions by name; each is given the data of the event, and returns what JSON
            can hold.
        max_concurrent: How many calls may be at work at once.
        max_body: Bytes that a body may have.

    Raises:
        ConfigError: If an argument breaks its rule.
    """
    if not isinstance(stages, Mapping) or not stages:
        raise ConfigError("stages must map at least one name to a function", stages)
    for name, fn in stages.items():
        if "/" in name_of("the name of a stage", name) or name == "healthz":
            raise ConfigError("the name of a stage must have no slash, nor be healthz", name)
        if not _is_async(fn):
            raise ConfigError(f"stage {name!r} must be a coroutine function", fn)
    for rule, value in (("max_concurrent", max_concurrent), ("max_body", max_body)):
        if value.__class__ is not int or value < 1:
            raise ConfigError(f"{rule} must be an int >= 1", value)
    return StageApp(stages, max_concurrent, max_body)


def _event(stage: str, body: bytes) -> tuple[str, Any]:
    def bad(rule: str, event: str | None = None) -> _RefusedError:
        return _RefusedError(400, "BadEvent", rule, event)

    try:
        event: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"the event must be JSON: {error}") from None
    if not isinstance(event, dict):
        raise bad("the event must be an object with id and data")
    fields = cast("dict[str, Any]", event)
    name = fields.get("id")
    if not isinstance(name, str) or not 1 <= len(name) <= 200:
        raise bad("id must be a string of 1 to 200 characters")
    if "data" not in fields:
        raise bad("data must be given", name)
    if fields.get("stage", stage) != stage:
        raise bad(f"stage must be left out or be that of the path, {stage!r}", name)
    return name, fields["data"]


async def _work(
    stage: str, fn: Callable[[Any], Awaitable[Any]], event: str, data: Any, receive: Receive
) -> bytes:
    async def call() -> bytes:
        return to_json(event, {"id": event, "data": await fn(data)})

    work = asyncio.create_task(call())
    gone = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise _HungUpError
    finally:
        work.cancel()
        gone.cancel()
        # It may clean up; its slot is taken until it has.
        await asyncio.gather(work, gone, return_exceptions=True)
    try:
        return work.result()
    except (Exception, asyncio.CancelledError) as error:
        log.warning("stage_failed", stage=stage, event_id=event, error=type(error).__name__)
        raise _RefusedError(500, type(error).__name__, str(error), event) from error


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _respond(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    lines = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **headers,
    }
    pairs = [(key.encode(), value.encode()) for key, value in lines.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
