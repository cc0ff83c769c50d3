"""``serve_stages``: an ASGI app that serves functions over HTTP."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from datetime import timedelta
from typing import Any, Final, cast
from urllib.parse import unquote

import msgspec

from rxdispatch.callables import is_async
from rxdispatch.checks import integer, key_name
from rxdispatch.error_text import ERROR_LIMIT, cut, message_of
from rxdispatch.errors import ConfigError, ItemTimeoutError
from rxdispatch.log import get_logger
from rxdispatch.operators._timeout import run_with_timeout
from rxdispatch.pipelines.remote.json import to_json
from rxdispatch.pipelines.shared.outside import is_from_outside
from rxdispatch.seconds import seconds

__all__ = ["StageApp", "serve_stages"]

log = get_logger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

Authorize = Callable[[Message], bool | Awaitable[bool]]

_RETRY_AFTER: Final = "1"


class _RefusedError(Exception):
    """A request that is refused; the app turns it into an answer with an error."""

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
        # The message may contain characters that UTF-8 cannot encode.
        told = message.encode(errors="backslashreplace").decode()
        self.body = {"id": event, "error": {"type": kind, "message": told}}


class _HungUpError(Exception):
    """The client has disconnected."""


class StageApp:
    """The ASGI app that :func:`serve_stages` returns."""

    def __init__(
        self,
        stages: Mapping[str, Callable[[Any], Awaitable[Any]]],
        *,
        max_concurrent: int,
        max_body: int,
        body_timeout: float,
        timeout: float | None,
        authorize: Authorize | None,
        expose_errors: bool,
    ) -> None:
        self._stages = dict(stages)
        self._max_concurrent = max_concurrent
        self._max_body = max_body
        self._body_timeout = body_timeout
        self._timeout = timeout
        self._authorize = authorize
        self._expose_errors = expose_errors
        #: How many calls are at work.
        self.at_work = 0
        #: How many clients are sending a body.
        self.reading = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request, or the lifespan of the server."""
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
        if self._authorize is not None and not await _allowed(self._authorize, scope):
            raise _RefusedError(403, "Forbidden", "the request must be authorized")
        name = unquote(path.removeprefix("/"))
        fn = self._stages.get(name)
        if fn is None:
            known = ", ".join(self._stages)
            raise _RefusedError(404, "UnknownStage", f"stage must be one of {known}, got {name!r}")
        if method != "POST":
            raise _RefusedError(405, "BadMethod", "use POST", headers={"allow": "POST"})
        _require_json(scope)
        # Checked before the body is read, because a body costs memory, and again after that.
        self._require_room(self.at_work, None)
        self._require_room(self.reading, None)
        event, data = _event(name, await self._body(scope, receive))
        self._require_room(self.at_work, event)
        self.at_work += 1
        try:
            return await self._work(name, fn, event, data, receive)
        finally:
            self.at_work -= 1

    def _require_room(self, taken: int, event: str | None) -> None:
        if taken >= self._max_concurrent:
            message = f"at most {self._max_concurrent} calls may be at work"
            raise _RefusedError(503, "Busy", message, event, {"retry-after": _RETRY_AFTER})

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        length = _header(scope, b"content-length")
        if length.isdigit():
            # int() refuses a string of very many digits.
            self._require_fit(int(length[:20]))
        self.reading += 1
        try:
            body: bytes = await run_with_timeout(self._parts(receive), None, self._body_timeout)
        except ItemTimeoutError:
            message = f"the body must arrive within {self._body_timeout:g} s"
            raise _RefusedError(408, "Slow", message, headers={"connection": "close"}) from None
        finally:
            self.reading -= 1
        return body

    async def _parts(self, receive: Receive) -> bytes:
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
            # The server would take the rest of the body for the next request.
            raise _RefusedError(413, "TooLarge", message, headers={"connection": "close"})

    async def _work(
        self,
        stage: str,
        fn: Callable[[Any], Awaitable[Any]],
        event: str,
        data: Any,
        receive: Receive,
    ) -> bytes:
        async def call() -> bytes:
            result = await run_with_timeout(fn(data), data, self._timeout, name=repr(event))
            return to_json(event, {"id": event, "data": result})

        try:
            return await _unless_gone(call(), receive)
        except (_HungUpError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if is_from_outside(error):
                raise
            log.warning("stage_failed", stage=stage, event_id=event, failure=error)
            if self._expose_errors:
                message = cut(message_of(error), ERROR_LIMIT)
                raise _RefusedError(500, type(error).__name__, message, event) from error
            message = f"the function failed; see the log of the server for event {event!r}"
            raise _RefusedError(500, "StageFailed", message, event) from error


def serve_stages(
    stages: Mapping[str, Callable[[Any], Awaitable[Any]]],
    *,
    max_concurrent: int = 100,
    max_body: int = 1024 * 1024,
    body_timeout: float | timedelta = 10.0,
    timeout: float | timedelta | None = None,
    authorize: Authorize | None = None,
    expose_errors: bool = False,
) -> StageApp:
    """
    Return an ASGI app that serves coroutine functions by name; any ASGI server runs it.

    ``POST /{stage}`` takes an event as :func:`remote` sends it, and answers ``{"id", "data"}``
    or ``{"id", "error": {"type", "message"}}``: 400 for a bad event, 403 if *authorize* refuses the
    request, 404 for an unknown stage, 405 for another method, 408 for a body that arrives too
    slowly, 413 for a body that is too large, 415 for a body whose type is not JSON, 500 for a
    function that failed, and 503 with ``Retry-After`` while *max_concurrent* calls are at work.
    ``GET /healthz`` answers 200. A client that disconnects cancels its call.

    Every client that reaches the app may call its functions unless *authorize* or a middleware
    refuses it. Bodies must be ``application/json``. So a page of another site cannot post a body
    from a browser without a preflight request, which the app refuses.

    Args:
        stages: Functions by name; each gets the data of the event, and returns a value that JSON
            can hold.
        max_concurrent: How many calls may be at work at once, and how many clients may be sending
            a body.
        max_body: The largest body, in bytes.
        body_timeout: Seconds within which a body must arrive.
        timeout: Seconds that a function may take; None for no limit.
        authorize: A plain or a coroutine function, called with the ASGI scope of each request,
            except for ``/healthz``. Unless it returns True, the request is refused.
        expose_errors: Whether the type and message of a function's error go to the client, which
            may reveal too much. The server's log has them in any case.

    Raises:
        ConfigError: If an argument breaks its rule.
    """
    if not isinstance(stages, Mapping) or not stages:
        raise ConfigError("stages must map at least one name to a function", stages)
    for name, fn in stages.items():
        if "/" in key_name("the name of a stage", name) or name == "healthz":
            raise ConfigError("the name of a stage must not contain a slash or be healthz", name)
        if not is_async(fn):
            raise ConfigError(f"stage {name!r} must be a coroutine function", fn)
    if authorize is not None and not callable(authorize):
        raise ConfigError("authorize must be callable or None", authorize)
    for rule, value in (("max_concurrent", max_concurrent), ("max_body", max_body)):
        integer(rule, value)
    return StageApp(
        stages,
        max_concurrent=max_concurrent,
        max_body=max_body,
        body_timeout=seconds("body_timeout", body_timeout, zero=False),
        timeout=None if timeout is None else seconds("timeout", timeout, zero=False),
        authorize=authorize,
        expose_errors=expose_errors,
    )


def _header(scope: Message, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key.lower() == name), b"")


def _require_json(scope: Message) -> None:
    kind = _header(scope, b"content-type").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        message = "the content-type must be application/json"
        raise _RefusedError(415, "BadType", message, headers={"connection": "close"})


async def _allowed(authorize: Authorize, scope: Message) -> bool:
    try:
        answer = authorize(scope)
        if inspect.isawaitable(answer):
            answer = await answer
    except Exception as error:
        log.warning("authorize_failed", failure=error)
        return False
    return answer is True


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


async def _unless_gone(call: Coroutine[Any, Any, bytes], receive: Receive) -> bytes:
    """Return the result of *call*, or cancel it and raise _HungUpError once the client is gone."""
    work = asyncio.create_task(call)
    gone = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise _HungUpError
    finally:
        work.cancel()
        gone.cancel()
        # A cancelled call may clean up, and keeps its slot until it has ended.
        await asyncio.gather(work, gone, return_exceptions=True)
    return work.result()


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
