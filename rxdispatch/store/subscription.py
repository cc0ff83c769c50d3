"""``Subscription``: who listens to one channel, and whether the server has confirmed it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reactivex import abc
from reactivex.disposable import Disposable

from rxdispatch.log import get_logger

__all__ = ["Subscription"]

Listener = abc.ObserverBase[bytes | None]

log = get_logger(__name__)


class Subscription:
    """
    The listeners of one channel.

    Args:
        name: The channel.
        on_empty: Called when the last listener has left.
    """

    def __init__(self, name: bytes, on_empty: Callable[[Subscription], None]) -> None:
        self.name = name
        self.confirmed = asyncio.Event()
        self._on_empty = on_empty
        self._listeners: dict[object, Listener] = {}

    def add(self, listener: Listener) -> abc.DisposableBase:
        """Let *listener* hear what comes, until the result is disposed."""
        key = object()
        self._listeners[key] = listener
        if self.confirmed.is_set():
            self._guard(listener.on_next, None)

        def remove() -> None:
            if self._listeners.pop(key, None) is not None and not self._listeners:
                self._on_empty(self)

        return Disposable(remove)

    def confirm(self) -> None:
        """The server has confirmed it: what was sent before may have been missed."""
        self.confirmed.set()
        self.emit(None)

    def emit(self, value: bytes | None) -> None:
        """Hand *value* to every listener; one that raises harms no other."""
        for key, listener in tuple(self._listeners.items()):
            if key in self._listeners:
                self._guard(listener.on_next, value)

    def complete(self) -> None:
        """Tell every listener that nothing more will come."""
        listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            self._guard(listener.on_completed)

    def _guard(self, tell: Callable[..., None], *value: bytes | None) -> None:
        try:
            tell(*value)
        except Exception as error:
            log.error(
                "channel_listener_failed", channel=self.name.decode(errors="replace"), failure=error
            )
