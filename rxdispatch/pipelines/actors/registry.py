"""``Actors``: those of a hub, by name."""

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

    Each is here from its start until it has ended, so that its name is free again only when
    nothing of it is at work any more, and so that nothing is kept of the ones that have ended.
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
            raise ConfigError("an actor of that name must be there", name)
        return actor.ref

    def start(self, name: str, handle: Any, **options: Any) -> ActorRef:
        """
        Start an actor.

        Raises:
            ConfigError: If an argument breaks its rule, or the name is taken by one that has not
                ended.
        """
        actor = Actor(name, handle, find=self.find, on_end=lambda: self._forget(name), **options)
        if name in self._actors:
            raise ConfigError("actors must have names that differ", name)
        ref = actor.start()
        self._actors[name] = actor
        return ref

    def _forget(self, name: str) -> None:
        self._actors.pop(name, None)

    async def drain(self, grace: float, hurry: asyncio.Event) -> None:
        """
        Let mailboxes be worked off for up to *grace* seconds, then cancel; *hurry* ends the wait.

        Actors tell one another, so all stay open until none has anything left to do.
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
            # Each by itself, and to the end: one that hangs on must not keep another from it.
            ends = [actor.cancel() for actor in self._actors.values()]
            await asyncio.gather(idle, hurried, *ends, return_exceptions=True)

    async def _idle(self) -> None:
        while any(actor.busy for actor in self._actors.values()):
            for actor in tuple(self._actors.values()):
                await actor.idle()
        # In the same turn, before anybody tells anything more.
        for actor in tuple(self._actors.values()):
            actor.close()
