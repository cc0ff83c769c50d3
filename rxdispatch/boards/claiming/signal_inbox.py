"""``SignalEngine``, ``SignalInbox``: boards that hand nothing over, and waiting by signals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from reactivex import abc
from reactivex.disposable import CompositeDisposable

from rxdispatch.boards.engine import ClaimReply, Engine, InboxListener, Signal
from rxdispatch.relay import Relay

__all__ = ["SignalEngine", "SignalInbox"]


class SignalEngine:
    """
    What the engines have in common that hand nothing over.

    Attributes:
        cancelled: Emits the tokens of claims that were cancelled; none if they are not known.
    """

    cancelled: Relay[Sequence[int]]

    @property
    def undelivered(self) -> int:
        """0: nothing is handed over."""
        return 0

    def inbox(self, kinds: Sequence[str] | None, worker: str, lease: float) -> SignalInbox:
        """Return a new inbox of *worker*, which claims tasks of *kinds*, or of all."""
        return SignalInbox(cast("Engine", self), self.cancelled, kinds, worker, lease)


class SignalInbox:
    """
    The inbox of a worker in a process that sees itself what becomes ready.

    Args:
        engine: Whose signals tell that something is ready.
        cancelled: Emits the tokens of claims that were cancelled.
        kinds: The kinds that the worker takes; None for all.
        worker: The worker's label.
        lease: Seconds that its claims last.
    """

    def __init__(
        self,
        engine: Engine,
        cancelled: Relay[Sequence[int]],
        kinds: Sequence[str] | None,
        worker: str,
        lease: float,
    ) -> None:
        self._engine = engine
        self._cancelled = cancelled
        self._kinds = kinds
        self._worker = worker
        self._lease = lease

    def listen(self, listener: InboxListener) -> abc.DisposableBase:
        """Call *listener* until the returned disposable is disposed."""

        def on_signal(signal: Signal) -> None:
            if signal != "joined":
                listener.woken()

        return CompositeDisposable(
            self._engine.signals.subscribe(on_signal),
            self._cancelled.observable.subscribe(listener.cancelled),
        )

    @property
    def room(self) -> int | None:
        """None: it waits for signals."""
        return None

    @property
    def read(self) -> int:
        """0: nothing is handed over."""
        return 0

    async def claim(
        self,
        limit: int,
        ids: Sequence[str] | None,
        park: int,  # noqa: ARG002
        read: int,  # noqa: ARG002
    ) -> ClaimReply:
        """Sweep, and claim up to *limit* tasks, of *ids* if given."""
        return await self._engine.claim(limit, ids, self._kinds, self._worker, self._lease)

    async def confirm(
        self, held: Sequence[tuple[str, int]], lease: float, on_written: Callable[[], None]
    ) -> list[bool]:
        """Renew (id, token) pairs."""
        on_written()
        return await self._engine.renew(held, lease)

    async def leave(self) -> None:
        """Do nothing: nobody hands over."""
