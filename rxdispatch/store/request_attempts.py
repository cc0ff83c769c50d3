"""``RequestAttempts``: the failed attempts of one request, and the error to raise for them."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from redis import exceptions
from redis.exceptions import AuthenticationError, MasterDownError, ReadOnlyError, ResponseError

from rxdispatch.errors import CodecError, ConfigError, StoreUnavailableError
from rxdispatch.store.refusal import forbidden
from rxdispatch.store.unreachable_error import UnreachableError, bare, root_of, why
from rxdispatch.store.url import Target

__all__ = ["RequestAttempts", "login_refused"]

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.25

_LARGE: Final = 1_000_000
"""A little less than the smallest possible ``proto-max-bulk-len``, 1 MiB; in bytes."""

_HANG_UPS: Final = 3
_TLS_HINT: Final = "; a port that speaks TLS needs rediss://"


class RequestAttempts:
    """
    The failed attempts of one request.

    Args:
        operation: The name of the request in errors.
        target: The server.
        size: The size of the request in bytes.
        read_only: Whether the request only reads, so that it may have been executed without harm.

    Attributes:
        final: Whether another attempt cannot help.
    """

    def __init__(self, operation: str, target: Target, *, size: int, read_only: bool) -> None:
        self._operation = operation
        self._target = target
        self._size = size
        self._read_only = read_only
        self._refusal: Exception | None = None
        self._cause: BaseException | None = None
        self._why = ""
        self._maybe_executed = False
        self._hang_ups = 0
        self._pause = _FIRST_PAUSE
        self.final = False

    def answered(self, error: ResponseError) -> bool:
        """Record an error reply of the server; False if the caller must handle it."""
        text = str(error)
        refusal = forbidden(error, self._operation, self._target)
        if text.startswith("Protocol error"):
            # The server closes the connection after this answer.
            self._refuse(self._too_large())
        elif refusal is not None:
            self._refuse(refusal)
        elif isinstance(error, (ReadOnlyError, MasterDownError)) or text.startswith("BUSY "):
            # The request was not executed; another connection may reach the new primary.
            self._note(error)
        else:
            return False
        return True

    def failed(self, error: Exception, *, sent: bool, ever_answered: bool) -> None:
        """
        Record an attempt that got no answer.

        Args:
            error: The error that ended it.
            sent: Whether the request may have reached the server.
            ever_answered: Whether this server has ever answered.
        """
        if isinstance(error, AuthenticationError):
            self._refuse(login_refused(self._target))
            return
        self._maybe_executed = self._maybe_executed or (sent and not self._read_only)
        self._note(error)
        if isinstance(error, UnreachableError):
            self.final = error.final
            return
        if not sent or isinstance(error, (TimeoutError, exceptions.TimeoutError)):
            return
        if (
            not ever_answered
            and self._target.scheme == "redis"
            and not self._why.endswith(_TLS_HINT)
        ):
            self._why += _TLS_HINT
        self._hang_ups += 1
        if self._size > _LARGE and self._hang_ups == _HANG_UPS:
            self._refuse(self._too_large())

    async def wait(self, deadline: float) -> bool:
        """Pause before the next attempt; False if it cannot help, or *deadline* has passed."""
        loop = asyncio.get_running_loop()
        left = deadline - loop.time()
        if self.final or left <= 0:
            return False
        await asyncio.sleep(min(left, self._pause * random.uniform(0.5, 1.0)))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return loop.time() < deadline

    def error(self) -> Exception:
        """Return the error to raise after the last attempt."""
        if self._refusal is not None:
            return self._refusal
        error = StoreUnavailableError(
            self._operation, maybe_executed=self._maybe_executed, why=self._why
        )
        error.__cause__ = self._cause
        return error

    def _note(self, error: Exception) -> None:
        reason = why(error)
        # The last attempt often times out; the error of an earlier one says more.
        if reason or self._cause is None:
            self._why = reason
            self._cause = error.__cause__ if isinstance(error, UnreachableError) else None
            self._cause = self._cause or bare(root_of(error))

    def _refuse(self, error: Exception) -> None:
        self._refusal = error
        self.final = True

    def _too_large(self) -> CodecError:
        return CodecError(
            f"{self._operation}: the server must take a request of this size in bytes"
            " (proto-max-bulk-len, client-query-buffer-limit)",
            self._size,
        )


def login_refused(target: Target) -> ConfigError:
    """Return the error to raise when the server does not accept the login."""
    return ConfigError(f"{target.safe}: the server must accept the user and password")
