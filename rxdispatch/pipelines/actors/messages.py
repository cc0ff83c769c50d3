"""Messages and errors of actors, and the rules for their handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from rxdispatch.callables import check_function, is_async
from rxdispatch.errors import ConfigError, TaskExecutionError

__all__ = [
    "ActorError",
    "Factory",
    "Handle",
    "Mail",
    "Supervision",
    "checked_behaviour",
    "checked_handle",
]

Supervision = Literal["resume", "restart", "stop"]
Handle = Callable[[Any], Awaitable[Any]]
Factory = Callable[[], Handle]


class ActorError(TaskExecutionError):
    """
    An actor failed to handle a message; the error is the ``__cause__``.

    Args:
        task_id: The id of the message, ``"<actor>/<n>"`` with its number *n* from 1.
        actor: The name of the actor.
        message: The message; not part of this error's text.
    """

    def __init__(self, task_id: str, actor: str, message: Any) -> None:
        super().__init__(task_id, 1)
        self.actor = actor
        self.message = message
        self.args = (f"actor {actor!r} failed to handle message {task_id!r}",)


class Mail:
    """A message in a mailbox, with a future if the sender waits for the answer."""

    __slots__ = ("id", "message", "reply")

    def __init__(self, message: Any, reply: asyncio.Future[Any] | None = None) -> None:
        self.message = message
        self.reply = reply
        self.id = ""


def checked_behaviour(
    handle: Handle | None, factory: Factory | None, supervision: Supervision
) -> Factory:
    """
    Return the function that makes the handler.

    Raises:
        ConfigError: If the three arguments do not go together.
    """
    if (handle is None) == (factory is None):
        raise ConfigError("an actor must be given either handle or factory")
    if supervision not in ("resume", "restart", "stop"):
        raise ConfigError('supervision must be "resume", "restart" or "stop"', supervision)
    if factory is not None:
        if not callable(factory) or is_async(factory):
            raise ConfigError("factory must be a class or a plain function", factory)
        check_function("factory", factory)
        return factory
    # Only a factory can make a new handler, in its initial state.
    if supervision == "restart":
        raise ConfigError('factory must be given with supervision="restart"', handle)
    known = checked_handle("handle", handle)
    return lambda: known


def checked_handle(what: str, handle: Any) -> Handle:
    """
    Return *handle*.

    Raises:
        ConfigError: If it is neither a coroutine function nor an object with an async
            ``__call__``.
    """
    if not is_async(handle):
        raise ConfigError(
            f"{what} must be a coroutine function, or an object with an async __call__", handle
        )
    check_function(what, handle, "message")
    return handle  # type: ignore[no-any-return]
