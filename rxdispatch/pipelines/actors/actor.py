"""``Actor``: one mailbox, one handler, one message at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

from rxdispatch.backoff import Backoff
from rxdispatch.checks import integer, key_name
from rxdispatch.clock import LoopScheduler
from rxdispatch.error_text import describe
from rxdispatch.errors import ConfigError
from rxdispatch.log import get_logger
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.pipelines.actors.messages import (
    ActorError,
    Factory,
    Handle,
    Mail,
    Supervision,
    checked_behaviour,
    checked_handle,
)
from rxdispatch.pipelines.actors.ref import ActorRef
from rxdispatch.pipelines.shared.outside import is_from_outside
from rxdispatch.pipelines.shared.run import Run
from rxdispatch.streams import Ingress

__all__ = ["Actor"]

log = get_logger(__name__)


class Actor:
    """
    A handler that owns its state and gets messages one by one, in order.

    Use it with ``async with``, which returns its :class:`ActorRef`, or start one by name with
    ``hub.actor``. Leaving the block normally waits until the messages in the mailbox are handled.
    Leaving it by an exception, or by cancellation, cancels the handler, refuses the remaining
    messages, and waits for the handler to end.

    Args:
        name: 1 to 200 characters.
        handle: A coroutine function, or an object with an async ``__call__``; called with each
            message.
        factory: Instead of *handle*: a class or plain function that returns the handler, called
            without arguments at the start and at each restart.
        queue_size: How many messages may wait, at least 1.
        supervision: What happens when the handler raises. ``"resume"`` goes on with the next
            message; ``"restart"`` does so with a new handler from *factory*, after the wait of
            *backoff*; ``"stop"`` ends the actor. In each case the error is logged, emitted by
            ``failures`` and raised by ``ask``, and the message is not handled again.
        backoff: The waits before restarts; its ``attempts`` limit the failures in a row, after
            which the actor ends.
        next: The actor that gets what the handler returns, unless that is None; given by its ref,
            or inside a hub by its name. While the mailbox of *next* is full, this actor waits, so a
            ring of actors with full mailboxes deadlocks. A result that cannot be delivered is a
            failure, but *supervision* ignores it.
        find: Returns the address of the actor of a given name; a hub passes it.
        on_end: Called once the actor has ended: it is closed, and its handler has returned.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> async def greet(name: str) -> str:
        ...     return f"hello {name}"
        >>> async def main() -> str:
        ...     async with Actor("greeter", greet) as ref:
        ...         await ref.tell("you")
        ...         return await ref.ask("there")
        >>> asyncio.run(main())
        'hello there'
    """

    def __init__(
        self,
        name: str,
        handle: Handle | None = None,
        *,
        factory: Factory | None = None,
        queue_size: int = 100,
        supervision: Supervision = "resume",
        backoff: Backoff | None = None,
        next: ActorRef | str | None = None,  # noqa: A002
        find: Callable[[str], ActorRef] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._name = key_name("name", name)
        self._make = checked_behaviour(handle, factory, supervision)
        integer("queue_size", queue_size)
        if backoff is not None and not isinstance(backoff, Backoff):
            raise ConfigError("backoff must be a Backoff or None", backoff)
        if isinstance(next, str) and find is None:
            raise ConfigError("next must be an ActorRef outside of a hub", next)
        if next is not None and not isinstance(next, (str, ActorRef)):
            raise ConfigError("next must be an ActorRef, a name or None", next)
        self._supervision = supervision
        self._backoff = backoff or Backoff()
        self._next = next
        self._find = find
        self._on_end = on_end
        self._mailbox: Ingress[Mail] = Ingress(queue_size)
        self._run: Run[ActorError] = Run(
            f"the actor {name!r}", close=self._mailbox.close, finish=self._finish
        )
        self._wait_group = self._run.wait_group
        self._began = self._failed_in_a_row = 0
        self._current: Mail | None = None
        self._reported = False
        self._handle: Handle | None = None
        #: Its address.
        self.ref = ActorRef(name, self._mailbox, self._run)

    # ------------------------------------------------ lifetime

    def start(self) -> ActorRef:
        """
        Start to handle messages, on the running loop.

        Raises:
            ConfigError: If it was started before, or *factory* returns no handler.
        """
        handle = None if self._run.entered else checked_handle("result of factory", self._make())
        self._run.enter()
        self._handle = handle
        loop = asyncio.get_running_loop()
        one_by_one = map_async(self._begin, max_concurrent=1)
        self._subscription = self._mailbox.pipe(self._run.failures.throttle, one_by_one).subscribe(
            on_error=self._fail, on_completed=self._run.finish, scheduler=LoopScheduler(loop)
        )
        return self.ref

    async def __aenter__(self) -> ActorRef:
        return self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._run.leave(error)

    @property
    def busy(self) -> bool:
        """Whether a message waits or is at work."""
        return not self._run.ending and (self._mailbox.waiting > 0 or self._current is not None)

    async def idle(self) -> None:
        """Wait until the mailbox is empty and nothing is at work, or the actor has ended."""
        await self._mailbox.wait_empty()
        # A message that was just taken out begins with the next turn of the loop.
        await asyncio.sleep(0)
        await self._wait_group.wait()

    def close(self) -> None:
        """Take no more messages; may be called again."""
        self._run.close()

    async def cancel(self) -> None:
        """Cancel the message at work, refuse the others, and wait for the handler to end."""
        self._run.abort(self._run.refusal())
        await self._run.wait()

    def _fail(self, error: Exception) -> None:
        """End because of an error that belongs to no message."""
        log.error("actor_stopped", actor=self._name, failure=error)
        self._run.abort(error)

    def _finish(self, _: Exception | None) -> None:
        self._subscription.dispose()
        self._run.close()
        # A message whose failure is reported waits only for the restart of its actor.
        if self._current is not None and not self._reported:
            self._refuse(self._current)
        # Refuses the rest of the mailbox; it is closed, so this ends with the next turn.
        self._mailbox.subscribe(self._refuse, on_completed=self._conclude)

    def _conclude(self) -> None:
        self._run.conclude()
        try:
            self._run.failures.end()
        finally:
            self._check_ended()

    def _check_ended(self) -> None:
        """Call *on_end*, once, if nothing of the actor is at work any more."""
        if self._on_end is not None and self._run.ended and not self._wait_group.active:
            on_end, self._on_end = self._on_end, None
            on_end()

    # ------------------------------------------------ messages

    def _begin(self, mail: Mail) -> Coroutine[Any, Any, None]:
        # This is not in the coroutine, because that may be cancelled before it begins.
        self._current = mail
        self._reported = False
        self._name_it(mail)
        return self._work(mail)

    def _name_it(self, mail: Mail) -> None:
        self._began += 1
        mail.id = f"{self._name}/{self._began}"

    async def _work(self, mail: Mail) -> None:
        self._wait_group.active += 1
        try:
            if self._handle is None:
                self._refuse(mail)
            elif mail.reply is None or not mail.reply.done():
                await self._turn(mail, self._handle)
        finally:
            self._current = None
            self._wait_group.done()
            self._check_ended()

    async def _turn(self, mail: Mail, handle: Handle) -> None:
        try:
            answer = await handle(mail.message)
        except BaseException as error:
            if self._run.aborted:
                raise
            if is_from_outside(error):
                self._refuse(mail)
                raise
            self._reported = True
            self._report(mail, error)
            if isinstance(error, KeyboardInterrupt):
                self._stop()
                raise  # it is meant for the process
            await self._supervise()
            return
        self._failed_in_a_row = 0
        if mail.reply is not None and not mail.reply.done():
            mail.reply.set_result(answer)
        if self._next is not None and answer is not None:
            try:
                await self._pass_on(self._next, answer)
            except Exception as error:
                self._report(mail, error)

    async def _pass_on(self, following: ActorRef | str, answer: Any) -> None:
        if isinstance(following, str):
            assert self._find is not None
            following = self._find(following)
        await following.tell(answer)

    # ------------------------------------------------ failures

    def _report(self, mail: Mail, error: BaseException) -> None:
        failure = ActorError(mail.id, self._name, mail.message)
        failure.__cause__ = error
        asked = mail.reply is not None and not mail.reply.done()
        received = asked or self._run.failures.open
        log.warning(
            "actor_failed",
            actor=self._name,
            message=mail.id,
            supervision=self._supervision,
            # If a caller or a subscriber gets the error itself, the log needs no traceback.
            **({"error": describe(error)} if received else {"failure": error}),
        )
        if mail.reply is not None and asked:
            mail.reply.set_exception(failure)
        self._run.failures.emit(failure)

    def _refuse(self, mail: Mail) -> None:
        """Report that *mail* is not handled, because the actor is closed."""
        refusal = self._run.refusal()
        if mail.reply is not None:
            if not mail.reply.done():
                mail.reply.set_exception(refusal)
            return
        if not mail.id:
            self._name_it(mail)
        failure = ActorError(mail.id, self._name, mail.message)
        failure.__cause__ = refusal
        log.warning("message_refused", actor=self._name, message=mail.id)
        self._run.failures.emit(failure)

    async def _supervise(self) -> None:
        if self._supervision == "stop":
            self._stop()
        while self._supervision == "restart" and not self._run.aborted:
            self._failed_in_a_row += 1
            if not self._backoff.goes_on(self._failed_in_a_row):
                self._stop()
                return
            await asyncio.sleep(self._backoff.delay(self._failed_in_a_row))
            try:
                self._handle = checked_handle("result of factory", self._make())
            except KeyboardInterrupt:
                self._stop()
                raise
            except BaseException as error:
                log.warning("actor_not_restarted", actor=self._name, failure=error)
            else:
                return

    def _stop(self) -> None:
        """Handle no more messages; waiting messages are taken out and refused."""
        log.warning("actor_stopped", actor=self._name, error="")
        self._handle = None
        self._run.close()
