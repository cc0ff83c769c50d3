"""Which server process a connection has reached."""

from __future__ import annotations

import re
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from rxdispatch.store.connections.wire import pack, receive, send

__all__ = ["UNKNOWN", "ServerIdentity", "ask_identity", "forget_identity", "identity_of"]

UNKNOWN: Final = b""
"""The identity of a server that does not tell it: as an argument, it switches the fence off."""

_ATTRIBUTE: Final = "_rxdispatch_server"
_QUESTION: Final = pack(("INFO", "server")) + pack(("INFO", "replication"))
_RUN: Final = re.compile(rb"^run_id:(\w{16})", re.MULTILINE)
_HISTORY: Final = re.compile(rb"^master_replid:(\w{16})", re.MULTILINE)


def _argument(value: bytes) -> bytes:
    """Return *value* as an argument of a request."""
    return pack((value,))[len(b"*1\r\n") :]


_EMPTY: Final = len(_argument(UNKNOWN))


class ServerIdentity:
    """
    The identity of a server process, and the last argument of a request that names it.

    Until the server has answered the first request, the argument says that the connection has just
    asked.

    Attributes:
        name: The beginnings of the server's ``run_id``, which changes with each start, and of its
            ``master_replid``, which changes when a replica becomes the primary. :data:`UNKNOWN` if
            the server does not tell them.
    """

    __slots__ = ("_end", "_later", "name")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self._end = _argument(b"+" + name if name else UNKNOWN)
        self._later = _argument(name)

    def seal(self, request: bytes) -> bytes:
        """Return *request* with this identity as its last argument, instead of an empty one."""
        return request[:-_EMPTY] + self._end

    def answered(self) -> None:
        """The server has answered a request: from the next one on, this is an older answer."""
        self._end = self._later


# A connection never reaches another process, so it asks once. But a process can change its
# identity: when it has been a replica, or gets its first one. The answer is an attribute of the
# connection, because a dictionary with weak keys takes ten times as long for each request.


def identity_of(connection: AbstractConnection) -> ServerIdentity | None:
    """Return the identity of the server that *connection* has reached, if it has asked."""
    found: ServerIdentity | None = getattr(connection, _ATTRIBUTE, None)
    return found


async def ask_identity(connection: AbstractConnection) -> ServerIdentity:
    """
    Ask the server over *connection* for its identity.

    After any error the caller must abort the connection.
    """
    await send(connection, _QUESTION)
    general, replication = await _info(connection), await _info(connection)
    run, history = _RUN.search(general), _HISTORY.search(replication)
    name = b"%s-%s" % (run[1], history[1]) if run and history else UNKNOWN
    identity = ServerIdentity(name)
    setattr(connection, _ATTRIBUTE, identity)
    return identity


def forget_identity(connection: AbstractConnection) -> None:
    """Have *connection* ask again before its next script."""
    setattr(connection, _ATTRIBUTE, None)


async def _info(connection: AbstractConnection) -> bytes:
    """Return the next reply; empty if the ACL forbids the command."""
    try:
        reply: Any = await receive(connection)
    except ResponseError:
        return b""
    return reply if isinstance(reply, bytes) else b""
