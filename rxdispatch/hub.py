"""``connect()`` and ``Hub``: where servers, boards and their lifetimes come together."""

from __future__ import annotations

import asyncio
import os
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload
from weakref import WeakSet

from rxdispatch.backoff import Backoff
from rxdispatch.boards.base import Board
from rxdispatch.boards.engine import Options
from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.boards.memory.engine import MemoryEngine
from rxdispatch.boards.redis.board import RedisBoard
from rxdispatch.checks import board_name, namespace_name
from rxdispatch.config import Settings
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.home import Home
from rxdispatch.log import get_logger
from rxdispatch.nodes.engine import FleetEngine
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.nodes.registry import Registry
from rxdispatch.pipelines.actors.messages import Factory, Handle, Supervision
from rxdispatch.pipelines.actors.ref import ActorRef
from rxdispatch.pipelines.actors.registry import Actors
from rxdispatch.store.client import Client
from rxdispatch.store.embedded.server import EmbeddedServer
from rxdispatch.store.pubsub.channels import Channels
from rxdispatch.store.url import Target, parse_url

__all__ = ["Hub", "connect"]

P = TypeVar("P")

log = get_logger(__name__)

_UNOPENED: Final = "hub must be open; use it with 'async with'"


MANY_ENGINES: Final = 1000
"""Boards in memory, at least, from which on the ones that nobody uses are forgotten."""


class Hub:
    """
    A connection to a server, and the boards on it; made by :func:`connect`.

    Use it as an asynchronous context manager. Leaving the block normally stops all claims and
    gives running handlers ``settings.grace`` seconds, then cancels them and gives their tasks
    back; actors have what is left of that time to work off their mailboxes. Leaving it by an
    exception or a cancellation does that at once; claims that nobody settles are given back after
    two seconds.
    """

    def __init__(
        self,
        target: Target | None,
        namespace: str,
        data_dir: str | os.PathLike[str] | None,
        settings: Settings,
    ) -> None:
        self._target = target
        self._namespace = namespace
        self._data_dir = data_dir
        self._settings = settings
        self._server: EmbeddedServer | None = None
        self._client: Client | None = None
        self._channels: Channels | None = None
        self._engines: dict[str, MemoryEngine] = {}
        self._most_engines = MANY_ENGINES
        self._boards: WeakSet[Board[Any]] = WeakSet()
        self._actors = Actors()
        self._fleet: FleetEngine | None = None
        self._feeds: WeakSet[Feed] = WeakSet()
        self._state = "new"
        self._home = Home("hub")

    def __repr__(self) -> str:
        where = "embedded" if self._target is None else self._target.safe
        return f"<Hub {where} {self._state}>"

    @property
    def client(self) -> Client:
        """
        The client of this hub's server.

        Raises:
            ConfigError: If the hub is not open, or has no server.
        """
        if self._client is None or self._state == "closed":
            raise ConfigError("hub must be open and connected to a server", self._state)
        return self._client

    @property
    def url(self) -> str:
        """
        The URL by which another process can reach this hub's server; its password is ``***``.

        Raises:
            ConfigError: If the hub is not open.
        """
        if self._target is None or self._state in ("new", "opening", "closed"):
            raise ConfigError(_UNOPENED, self._state)
        return self._target.safe

    @overload
    def board(
        self,
        name: str,
        *,
        max_crashes: int | None = None,
        payload: None = None,
        remember: float | None = None,
        dead_limit: int | None = None,
    ) -> Board[Any]: ...

    @overload
    def board(
        self,
        name: str,
        *,
        max_crashes: int | None = None,
        payload: type[P],
        remember: float | None = None,
        dead_limit: int | None = None,
    ) -> Board[P]: ...

    def board(
        self,
        name: str,
        *,
        max_crashes: int | None = None,
        payload: type[Any] | None = None,
        remember: float | None = None,
        dead_limit: int | None = None,
    ) -> Board[Any]:
        """
        Return a handle on the board of that name, which need not exist yet.

        Args:
            name: 1 to 200 characters, without braces and control characters.
            max_crashes: How often a task may outlive its worker before it is dead; 3 if no
                handle gives it.
            payload: A type to decode payloads into; plain values when None.
            remember: Seconds for which the id of a done task may not come again; 0.
            dead_limit: How many dead tasks are kept, the oldest go first; 100,000.

        Raises:
            ConfigError: If the hub is not open, or an argument breaks its rule.
        """
        self._require_open()
        board_name("name", name)
        options = Options(max_crashes, remember, dead_limit).checked()
        board: Board[Any]
        if self._client is None or self._channels is None:
            if len(self._engines) >= self._most_engines:
                self._forget_engines()
            engine = self._engines.get(name) or MemoryEngine()
            board = MemoryBoard(
                name,
                max_crashes=max_crashes,
                payload=payload,
                remember=remember,
                dead_limit=dead_limit,
                engine=engine,
            )
            self._engines[name] = engine
        else:
            board = RedisBoard(
                name,
                client=self._client,
                channels=self._channels,
                namespace=self._namespace,
                options=options,
                payload=payload,
            )
        board.home.check()
        self._boards.add(board)
        return board

    def _forget_engines(self) -> None:
        """Drop what is kept of boards in memory that have no handle and hold nothing."""
        used = {board.name for board in self._boards}
        for name in [name for name, engine in self._engines.items() if engine.unused]:
            if name not in used:
                del self._engines[name]
        # As many again before the next look, so that each board pays for its own.
        self._most_engines = max(MANY_ENGINES, 2 * len(self._engines))

    @property
    def nodes(self) -> Registry:
        """
        The registry of this namespace's nodes, to write to.

        Raises:
            ConfigError: If the hub is not open, or has no server.
        """
        return Registry(self._require_fleet())

    def feed(self) -> Feed:
        """
        Return a feed of this namespace's nodes, to be used with ``async with``.

        Raises:
            ConfigError: If the hub is not open, or has no server.
        """
        fleet = self._require_fleet()
        assert self._channels is not None
        assert self._target is not None
        feed = Feed(
            fleet,
            self._channels,
            self._settings.feed,
            limit=self._settings.store.timeout,
            name=f"{self._target.safe} {self._namespace}",
        )
        self._feeds.add(feed)
        return feed

    def actor(
        self,
        name: str,
        handle: Handle | None = None,
        *,
        factory: Factory | None = None,
        mailbox: int = 100,
        supervision: Supervision = "resume",
        backoff: Backoff | None = None,
        next: ActorRef | str | None = None,  # noqa: A002
    ) -> ActorRef:
        """
        Start an actor; or, without *handle* and *factory*, return the address of the one there is.

        Names are those of this hub, in this process; the name of an actor is free again once it has
        ended, as when ``await ref.stop()`` has returned. When the hub closes normally, all stay
        open until no mailbox holds anything and nothing is at work, or the grace is over.

        Args:
            name: 1 to 200 characters.
            handle: As for :class:`Actor`, like the others.
            factory: Instead of *handle*, makes it.
            mailbox: How many messages may wait.
            supervision: ``"resume"``, ``"restart"`` or ``"stop"``.
            backoff: The waits before restarts, and how many there may be in a row.
            next: The actor that is told what the handler returns; a name may be that of one that
                comes later.

        Raises:
            ConfigError: If the hub is not open, an argument breaks its rule, the name is taken, or
                there is none of that name.
        """
        # Those that are still at work while the hub closes may look for one another.
        if handle is None and factory is None and self._state == "closing":
            return self._actors.find(name)
        self._require_open()
        if handle is None and factory is None:
            return self._actors.find(name)
        return self._actors.start(
            name,
            handle,
            factory=factory,
            mailbox=mailbox,
            supervision=supervision,
            backoff=backoff,
            next=next,
        )

    def _require_open(self) -> None:
        if self._state != "open":
            raise ConfigError(_UNOPENED, self._state)
        self._home.check()

    def _require_fleet(self) -> FleetEngine:
        self._require_open()
        if self._fleet is None:
            raise ConfigError("nodes must have a server", "memory://")
        return self._fleet

    async def __aenter__(self) -> Self:
        """Start the embedded server if there is no other, and connect."""
        if self._state != "new":
            raise ConfigError("hub must be entered once", self._state)
        self._home.check()
        self._state = "opening"
        try:
            if self._target is None:
                self._server = await EmbeddedServer.start(
                    self._data_dir, timeout=self._settings.store.start_timeout
                )
                self._target = self._server.target
            if self._target.scheme != "memory":
                self._client = Client(self._target, self._settings.store)
                await self._reach(self._client)
                self._channels = Channels(self._client)
                self._fleet = FleetEngine(self._client, self._namespace, self._settings.feed)
        except BaseException:
            await self._close()
            raise
        self._state = "open"
        return self

    async def _reach(self, client: Client) -> None:
        try:
            await client.open()
        except StoreUnavailableError as error:
            # A service that was started again while the server is away has the snapshot.
            if self._settings.feed.snapshot is None:
                raise
            log.warning("hub_opened_without_server", error=str(error))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drain the boards and disconnect."""
        self._home.check()
        self._state = "closing"
        grace = self._settings.grace if error is None else 0.0
        hurry = asyncio.Event()
        drained = asyncio.ensure_future(self._drain(grace, hurry))
        cancelled: asyncio.CancelledError | None = None
        try:
            while not drained.done():
                try:
                    await asyncio.shield(drained)
                except asyncio.CancelledError as reason:
                    # Giving back takes a moment, and is not to be cut short.
                    cancelled = reason
                    hurry.set()
        finally:
            await self._close()
        if cancelled is not None:
            raise cancelled
        for result in drained.result():
            if isinstance(result, Exception) and error is None:
                raise result

    async def _drain(self, grace: float, hurry: asyncio.Event) -> list[BaseException | None]:
        """Drain the boards, whose handlers may tell actors; then these."""
        clock = asyncio.get_running_loop().time
        until = clock() + grace
        # Each by itself: one that fails must not keep another from giving back.
        drained = await asyncio.gather(
            *(board.drain(grace, hurry) for board in tuple(self._boards)), return_exceptions=True
        )
        await self._actors.drain(max(0.0, until - clock()), hurry)
        return drained

    async def _close(self) -> None:
        self._state = "closed"
        # Cancelled at one of these, the others must still be closed.
        try:
            # Each by itself: what one raises must not keep another from being waited for.
            closed = await asyncio.gather(
                *(feed.close() for feed in tuple(self._feeds)), return_exceptions=True
            )
            if self._channels is not None:
                await self._channels.close()
            for result in closed:
                if isinstance(result, Exception):
                    raise result
        finally:
            try:
                if self._client is not None:
                    await self._client.close()
            finally:
                if self._server is not None:
                    await self._server.stop()


def connect(
    url: str | None = None,
    *,
    namespace: str = "rxd",
    data_dir: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
) -> Hub:
    """
    Return a hub to be used with ``async with``.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://`` or ``memory://``; None means
            ``$RXDISPATCH_URL``, else a server of our own that lives as long as the block.
        namespace: What the names of keys begin with, so that several applications can share a
            server; without braces, spaces, control characters and what is special in patterns.
        data_dir: Where our own server keeps its data; only when there is no url. It is code: what
            is in it can make the server run anything, so keep it where only you write. A folder,
            or data in it, that belongs to another user or that others can write is refused.
        settings: Limits in time and number.

    Raises:
        ConfigError: If an argument breaks its rule, at once; on entry a wrong password, no program
            for a server of our own, or a *data_dir* that cannot be used.
        StoreUnavailableError: On entry, if the server does not answer. With
            ``FeedSettings.snapshot`` the hub opens all the same, so that feeds can work from it.

    Example:
        >>> import asyncio
        >>> from rxdispatch.task import Task
        >>> async def main() -> int:
        ...     async with connect("memory://") as hub:
        ...         board = hub.board("jobs")
        ...         await board.submit(Task("hello"))
        ...         return (await board.counts()).ready
        >>> asyncio.run(main())
        1
    """
    namespace_name("namespace", namespace)
    if settings is not None and not isinstance(settings, Settings):
        raise ConfigError("settings must be a Settings object", settings)
    if url is None and data_dir is None:
        url = os.environ.get("RXDISPATCH_URL") or None
    if url is not None and data_dir is not None:
        raise ConfigError("data_dir must be given without a url")
    target = None if url is None else parse_url(url)
    return Hub(target, namespace, data_dir, settings or Settings())
