"""``ActorRef``: the address of an actor."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from reactivex import Observable

from rxdispatch.errors import ItemTimeoutError, TaskRejectedError
from rxdispatch.home import Home
from rxdispatch.pipelines.actors.messages import ActorError, Mail
from rxdispatch.pipelines.shared.run import Run
from rxdispatch.seconds import seconds
from rxdispatch.streams import Ingress

__all__ = ["ActorRef"]


class ActorRef:
    """
    The address of an actor; anything on its loop may hold it, also after the actor has stopped.

    Messages of one sender are handled in the order in which they were sent.
    """

    def __init__(self, name: str, mailbox: Ingress[Mail], run: Run[ActorError]) -> None:
        self._name = name
        self._home = Home(f"actor {name!r}")
        self._home.check()
        self._mailbox = mailbox
        self._run = run

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<ActorRef {self._name!r} {state}>"

    @property
    def name(self) -> str:
        """The name of the actor."""
        return self._name

    @property
    def closed(self) -> bool:
        """Whether the actor takes no more messages."""
        return self._mailbox.closed

    @property
    def waiting(self) -> int:
        """How many messages wait in the mailbox."""
        return self._mailbox.waiting

    @property
    def failures(self) -> Observable[ActorError]:
        """
        The messages that the actor failed at, hot; completes when it has ended.

        Each is logged too, as ``actor_failed``. A subscriber that can make its source wait holds
        up the actor.
        """
        return self._run.failures.stream

    async def tell(self, message: Any) -> None:
        """
        Put *message* into the mailbox; wait while that is full.

        Raises:
            TaskRejectedError: If the actor has stopped, also while this waits.
        """
        await self._put(Mail(message))

    def offer(self, message: Any) -> bool:
        """
        Put *message* into the mailbox if it is not full, and return whether that was done.

        Raises:
            TaskRejectedError: If the actor has stopped.
        """
        self._home.check()
        if self.closed:
            raise self._run.refusal()
        return self._mailbox.offer(Mail(message))

    async def ask(self, message: Any, timeout: float | timedelta | None = 1.0) -> Any:
        """
        Put *message* into the mailbox, and return what the handler returns.

        If this runs out of time or is cancelled before the message has its turn, the handler
        never sees it; if later, the handler goes on, and nobody hears its answer. An actor that
        asks itself, or in a ring, waits until the time is up.

        Args:
            message: The message.
            timeout: Seconds, the wait for a place in the mailbox included; None for no limit.

        Raises:
            ActorError: If the handler raised; its error is the cause.
            ItemTimeoutError: If there is no answer in time.
            TaskRejectedError: If the actor has stopped, also while this waits.
        """
        self._home.check()
        limit = None if timeout is None else seconds("timeout", timeout, zero=False)
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        span = asyncio.timeout(limit)
        try:
            async with span:
                await self._put(Mail(message, reply))
                return await reply
        except TimeoutError:
            if not span.expired():
                raise
            name = f"a message to actor {self._name!r}"
            raise ItemTimeoutError(limit or 0.0, message, name) from None
        finally:
            # Whoever opens the mail later sees that nobody waits; and an answer that came
            # together with the end of the wait has been seen.
            if not reply.cancel() and not reply.cancelled():
                reply.exception()

    async def drain(self, timeout: float | timedelta | None = None) -> bool:
        """
        Take no more messages, and wait until those in the mailbox are handled.

        Called by the actor's own handler it would wait for itself: end with an error under
        ``supervision="stop"`` instead.

        Args:
            timeout: Seconds after which what is left is cancelled and refused; None waits as
                long as it takes.

        Returns:
            True if all was handled.
        """
        self._home.check()
        return await self._run.drain(timeout)

    async def _put(self, mail: Mail) -> None:
        self._home.check()
        try:
            await self._mailbox.put(mail)
        except TaskRejectedError:
            raise self._run.refusal() from None
