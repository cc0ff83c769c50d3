"""``from_redis_list``: the entries of a Redis list as a stream, at least once each."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from functools import partial
from typing import Literal

import attrs
from reactivex import Observable

from rxdispatch.checks import integer
from rxdispatch.config import StoreSettings
from rxdispatch.errors import ConfigError
from rxdispatch.pipelines.redis_list.held_entries import HeldEntries, ListItem, ListWorker
from rxdispatch.pipelines.redis_list.list_taker import ListTaker
from rxdispatch.seconds import seconds
from rxdispatch.store.client import Client
from rxdispatch.store.url import parse_url
from rxdispatch.streams import from_async_iterable

__all__ = ["from_redis_list"]


def from_redis_list(
    server: str | Client,
    key: str | bytes,
    *,
    prefetch: int = 64,
    side: Literal["left", "right"] = "left",
    lease: float | timedelta = 30.0,
    processing_key: str | bytes | None = None,
    settings: StoreSettings | None = None,
) -> Observable[ListItem]:
    """
    Return a stream that takes the entries of an existing Redis list, at least once each.

    The server moves each entry to the worker's own list, and removes it from there when you await
    the item's ``done()``. An entry that is not done goes back to the end that it was taken from:
    when you call ``give_back()``, when nothing refers to the item any more, or when the stream
    ends. If this process dies, another worker puts the entry back once the lease is over. The
    stream takes entries only while there is room downstream and fewer than *prefetch* items are
    unsettled. While the list is empty, it waits on the server.

    Args:
        server: A URL, or ``hub.client``.
        key: The key of the list.
        prefetch: How many items may be unsettled at a time, at least 1.
        side: The end to take from: the left one if producers ``RPUSH``.
        lease: Seconds without a renewal after which a worker counts as dead.
        processing_key: The prefix of the keys of the workers; ``<key>:processing`` by default. All
            workers of a list must use the same prefix.
        settings: The settings of the connection, if *server* is a URL.

    Raises:
        ConfigError: If an argument breaks its rule. The stream fails with it if the server refuses
            a command.

    The stream never completes, and continues automatically after an outage. If a worker could not
    renew its lease in time, another worker may take its entries too; ``done()`` then returns False.
    After disposal, the worker takes no more entries, waits until the emitted items are settled, and
    then unregisters. Every subscription is a worker of its own. Needs Redis 6.2 or newer, or Valkey
    7.2 or newer; a cluster is not supported.
    """
    make: Client | Callable[[], Client]
    if isinstance(server, Client):
        if settings is not None:
            raise ConfigError("settings must be given with a url")
        make = server
    else:
        if not isinstance(server, str):
            raise ConfigError("server must be a url or a Client", server)
        target, chosen = parse_url(server), settings or StoreSettings()
        if not isinstance(chosen, StoreSettings):
            raise ConfigError("settings must be a StoreSettings object", settings)
        if target.scheme == "memory":
            raise ConfigError("the url must name a server", target.safe)
        make = partial(Client, target, chosen)
    source = _key("key", key)
    integer("prefetch", prefetch)
    if side not in ("left", "right"):
        raise ConfigError("side must be 'left' or 'right'", side)
    worker = ListWorker(
        source=source,
        processing=source + b":processing"
        if processing_key is None
        else _key("processing_key", processing_key),
        name=b"",
        side=b"LEFT" if side == "left" else b"RIGHT",
        lease=max(0.003, seconds("lease", lease, zero=False)),
    )
    return from_async_iterable(_Entries(make, worker, prefetch))


@attrs.frozen
class _Entries:
    """The entries as an async iterable; each iteration is a worker."""

    server: Client | Callable[[], Client]
    worker: ListWorker
    prefetch: int

    async def __aiter__(self) -> AsyncGenerator[ListItem]:
        client = self.server if isinstance(self.server, Client) else self.server()
        name = f"{platform.node()[:100]}-{os.getpid()}-{secrets.token_hex(4)}"
        worker = attrs.evolve(self.worker, name=name.encode())
        held = HeldEntries(client, worker)
        taker = ListTaker(client, worker, held)
        closed = False
        try:
            # The worker must be registered before it holds an entry.
            await held.begin()
            while True:
                for value in await taker.take():
                    yield held.add(value)
                while len(held.values) >= self.prefetch:
                    held.changed.clear()
                    await held.changed.wait()
        finally:
            try:
                closed = await taker.close()
                await held.empty()
                await held.end(closed=closed)
            except BaseException:
                # Cancelled, for example because the loop ends: do not wait for the items.
                await held.end(closed=closed)
                raise
            finally:
                if client is not self.server:
                    await client.close()


def _key(name: str, key: str | bytes) -> bytes:
    found = key.encode(errors="surrogateescape") if isinstance(key, str) else key
    if not isinstance(found, bytes) or not found:
        raise ConfigError(f"{name} must be a str or bytes, not empty", key)
    return found
