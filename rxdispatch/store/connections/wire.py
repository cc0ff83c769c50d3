"""Commands on the wire: packed by hiredis, sent and answered without redis-py's retries."""

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

    redis-py's asyncio code packs in Python, which takes five times as long.
    """
    return cast("bytes", cast("Any", hiredis).pack_command(command))


async def send(
    connection: AbstractConnection, packed: bytes, patience: Patience | None = None
) -> None:
    """
    Write a command to an open connection.

    *patience*, if given, is notified once the operating system has accepted what it can hold.

    After any error the caller must :func:`abort` the connection. redis-py's own method would close
    it gracefully; :func:`abort` says why that may never end.
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
        # redis-py's frame refers to the error, and the error to the frame. Since Python 3.12 such a
        # frame keeps the frames of all its callers alive, with the claims in their variables.
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
    Whether an open connection has unread bytes, or was closed by the server.

    redis-py's own check has a different name in each major version, and blocks in older ones.
    """
    # The buffer of an asyncio.StreamReader is not public.
    stream, parser = cast("Any", connection._reader), cast("Any", connection._parser)
    return bool(stream.at_eof() or stream._buffer or parser._reader.has_data())


def abort(connection: AbstractConnection) -> None:
    """
    Close at once, without flushing and without waiting.

    A graceful close keeps the descriptor until the written bytes have left, which never happens if
    the server has stopped reading.
    """
    writer, connection._writer, connection._reader = connection._writer, None, None
    if writer is not None:
        writer.transport.abort()
