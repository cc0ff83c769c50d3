"""``Fence``: keeps the requests of a handle to one server process, and notices a new one."""

from __future__ import annotations

from typing import Final

from redis.exceptions import ResponseError

from rxdispatch.log import get_logger
from rxdispatch.relay import Relay
from rxdispatch.store.connections.server_identity import UNKNOWN, ServerIdentity

__all__ = ["Fence"]

log = get_logger(__name__)

_REMEMBERED: Final = 8


class Fence:
    """
    What one handle on a board or a fleet knows about the server that answers it.

    The scripts compare the identity of the server that a connection has reached with the one that
    is stored with the data, and refuse a request before they change anything:

    - ``OTHERSERVER``: the identity may be out of date. The connection asks its server again.
    - ``FENCEOFF``: two identities take turns, as behind a proxy that asks one server and passes the
      scripts to another. Then identities say nothing, and this handle sends none any more.

    STATES. On, until a script answers ``FENCEOFF``; then off for good.

    Args:
        source: The board or fleet, for the log.

    Attributes:
        on: Whether the requests of this handle name the server.
        epochs: How many servers have taken over from another since the first answer.
        replaced: Emits the new identity when another server has answered for the first time.
    """

    __slots__ = ("_latest", "_seen", "_server", "_source", "epochs", "on", "replaced")

    def __init__(self, source: str) -> None:
        self._source = source
        self._latest: ServerIdentity | None = None
        self._server = UNKNOWN
        self._seen: list[bytes] = []
        self.on = True
        self.epochs = 0
        self.replaced: Relay[bytes] = Relay(source)

    def answered(self, identity: ServerIdentity) -> None:
        """A request that named *identity* was executed."""
        if identity is not self._latest:
            self._latest = identity
            identity.answered()
            if identity.name not in (self._server, UNKNOWN):
                self._change(identity.name)

    def _change(self, server: bytes) -> None:
        before, self._server = self._server, server
        # A late answer of the server before this one is no news.
        if server in self._seen:
            return
        self._seen = [*self._seen[1 - _REMEMBERED :], server]
        if before == UNKNOWN:
            return
        self.epochs += 1
        log.warning("server_replaced", source=self._source, old=_text(before), new=_text(server))
        self.replaced.emit(server)

    def refused(self, error: ResponseError) -> bool:
        """Whether *error* is the refusal of an identity, so that the request must be repeated."""
        kind, _, names = str(error).partition(" ")
        if kind == "FENCEOFF":
            if self.on:
                self.on = False
                one, _, other = names.partition(" ")
                log.warning("fence_off", source=self._source, one=one, other=other)
            return True
        return kind == "OTHERSERVER"


def _text(server: bytes) -> str:
    return server.decode("ascii", "replace")
