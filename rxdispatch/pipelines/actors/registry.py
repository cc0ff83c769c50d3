"""``Actors``: the actors of a hub, by name."""

from __future__ import annotations

import asyncio
from typing import Any

from rxdispatch.errors import ConfigError
from rxdispatch.pipelines.actors.actor import Actor
from rxdispatch.pipelines.actors.ref import ActorRef

__all__ = ["Actors"]


class Actors:
    """
    The actors of a hub, by name.

    An actor is kept from its start until it has ended. So its name is free again only when nothing
    of the actor is at work, and ended actors take no memory.
    """

    def __init__(self) -> None:
        self._actors: dict[str, Actor] = {}

    def find(self, name: str) -> ActorRef:
        """
        Return the address of the actor of that name.

        Raises:
            ConfigError: If there is none.
        """
        actor = self._actors.get(name)
        if actor is None:
            raise ConfigError("name must be the name of an actor of this hub", name)
        return actor.ref

    def start(self, name: str, handle: Any, **options: Any) -> ActorRef:
        """
        Start an actor.

        Raises:
            ConfigError: If an argument breaks its rule, or an actor of that name has not ended.
        """
        actor = Actor(name, handle, find=self.find, on_end=lambda: self._forget(name), **options)
        if name in self._actors:
            raise ConfigError("actors must have distinct names", name)
        ref = actor.start()
        self._actors[name] = actor
        return ref

    def _forget(self, name: str) -> None:
        self._actors.pop(name, None)

    async def drain(self, grace: float, hurry: asyncio.Event) -> None:
        """
        Wait up to *grace* seconds for the mailboxes to empty, then cancel; *hurry* ends the wait.

        Actors send messages to each other, so all stay open until none has anything to do.
        """
        if not self._actors:
            return
        idle = asyncio.ensure_future(self._idle())
        hurried = asyncio.ensure_future(hurry.wait())
        try:
            await asyncio.wait({idle, hurried}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (idle, hurried):
                task.cancel()
            # All at once: an actor that hangs must not keep another from ending.
            ends = [actor.cancel() for actor in self._actors.values()]
            await asyncio.gather(idle, hurried, *ends, return_exceptions=True)

    async def _idle(self) -> None:
        while any(actor.busy for actor in self._actors.values()):
            for actor in tuple(self._actors.values()):
                await actor.idle()
        # In the same turn of the loop, before any actor can get another message.
        for actor in tuple(self._actors.values()):
            actor.close()
