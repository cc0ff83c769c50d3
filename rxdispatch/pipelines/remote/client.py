"""``remote``: a coroutine function that calls a function over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from uuid_utils import uuid7

from rxdispatch.backoff import Backoff
from rxdispatch.checks import integer, key_name, strings
from rxdispatch.errors import ConfigError, ItemTimeoutError, RxDispatchError
from rxdispatch.extras import extra
from rxdispatch.operators._timeout import run_with_timeout
from rxdispatch.pipelines.remote.answer import (
    BadAnswerError,
    error_of,
    read,
    result_of,
    retry_after,
)
from rxdispatch.pipelines.remote.json import to_json
from rxdispatch.seconds import seconds

if TYPE_CHECKING:
    import httpx

__all__ = ["RemoteError", "RemoteFunction", "remote"]

_OURS: Final = frozenset(
    {
        *("content-type", "content-length", "idempotency-key", "transfer-encoding", "connection"),
        *("host", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect"),
    }
)
"""Headers that belong to the connection, or that this module sets."""

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]


class RemoteError(RxDispatchError):
    """
    A function over HTTP did not return a result.

    Args:
        stage: The name of the stage.
        id: The id of the event.
        status: The status of the answer; None if there was no answer.
        type: The kind of error, as the server or the connection names it.
        message: The message of the error.
        retry_after: The seconds of the answer's ``Retry-After``, if it has one.
    """

    def __init__(
        self,
        stage: str,
        id: str,  # noqa: A002
        status: int | None,
        type: str,  # noqa: A002
        message: str,
        retry_after: float | None = None,
    ) -> None:
        self.stage = stage
        self.id = id
        self.status = status
        self.type = type
        self.message = message
        self.retry_after = retry_after
        answer = "did not answer" if status is None else f"answered {status}"
        super().__init__(f"stage {stage!r} {answer} to event {id!r}: {type}: {message}")


class RemoteFunction:
    """
    A function on a server: call it with an item, and close it at the end. Made by :func:`remote`.

    ``async with`` closes it. A client that was passed in stays open.
    """

    def __init__(
        self,
        url: str,
        stage: str,
        *,
        timeout: float,
        backoff: Backoff | None,
        client: httpx.AsyncClient | None,
        headers: Headers,
        id: Callable[[Any], str] | None,  # noqa: A002
        max_answer: int,
    ) -> None:
        with extra("http", "httpx", "remote"):
            # Imported here, because the rest of rxdispatch works without the extra.
            import httpx  # noqa: PLC0415
        self.__name__ = stage
        self._url, user = _without_user(url)
        # Not in the URL, because httpx logs it.
        self._options: dict[str, Any] = {} if user is None else {"auth": httpx.BasicAuth(*user)}
        self._max_answer = max_answer
        self._timeout = timeout
        self._backoff = backoff
        self._headers = headers
        self._id = id
        self._request_error = httpx.RequestError
        self._own = client is None
        # httpx gets no timeout of its own, because each attempt as a whole has one.
        if client is None:
            client = httpx.AsyncClient(timeout=None, cookies=_no_cookies())  # noqa: S113
        self._client = client
        self._inject = _injector()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Close the connections, unless the client was passed in; may be called again."""
        if self._own:
            await self._client.aclose()

    async def __call__(self, item: Any) -> Any:
        """
        Send *item*, and return the result of the function.

        Raises:
            CodecError: If *item* cannot be written as JSON.
            ItemTimeoutError: If the last attempt timed out.
            RemoteError: If the server answers with an error, or not at all.
        """
        name = str(uuid7()) if self._id is None else key_name("id", self._id(item))
        body = to_json(name, {"stage": self.__name__, "id": name, "data": item})
        tries = 1
        while True:
            try:
                return await self._try(name, body, item)
            except (RemoteError, ItemTimeoutError) as error:
                wait = self._wait(error, tries)
                if wait is None:
                    raise
            await asyncio.sleep(wait)
            tries += 1

    async def _try(self, name: str, body: bytes, item: Any) -> Any:
        given = self._headers() if callable(self._headers) else self._headers
        headers = {"accept-encoding": "identity", **_headers(given)}
        headers["content-type"] = "application/json"
        # The key is the same in each attempt, so that the server can recognise a repetition.
        headers["idempotency-key"] = quote(name, safe="")
        self._inject(headers)
        try:
            return await run_with_timeout(self._post(name, body, headers), item, self._timeout)
        except self._request_error as error:
            kind = type(error).__name__
            raise RemoteError(self.__name__, name, None, kind, str(error)) from error

    async def _post(self, name: str, body: bytes, headers: dict[str, str]) -> Any:
        async with self._client.stream(
            "POST", self._url, content=body, headers=headers, **self._options
        ) as answer:
            return await self._result(name, answer)

    async def _result(self, name: str, answer: httpx.Response) -> Any:
        status = answer.status_code
        try:
            body = await read(answer, self._max_answer)
            if answer.is_success:
                return result_of(body, name)
        except BadAnswerError as bad:
            raise RemoteError(self.__name__, name, status, bad.type, str(bad)) from None
        kind, message = error_of(body, answer.reason_phrase)
        wait = retry_after(answer.headers.get("retry-after"))
        raise RemoteError(self.__name__, name, status, kind, message, wait)

    def _wait(self, error: RemoteError | ItemTimeoutError, tries: int) -> float | None:
        """Return the wait before the next attempt; None if there is none."""
        backoff = self._backoff
        if backoff is None or not backoff.goes_on(tries):
            return None
        wait = backoff.delay(tries)
        if isinstance(error, RemoteError):
            status = error.status
            if status is not None and status != 429 and status < 500:
                return None
            asked = error.retry_after or 0.0
            # Never try earlier than the server asks; but do not hold a slot for too long.
            return None if asked > backoff.maximum else max(wait, asked)
        return wait


def remote(
    url: str,
    *,
    timeout: float | timedelta = 10.0,
    backoff: Backoff | None = Backoff(first=0.1, maximum=10.0, attempts=4),
    client: httpx.AsyncClient | None = None,
    headers: Headers | None = None,
    id: Callable[[Any], str] | None = None,  # noqa: A002
    max_answer: int = 16 * 1024 * 1024,
) -> RemoteFunction:
    """
    Return a coroutine function that calls a function over HTTP, for a stage or ``map_async``.

    Each call posts ``{"stage": ..., "id": ..., "data": item}`` as JSON, and returns the ``data``
    of the answer; :func:`serve_stages` is the server's side. The stage's name is the last part of
    the URL's path. A call without an answer may have run the function, so the function must be
    idempotent. The server can recognise a repetition by the header ``idempotency-key``, which is
    the id, percent-encoded.

    Args:
        url: The ``http`` or ``https`` URL of the stage; a user and password in it are sent as basic
            authentication.
        timeout: Seconds that each attempt may take.
        backoff: The number of attempts and the waits in between, after an error of the connection,
            a timeout, 429 or 5xx; None for one attempt. The wait is at least ``Retry-After``; a
            ``Retry-After`` above the backoff's ``maximum`` ends the attempts.
        client: An ``httpx.AsyncClient`` to use, which stays open; its own timeouts apply too. The
            default client keeps no cookies and follows no redirects; like httpx, it uses the
            proxies and certificates of the environment.
        headers: Headers to send, or a plain function that returns them, called before each attempt.
            The trace context is added if opentelemetry is installed. Headers that belong to the
            connection, or that this function sets, are refused.
        id: Returns the id of an item; by default each call gets a UUID version 7.
        max_answer: The largest decoded answer, in bytes; a larger one is a ``RemoteError`` of type
            ``TooLarge``. Answers are not compressed unless *headers* ask for it by
            ``accept-encoding``.

    Raises:
        ConfigError: If an argument breaks its rule, or httpx is not installed.
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        # Without the value, which may hold a password.
        raise ConfigError("url must be an http or https URL")
    stage = unquote(parts.path.rstrip("/").rpartition("/")[2])
    if not stage:
        raise ConfigError("url must end in the name of a stage")
    if backoff is not None and not isinstance(backoff, Backoff):
        raise ConfigError("backoff must be a Backoff or None", backoff)
    if id is not None and not callable(id):
        raise ConfigError("id must be callable or None", id)
    integer("max_answer", max_answer)
    return RemoteFunction(
        url,
        stage,
        timeout=seconds("timeout", timeout, zero=False),
        backoff=backoff,
        client=client,
        headers=headers if callable(headers) else _headers(headers or {}),
        id=id,
        max_answer=max_answer,
    )


def _without_user(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return *url* without user and password, and these two."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, None
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return urlunsplit(plain), (unquote(parts.username or ""), unquote(parts.password or ""))


def _headers(given: Any) -> dict[str, str]:
    """Return *given* with names in lower case; refuse names that are in ``_OURS``."""
    headers: dict[str, str] = {}
    for name, value in strings("headers", given).items():
        lower = name.lower()
        if lower in _OURS or lower in headers:
            raise ConfigError("headers must differ, and must not replace those of remote()", name)
        headers[lower] = value
    return headers


def _no_cookies() -> CookieJar:
    # Otherwise cookies that a server sets would be sent with the calls of other items.
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _injector() -> Callable[[dict[str, str]], None]:
    try:
        from opentelemetry import propagate  # noqa: PLC0415
    except ImportError:
        return lambda _: None
    return propagate.inject
