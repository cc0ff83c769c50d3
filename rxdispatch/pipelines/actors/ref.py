"""``ActorRef``: the address of an actor."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from reactivex import Observable

from rxdispatch.errors import TaskRejectedError
from rxdispatch.home import Home
from rxdispatch.operators._timeout import run_with_timeout
from rxdispatch.pipelines.actors.messages import ActorError, Mail
from rxdispatch.pipelines.shared.run import Run
from rxdispatch.seconds import seconds
from rxdispatch.streams import Ingress

__all__ = ["ActorRef"]


class ActorRef:
    """
    The address of an actor, to send it messages; usable anywhere on the actor's loop.

    Messages of one sender are handled in the order in which they were sent. An address stays valid
    when its actor has ended, and then refuses messages.
    """

    def __init__(self, name: str, mailbox: Ingress[Mail], run: Run[ActorError]) -> None:
        self._name = name
        self._home = Home(f"actor {name!r}")
        self._home.check()
        self._mailbox = mailbox
        self._run = run
        self._message = f"a message to actor {name!r}"

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<ActorRef {self._name!r} {state}>"

    @property
    def name(self) -> str:
        """The name of the actor."""
        return self._name

    @property
    def closed(self) -> bool:
        """Whether the actor accepts no more messages."""
        return self._mailbox.closed

    @property
    def waiting(self) -> int:
        """How many messages wait in the mailbox."""
        return self._mailbox.waiting

    @property
    def failures(self) -> Observable[ActorError]:
        """
        The messages that the actor failed to handle; hot, and completes when it has ended.

        A failure is also logged, as ``actor_failed``, or as ``message_refused`` if the actor was
        closed. A subscriber that applies back-pressure holds up the actor.
        """
        return self._run.failures.stream

    async def tell(self, message: Any) -> None:
        """
        Put *message* into the mailbox; wait while that is full.

        Raises:
            TaskRejectedError: If the actor is closed, or closes while this waits.
        """
        await self._put(Mail(message))

    def offer(self, message: Any) -> bool:
        """
        Put *message* into the mailbox unless that is full; return whether it was put in.

        Raises:
            TaskRejectedError: If the actor is closed.
        """
        self._home.check()
        if self.closed:
            raise self._run.refusal()
        return self._mailbox.offer(Mail(message))

    async def ask(self, message: Any, timeout: float | timedelta | None = 1.0) -> Any:
        """
        Put *message* into the mailbox, and return what the handler returns.

        If this times out or is cancelled before the handler gets the message, the handler never
        gets it. If the handler has it already, the handler goes on, and its answer is dropped. An
        actor that asks itself, directly or through others, waits until the timeout.

        Args:
            message: The message.
            timeout: Seconds, including the wait for a place in the mailbox; None for no limit.

        Raises:
            ActorError: If the handler raised; its error is the cause.
            ItemTimeoutError: If there is no answer in time.
            TaskRejectedError: If the actor is closed, closes while this waits for a place in the
                mailbox, or ends before it has handled the message.
        """
        self._home.check()
        limit = None if timeout is None else seconds("timeout", timeout, zero=False)
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            answer = self._answer(Mail(message, reply), reply)
            return await run_with_timeout(answer, message, limit, name=self._message)
        finally:
            # The actor skips a message whose reply is cancelled. An error that arrived just as the
            # wait ended is read here, so that asyncio does not log it as never retrieved.
            if not reply.cancel() and not reply.cancelled():
                reply.exception()

    async def drain(self, timeout: float | timedelta | None = None) -> bool:
        """
        Accept no more messages, and wait until those in the mailbox are handled.

        The actor's own handler must not call this, because it would wait for itself. To end the
        actor from its handler, raise an error under ``supervision="stop"``.

        Args:
            timeout: Seconds after which the handler is cancelled and the remaining messages are
                refused; None waits as long as it takes.

        Returns:
            True if all messages were handled.
        """
        self._home.check()
        return await self._run.drain(timeout)

    async def _answer(self, mail: Mail, reply: asyncio.Future[Any]) -> Any:
        await self._put(mail)
        return await reply

    async def _put(self, mail: Mail) -> None:
        self._home.check()
        try:
            await self._mailbox.put(mail)
        except TaskRejectedError:
            raise self._run.refusal() from None
