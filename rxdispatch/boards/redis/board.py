"""``RedisBoard``: a board on a Redis or Valkey server, shared by processes and machines."""

from __future__ import annotations

from typing import TypeVar

from rxdispatch.boards.base import Board
from rxdispatch.boards.engine import Options
from rxdispatch.boards.redis.engine import RedisEngine
from rxdispatch.store.client import Client
from rxdispatch.store.pubsub.channels import Channels

__all__ = ["RedisBoard"]

P = TypeVar("P")


class RedisBoard(Board[P]):
    """
    A board on a server; made by ``hub.board(name)``.

    Every write is one atomic script over at most 1,000 tasks. The first call that writes stores the
    handle's options with the board. If another handle gives a different value, each of its calls
    raises a ``ConfigError``.
    """

    def __init__(
        self,
        name: str,
        *,
        client: Client,
        channels: Channels,
        namespace: str,
        options: Options,
        payload: type[P] | None = None,
    ) -> None:
        engine = RedisEngine(client, channels, namespace, name, options.checked())
        super().__init__(name, engine, payload)
        engine.fence.replaced.observable.subscribe(lambda _: self._server_replaced())

    def _server_replaced(self) -> None:
        """Another server has taken over: see at once which claims it knows."""
        self._writer.epochs += 1
        self._intakes.renew_soon()
