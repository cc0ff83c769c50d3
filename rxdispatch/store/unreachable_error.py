"""``UnreachableError``: the error of a connection that failed, without secrets in its traceback."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final, cast

from redis import exceptions

from rxdispatch.error_text import describe

__all__ = ["UnreachableError", "bare", "chain", "root_of", "why"]

_SILENT_TLS: Final = "the TLS handshake got no answer; a port without TLS needs redis://"
_NO_TLS: Final = "the server does not speak TLS; a port without TLS needs redis://"
_ONLY_TLS: Final = "the server speaks TLS; its port needs rediss://"
_HUNG_UP: Final = "the server closed the connection"
_UNKNOWN_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_WORDS: Final = (
    (ConnectionRefusedError, "connection refused"),
    (FileNotFoundError, "there is no such socket"),
    ((TimeoutError, exceptions.TimeoutError), ""),
    (EOFError, _HUNG_UP),
)
_ALERT: Final = re.compile(r"Protocol error, got \"?\\x15")


class UnreachableError(exceptions.ConnectionError):
    """
    A connection could not be opened.

    It replaces the error of redis-py, whose frames hold the password. The cause is the error of the
    operating system or of TLS, without a traceback.

    Args:
        why: The reason, in words.
        final: Whether the next attempt would fail in the same way.
    """

    def __init__(self, why: str, *, final: bool = False) -> None:
        self.why = why
        self.final = final
        cast("Any", super()).__init__(why)

    @classmethod
    def of(cls, error: BaseException, host: str, *, tls: bool) -> UnreachableError:
        """
        Return the error for a failed connection to *host*.

        Args:
            error: The error of redis-py.
            host: The host, named in the text if it cannot be looked up.
            tls: Whether the connection uses TLS.
        """
        root = root_of(error)
        final = False
        if isinstance(root, socket.gaierror):
            final = root.errno in _UNKNOWN_HOST
            text = f"unknown host {host!r}" if final else f"host {host!r} cannot be looked up now"
        elif tls and _silent(root):
            text = _SILENT_TLS
        else:
            text = why(error)
        made = cls(text, final=final)
        made.__cause__ = bare(root)
        return made


def why(error: BaseException) -> str:
    """
    Return the reason of a failure in a few words; empty if the server was only too slow.

    The text holds no password: its parts come from the operating system, TLS or the server.
    """
    if isinstance(error, UnreachableError):
        return error.why
    root = root_of(error)
    for kind, text in _WORDS:
        if isinstance(root, kind):
            return text
    if isinstance(root, ssl.SSLError):
        reason = root.reason or ""
        return _NO_TLS if "WRONG_VERSION" in reason else f"TLS failed: {reason or root}".lower()
    if isinstance(root, OSError):
        return (root.strerror or describe(root)).lower()
    if isinstance(root, exceptions.InvalidResponse) and _ALERT.search(str(root)):
        return _ONLY_TLS
    if str(root).startswith("Connection closed by server"):
        return _HUNG_UP
    return str(root) if isinstance(root, exceptions.RedisError) else describe(root)


def bare(error: BaseException) -> BaseException:
    """Return *error* without its traceback and without the errors that it refers to."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and, each once, the errors that it refers to: causes first, then contexts."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        some = waiting.pop()
        if some is not None and id(some) not in seen:
            seen.add(id(some))
            yield some
            waiting += (some.__context__, some.__cause__)


def root_of(error: BaseException) -> BaseException:
    """Return the most specific error in the chain of *error*."""
    found = [*chain(error)]
    # A host name may have several addresses, and each fails in its own way.
    for some in found:
        if isinstance(some, BaseExceptionGroup):
            found += cast("BaseExceptionGroup[BaseException]", some).exceptions
    for kind in (socket.gaierror, ssl.SSLError, OSError):
        for some in found:
            # A TimeoutError is an OSError that says nothing.
            if isinstance(some, kind) and not isinstance(some, TimeoutError):
                return some
    return error


def _silent(root: BaseException) -> bool:
    """Whether the other side sent nothing, or closed the connection without an answer."""
    if isinstance(root, ssl.SSLError):
        return "EOF" in (root.reason or "")
    return isinstance(root, TimeoutError | exceptions.TimeoutError | ConnectionResetError)
