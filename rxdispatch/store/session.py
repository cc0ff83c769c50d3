"""``Session``: one Pub/Sub connection, from its opening to its end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from rxdispatch.store.client import Client
from rxdispatch.store.subscription import Subscription
from rxdispatch.store.wire import abort, pack, receive, send

__all__ = ["Session"]

# The pings of many processes that started together drift apart.
_SPREAD: Final = (0.8, 1.0)

_LAST_CHANCE: Final = 0.05


class Session:
    """
    Keeps the server's idea of what we listen to equal to *wanted*, and hands out messages.

    redis-py's own ``PubSub`` reconnects in silence and does not wait for its pongs. This one
    never reconnects: whatever goes wrong ends it, and the next session confirms anew.

    Args:
        client: Opens the connection.
        wanted: What to listen to, by name; may change while it runs.
        changed: Set by whoever changed *wanted*.
        on_confirm: Called at each confirmation.
    """

    def __init__(
        self,
        client: Client,
        wanted: Mapping[bytes, Subscription],
        changed: asyncio.Event,
        on_confirm: Callable[[], None],
    ) -> None:
        self._client = client
        self._wanted = wanted
        self._changed = changed
        self._on_confirm = on_confirm
        self._told: dict[bytes, Subscription] = {}
        self._outstanding: Counter[bytes] = Counter()
        self._answered = True

    async def run(self) -> None:
        """
        Listen until nothing is wanted any more.

        Raises:
            Exception: Whatever ended the connection.
        """
        connector = self._client.connector
        connection = connector.make()
        try:
            async with asyncio.timeout(self._client.settings.attempt):
                await connector.open(connection)
            reader = asyncio.create_task(self._read(connection))
            reader.add_done_callback(lambda _: self._changed.set())
            try:
                await self._write(connection, reader)
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
        finally:
            abort(connection)

    async def _write(self, connection: AbstractConnection, reader: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        interval = self._client.settings.ping
        ping_at = loop.time() + interval * random.uniform(*_SPREAD)
        while True:
            self._changed.clear()
            if reader.done():
                reader.result()
            if not self._wanted:
                return
            await self._adapt(connection)
            try:
                async with asyncio.timeout_at(ping_at):
                    await self._changed.wait()
            except TimeoutError:
                if not self._answered:
                    # A loop that was blocked meets the deadline before the answer that came
                    # meanwhile: let it be read.
                    await asyncio.sleep(_LAST_CHANCE)
                if not self._answered:
                    raise exceptions.ConnectionError("no answer to the last ping") from None
                await self._ask(connection, b"PING")
                ping_at = loop.time() + interval * random.uniform(*_SPREAD)

    async def _adapt(self, connection: AbstractConnection) -> None:
        """Subscribe to what is new, unsubscribe from what is gone."""
        # By identity: a channel that was left and joined again needs a new confirmation.
        new = [name for name, sub in self._wanted.items() if self._told.get(name) is not sub]
        gone = [name for name in self._told if name not in self._wanted]
        self._told = dict(self._wanted)
        if new:
            self._outstanding.update(new)
            await self._ask(connection, b"SUBSCRIBE", *new)
        if gone:
            await self._ask(connection, b"UNSUBSCRIBE", *gone)

    async def _ask(self, connection: AbstractConnection, *command: bytes) -> None:
        self._answered = False
        async with asyncio.timeout(self._client.settings.attempt):
            await send(connection, pack(command))

    async def _read(self, connection: AbstractConnection) -> None:
        while True:
            reply = await receive(connection)
            self._answered = True
            match reply:
                case [b"message", bytes(name), bytes(data)]:
                    subscription = self._wanted.get(name)
                    if subscription is not None:
                        subscription.emit(data)
                case [b"subscribe", bytes(name), _]:
                    self._confirm(name)
                case _:
                    pass

    def _confirm(self, name: bytes) -> None:
        self._outstanding[name] -= 1
        subscription = self._wanted.get(name)
        # Only the last of several counts: an UNSUBSCRIBE may stand between them.
        if self._outstanding[name] <= 0:
            del self._outstanding[name]
            if subscription is not None and self._told.get(name) is subscription:
                self._on_confirm()
                subscription.confirm()
