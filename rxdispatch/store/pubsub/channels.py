"""``Channels``: Pub/Sub as hot observables that mark where messages may have been missed."""

from __future__ import annotations

import asyncio
import random
from contextvars import Context
from copy import copy
from typing import Final

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from redis.exceptions import ResponseError

from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.log import get_logger
from rxdispatch.store.client import Client
from rxdispatch.store.pubsub.channel_subscription import ChannelSubscription
from rxdispatch.store.pubsub.session import Session
from rxdispatch.store.refusal import forbidden

__all__ = ["Channels"]

log = get_logger(__name__)

_FIRST_PAUSE: Final = 0.05
_CANCELLED: Final = 0.1
"""Seconds until the channels are read again after other code has cancelled that."""
_LONGEST_PAUSE: Final = 1.0


class Channels:
    """
    The Pub/Sub channels of one server, over one connection.

    The connection opens for the first subscriber and closes after the last one has left. When it
    fails, another one replaces it after a random pause, until :meth:`close`. Everything happens on
    the loop's thread.

    Args:
        client: Opens the connection and knows the settings.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._wanted: dict[bytes, ChannelSubscription] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._closed = False
        self._failures = 0

    def channel(self, name: bytes) -> Observable[bytes | None]:
        """
        Return the messages of a channel, hot.

        Emits each message. Emits None when the server confirms the subscription, the first time and
        after each reconnection: messages published before that may have been missed. A subscriber
        to a channel that is already confirmed gets the None at once. Completes when the channels
        close.
        """

        def subscribe(
            observer: abc.ObserverBase[bytes | None], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            self._client.home.check()
            if self._closed:
                observer.on_completed()
                return Disposable()
            return self._subscription(name).add(observer)

        return Observable(subscribe)

    async def confirmed(self, name: bytes) -> None:
        """
        Wait until the server has confirmed the subscription to *name*.

        Raises:
            ConfigError: If the channel has no subscriber, or the server refuses the subscription.
            StoreUnavailableError: If the last subscriber leaves, or the channels are closed.
        """
        subscription = self._wanted.get(name)
        if subscription is None:
            raise ConfigError("the channel must have a subscriber", name)
        await subscription.answered.wait()
        if self._wanted.get(name) is not subscription:
            raise StoreUnavailableError("subscribe")
        if subscription.refusal is not None:
            raise copy(subscription.refusal)

    async def barrier(self, timeout: float) -> None:
        """
        Wait until the subscribers have received everything that was published before this call.

        It sends a PING, which the server answers on the same connection, behind the messages.

        Args:
            timeout: Seconds to wait for the answer; then another connection replaces this one.

        Raises:
            StoreUnavailableError: If no answer came, or there is no connection.
        """
        session = self._session
        if session is None or not await session.barrier(timeout):
            raise StoreUnavailableError("ping the channels")

    async def close(self) -> None:
        """Close the connection and complete every observable; a second call does nothing."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        subscriptions = tuple(self._wanted.values())
        self._wanted.clear()
        for subscription in subscriptions:
            subscription.over()
            subscription.complete()

    def _subscription(self, name: bytes) -> ChannelSubscription:
        subscription = self._wanted.get(name)
        if subscription is None:
            subscription = self._wanted[name] = ChannelSubscription(name, self._forget)
            self._changed.set()
            if self._task is None:
                # Not in the first subscriber's context: the task outlives that subscriber.
                loop = asyncio.get_running_loop()
                self._start(loop)
        return subscription

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._run(), context=Context())
        self._task.add_done_callback(self._ended, context=Context())

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Go on if other code, which cancels all tasks of the loop, has cancelled the reading."""
        if self._closed or self._task is not task or not task.cancelled():
            return
        for subscription in self._wanted.values():
            subscription.lost(None)
        loop = task.get_loop()
        loop.call_later(_CANCELLED, self._again, task, context=Context())

    def _again(self, ended: asyncio.Task[None]) -> None:
        if not self._closed and self._task is ended:
            self._start(ended.get_loop())

    def _forget(self, subscription: ChannelSubscription) -> None:
        if self._wanted.get(subscription.name) is subscription:
            del self._wanted[subscription.name]
            self._changed.set()
            subscription.over()

    async def _run(self) -> None:
        """Run sessions, one after the other, while there are subscriptions."""
        while self._wanted:
            session = Session(self._client, self._wanted, self._changed, self._restored)
            self._session = session
            try:
                await session.run()
            except Exception as error:
                self._lost(error)
                longest = min(_FIRST_PAUSE * 2**self._failures, _LONGEST_PAUSE)
                await asyncio.sleep(random.uniform(0, longest))
            # No await from here to the end: a later subscriber starts a new task.
        self._task = None

    def _lost(self, error: Exception) -> None:
        self._session = None
        refusal = self._refusal(error)
        for subscription in self._wanted.values():
            subscription.lost(refusal)
        if not self._failures:
            log.warning(
                "channels_lost", server=self._client.target.safe, error=_text(refusal or error)
            )
        self._failures = min(self._failures + 1, 16)

    def _refusal(self, error: Exception) -> ConfigError | None:
        if isinstance(error, ConfigError):
            return error
        if isinstance(error, ResponseError):
            names = ", ".join(name.decode(errors="replace") for name in self._wanted)
            return forbidden(error, f"subscribe to {names}", self._client.target)
        return None

    def _restored(self) -> None:
        if self._failures:
            self._failures = 0
            log.info("channels_restored", server=self._client.target.safe)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
