"""Commands on the wire: packed by hiredis, sent and answered over a connection that stays ours."""

from __future__ import annotations

from typing import Any, cast

import hiredis
from redis import exceptions
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from rxdispatch.store.connections.patience import Patience

__all__ = ["Value", "abort", "exchange", "pack", "receive", "send", "unread"]

Value = bytes | str | int | float


def pack(command: tuple[Value, ...]) -> bytes:
    """
    Return *command* in the server's protocol.

    The asyncio side of redis-py packs in Python, which takes five times as long.
    """
    return cast("bytes", cast("Any", hiredis).pack_command(command))


async def send(
    connection: AbstractConnection, packed: bytes, patience: Patience | None = None
) -> None:
    """
    Write a command to an open connection.

    *patience*, where given, is told once the operating system has got what it takes.

    After any error the caller must :func:`abort` the connection. redis-py's own method would
    close it politely by itself, see there.
    """
    writer = connection._writer
    if writer is None:
        raise exceptions.ConnectionError("the connection is closed")
    writer.write(packed)
    if patience is not None:
        patience.written()
    await writer.drain()


async def receive(connection: AbstractConnection) -> Any:
    """
    Return the next reply.

    After any error but a ``ResponseError`` the caller must :func:`abort` the connection.
    """
    try:
        return await cast("Any", connection).read_response(disconnect_on_error=False)
    except ResponseError as error:
        # redis-py's frame has the error in a variable, and the error has the frame. From Python
        # 3.12 on such a frame keeps those of all its callers, with the claims in their variables.
        raise error.with_traceback(None) from None


async def exchange(
    connection: AbstractConnection, packed: bytes, patience: Patience | None = None
) -> Any:
    """
    Send a command over an open connection and return the reply to it.

    After any error but a ``ResponseError`` the caller must :func:`abort` the connection.
    """
    await send(connection, packed, patience)
    return await receive(connection)


def unread(connection: AbstractConnection) -> bool:
    """
    Tell whether bytes, or the end, have come on an open connection that nobody has read.

    redis-py's own check has another name in each major version, and the older ones wait.
    """
    # What an asyncio.StreamReader holds has no public name.
    stream, parser = cast("Any", connection._reader), cast("Any", connection._parser)
    return bool(stream.at_eof() or stream._buffer or parser._reader.has_data())


def abort(connection: AbstractConnection) -> None:
    """
    Close at once, without a farewell and without waiting.

    A polite close keeps the descriptor until what was written has left, which is never when
    the server has stopped reading.
    """
    writer, connection._writer, connection._reader = connection._writer, None, None
    if writer is not None:
        writer.transport.abort()
