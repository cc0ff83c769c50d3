"""``connect()`` and ``Hub``: a connection to a server, with its boards, nodes and actors."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload
from weakref import WeakSet

from rxdispatch.backoff import Backoff
from rxdispatch.boards.base import Board
from rxdispatch.boards.engine import Options
from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.boards.memory.engines import MemoryEngines
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


class Hub:
    """
    A connection to a server and the boards on it; made by :func:`connect`.

    Use it as an asynchronous context manager. When you leave the block normally, the hub stops
    claiming and gives running handlers ``settings.grace`` seconds; then it cancels them and gives
    their tasks back. Actors have the rest of that time to empty their mailboxes. An exception or a
    cancellation that leaves the block does the same without a grace period. Claims that nothing
    settles within two seconds after that are given back.
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
        self._boards: WeakSet[Board[Any]] = WeakSet()
        self._engines = MemoryEngines(self._boards)
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
        The URL at which another process reaches this hub's server, with the password as ``***``.

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
        remember: float | timedelta | None = None,
        dead_limit: int | None = None,
    ) -> Board[Any]: ...

    @overload
    def board(
        self,
        name: str,
        *,
        max_crashes: int | None = None,
        payload: type[P],
        remember: float | timedelta | None = None,
        dead_limit: int | None = None,
    ) -> Board[P]: ...

    def board(
        self,
        name: str,
        *,
        max_crashes: int | None = None,
        payload: type[Any] | None = None,
        remember: float | timedelta | None = None,
        dead_limit: int | None = None,
    ) -> Board[Any]:
        """
        Return a handle on the board with that name; the board need not exist yet.

        Args:
            name: 1 to 200 characters, without braces and control characters.
            max_crashes: How many workers a task may lose before it is dead; 3 by default.
            payload: The type that payloads are decoded into; None leaves them as plain values.
            remember: Seconds for which the id of a done task counts as a duplicate; 0 by default.
            dead_limit: How many dead letters the board keeps, the newest ones; 100,000 by default.

        Raises:
            ConfigError: If the hub is not open, or an argument breaks its rule.
        """
        self._require_open()
        board_name("name", name)
        options = Options.of(max_crashes, remember, dead_limit)
        board: Board[Any]
        if self._client is None or self._channels is None:
            engine = self._engines.engine(name)
            board = MemoryBoard(name, payload=payload, engine=engine, **options._asdict())
            self._engines.keep(name, engine)
        else:
            board = RedisBoard(
                name,
                client=self._client,
                channels=self._channels,
                namespace=self._namespace,
                options=options,
                payload=payload,
            )
        board._home.check()
        self._boards.add(board)
        return board

    @property
    def nodes(self) -> Registry:
        """
        The registry that writes the nodes of this namespace.

        Raises:
            ConfigError: If the hub is not open, or has no server.
        """
        return Registry(self._require_fleet())

    def feed(self) -> Feed:
        """
        Return a feed of this namespace's nodes, for use with ``async with``.

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
        queue_size: int = 100,
        supervision: Supervision = "resume",
        backoff: Backoff | None = None,
        next: ActorRef | str | None = None,  # noqa: A002
    ) -> ActorRef:
        """
        Start an actor and return its address.

        A name is known to this hub only, and is free again once its actor has ended.
        When the hub closes normally, actors stay open until every mailbox is empty and no handler
        runs, or until the grace period is over.

        Args:
            name: 1 to 200 characters.
            handle: The handler, as for :class:`Actor`, which explains the other arguments too.
            factory: A function that makes the handler; use it instead of *handle*.
            queue_size: How many messages may wait in its mailbox.
            supervision: ``"resume"``, ``"restart"`` or ``"stop"``.
            backoff: The waits before restarts, and how many restarts there may be in a row.
            next: The actor that receives the handler's results, or its name, even before it exists.

        Raises:
            ConfigError: If the hub is not open, an argument breaks its rule, or the name is taken.
        """
        self._require_open()
        return self._actors.start(
            name,
            handle,
            factory=factory,
            queue_size=queue_size,
            supervision=supervision,
            backoff=backoff,
            next=next,
        )

    def actor_ref(self, name: str) -> ActorRef:
        """
        Return the address of the actor with that name.

        Raises:
            ConfigError: If the hub is not open, or has no actor with that name.
        """
        # While the hub closes, handlers that still run may look each other up.
        if self._state != "closing":
            self._require_open()
        return self._actors.find(name)

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
        """Connect; without a URL, start the embedded server first."""
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
            # A service that restarts while the server is down can work from its snapshot.
            if self._settings.feed.snapshot_path is None:
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
                    # Giving claims back takes a moment and must run to its end.
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
        """Drain the boards, then the actors: handlers of boards may still send to actors."""
        clock = asyncio.get_running_loop().time
        until = clock() + grace
        # Separately: a board that fails must not stop another from giving its claims back.
        drains = [board._intakes.drain(grace, hurry) for board in tuple(self._boards)]
        drained = await asyncio.gather(*drains, return_exceptions=True)
        await self._actors.drain(max(0.0, until - clock()), hurry)
        return drained

    async def _close(self) -> None:
        self._state = "closed"
        # In reverse order; an error or a cancellation in one step leaves none of the others open.
        async with AsyncExitStack() as closing:
            if self._server is not None:
                closing.push_async_callback(self._server.stop)
            if self._client is not None:
                closing.push_async_callback(self._client.close)
            # Separately: an error of one feed must not cut the wait for another short.
            closed = await asyncio.gather(
                *(feed.close() for feed in tuple(self._feeds)), return_exceptions=True
            )
            if self._channels is not None:
                await self._channels.close()
            for result in closed:
                if isinstance(result, Exception):
                    raise result


def connect(
    url: str | None = None,
    *,
    namespace: str = "rxd",
    data_dir: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
) -> Hub:
    """
    Return a hub, for use with ``async with``.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://`` or ``memory://``. None means
            ``$RXDISPATCH_URL`` or, if that is not set, an embedded server that lives as long as
            the block.
        namespace: The prefix of all keys, for applications that share a server; without braces,
            spaces, control characters or characters that are special in patterns.
        data_dir: The folder of the embedded server's data; not together with *url*. Treat it like
            code: its files can make the server run anything, so keep it where only you can write.
            A folder that another user owns or can write, or that holds such files, is refused.
        settings: Timeouts and limits.

    Raises:
        ConfigError: If an argument breaks its rule, at the call. On entry: for a wrong password, a
            missing server program, or a *data_dir* that cannot be used.
        StoreUnavailableError: On entry, if the server does not answer. With
            ``FeedSettings.snapshot_path`` the hub opens nevertheless; feeds work from that file.

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
