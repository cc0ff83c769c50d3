"""``Session``: one Pub/Sub connection, from its opening to its end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from rxdispatch.store.client import Client
from rxdispatch.store.connections.wire import abort, pack, receive, send
from rxdispatch.store.pubsub.channel_subscription import ChannelSubscription

__all__ = ["Session"]

# Spreads the pings of many processes that started together.
_SPREAD: Final = (0.8, 1.0)

_LAST_CHANCE: Final = 0.05


class Session:
    """
    One Pub/Sub connection that keeps the subscriptions equal to *wanted* and delivers messages.

    redis-py's own ``PubSub`` reconnects silently and does not wait for its pongs. A session never
    reconnects: any failure ends it, and the next session confirms its subscriptions again.

    Args:
        client: Opens the connection.
        wanted: The subscriptions, by channel; may change while the session runs.
        changed: An event to set after a change of *wanted*.
        on_confirm: Called at each confirmation.
    """

    def __init__(
        self,
        client: Client,
        wanted: Mapping[bytes, ChannelSubscription],
        changed: asyncio.Event,
        on_confirm: Callable[[], None],
    ) -> None:
        self._client = client
        self._wanted = wanted
        self._changed = changed
        self._on_confirm = on_confirm
        self._subscribed: dict[bytes, ChannelSubscription] = {}
        self._outstanding: Counter[bytes] = Counter()
        self._answered = True
        # One for each unanswered PING, in order; a barrier may wait for it.
        self._pings: deque[asyncio.Future[None] | None] = deque()
        self._barriers: list[asyncio.Future[None]] = []
        self._open = self._given_up = False

    async def barrier(self, timeout: float) -> bool:
        """
        Wait until every message that the server has sent so far is delivered.

        Returns:
            False if the server did not answer within *timeout* seconds, which ends the session, or
            if there is no connection yet.
        """
        if not self._open:
            return False
        answer = asyncio.get_running_loop().create_future()
        self._barriers.append(answer)
        self._changed.set()
        done, _ = await asyncio.wait({answer}, timeout=timeout)
        if not done:
            # The answer may have arrived while the loop was blocked: give it a turn to read.
            done, _ = await asyncio.wait({answer}, timeout=_LAST_CHANCE)
        if not done:
            self._given_up = True
            self._changed.set()
        return bool(done) and not answer.cancelled()

    async def run(self) -> None:
        """
        Run until *wanted* is empty.

        Raises:
            Exception: The error that ended the connection.
        """
        connector = self._client.connector
        connection = connector.make()
        try:
            await connector.reach(connection, self._client.settings.attempt_timeout)
            self._open = True
            reader = asyncio.create_task(self._read(connection))
            reader.add_done_callback(lambda _: self._changed.set())
            try:
                await self._write(connection, reader)
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
        finally:
            abort(connection)
            self._open = False
            for answer in (*self._barriers, *self._pings):
                if answer is not None:
                    answer.cancel()

    async def _write(self, connection: AbstractConnection, reader: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        interval = self._client.settings.ping_interval
        ping_at = loop.time() + interval * random.uniform(*_SPREAD)
        while True:
            self._changed.clear()
            if reader.done():
                reader.result()
            if not self._wanted:
                return
            if self._given_up:
                raise exceptions.ConnectionError("no answer to a ping")
            await self._adapt(connection)
            while self._barriers:
                self._pings.append(self._barriers.pop(0))
                await self._ask(connection, b"PING")
            try:
                async with asyncio.timeout_at(ping_at):
                    await self._changed.wait()
            except TimeoutError:
                if not self._answered:
                    # A loop that was blocked reaches the deadline before it reads an answer that
                    # has arrived: give it a turn to read it.
                    await asyncio.sleep(_LAST_CHANCE)
                if not self._answered:
                    raise exceptions.ConnectionError("no answer to the last ping") from None
                self._pings.append(None)
                await self._ask(connection, b"PING")
                ping_at = loop.time() + interval * random.uniform(*_SPREAD)

    async def _adapt(self, connection: AbstractConnection) -> None:
        """Subscribe to new channels, and unsubscribe from channels that are no longer wanted."""
        # By identity: a channel that was left and subscribed again needs a new confirmation.
        new = [name for name, sub in self._wanted.items() if self._subscribed.get(name) is not sub]
        left = [name for name in self._subscribed if name not in self._wanted]
        self._subscribed = dict(self._wanted)
        if new:
            self._outstanding.update(new)
            await self._ask(connection, b"SUBSCRIBE", *new)
        if left:
            await self._ask(connection, b"UNSUBSCRIBE", *left)

    async def _ask(self, connection: AbstractConnection, *command: bytes) -> None:
        self._answered = False
        async with asyncio.timeout(self._client.settings.attempt_timeout):
            await send(connection, pack(command))

    async def _read(self, connection: AbstractConnection) -> None:
        while True:
            reply = await receive(connection)
            self._answered = True
            match reply:
                case [b"message", name, data]:
                    subscription = self._wanted.get(name)
                    if subscription is not None:
                        subscription.emit(data)
                case [b"subscribe", name, _]:
                    self._confirm(name)
                case [b"pong", _]:
                    self._pong()
                case _:
                    pass

    def _pong(self) -> None:
        answer = self._pings.popleft() if self._pings else None
        if answer is not None and not answer.done():
            answer.set_result(None)

    def _confirm(self, name: bytes) -> None:
        self._outstanding[name] -= 1
        subscription = self._wanted.get(name)
        # Only the last of several confirmations counts: an UNSUBSCRIBE may come between them.
        if self._outstanding[name] <= 0:
            del self._outstanding[name]
            if subscription is not None and self._subscribed.get(name) is subscription:
                self._on_confirm()
                subscription.confirm()
