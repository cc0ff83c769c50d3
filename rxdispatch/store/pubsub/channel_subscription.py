"""``ChannelSubscription``: the listeners of one channel, and the server's confirmation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reactivex import abc
from reactivex.disposable import Disposable

from rxdispatch.errors import ConfigError
from rxdispatch.listeners import LEAVING
from rxdispatch.log import get_logger

__all__ = ["ChannelSubscription"]

Listener = abc.ObserverBase[bytes | None]

log = get_logger(__name__)


class ChannelSubscription:
    """
    The listeners of one channel.

    Args:
        name: The channel.
        on_empty: Called when the last listener has left.
    """

    def __init__(self, name: bytes, on_empty: Callable[[ChannelSubscription], None]) -> None:
        self.name = name
        self.confirmed = asyncio.Event()
        #: Set once the server has confirmed or refused the subscription, or it has ended.
        self.answered = asyncio.Event()
        self.refusal: ConfigError | None = None
        self._on_empty = on_empty
        self._listeners: dict[object, Listener] = {}

    def add(self, listener: Listener) -> abc.DisposableBase:
        """Call *listener* with each message, until the returned disposable is disposed."""
        key = object()
        self._listeners[key] = listener
        if self.confirmed.is_set():
            self._guard(listener.on_next, None)

        def remove() -> None:
            if self._listeners.pop(key, None) is not None and not self._listeners:
                self._on_empty(self)

        return Disposable(remove)

    def confirm(self) -> None:
        """Handle the server's confirmation: messages before it may have been missed."""
        self.refusal = None
        self.confirmed.set()
        self.answered.set()
        self.emit(None)

    def lost(self, refusal: ConfigError | None) -> None:
        """Handle the loss of the connection; *refusal* says why the next one would fail too."""
        self.confirmed.clear()
        self.refusal = refusal
        if refusal is None:
            self.answered.clear()
        else:
            self.answered.set()

    def over(self) -> None:
        """End the subscription; callers that wait for its confirmation stop waiting."""
        self.confirmed.set()
        self.answered.set()

    def emit(self, value: bytes | None) -> None:
        """Call every listener with *value*; a listener that raises does not affect the others."""
        for key, listener in tuple(self._listeners.items()):
            if key in self._listeners:
                self._guard(listener.on_next, value)

    def complete(self) -> None:
        """Complete every listener."""
        listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            self._guard(listener.on_completed)

    def _guard(self, notify: Callable[..., None], *value: bytes | None) -> None:
        try:
            notify(*value)
        except LEAVING:
            raise
        except BaseException as error:
            log.error(
                "channel_listener_failed", channel=self.name.decode(errors="replace"), failure=error
            )
