"""``rxdispatch nodes watch``: shows a fleet through a feed of this process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.live import Live

from rxdispatch.checks import key_name
from rxdispatch.cli.json_lines import JsonLines, as_json
from rxdispatch.cli.nodes.fleet_table import MARGIN, headline, show_fleet
from rxdispatch.cli.nodes.fleet_view import FleetView, Sort, change_document, node_document
from rxdispatch.cli.nodes.observed import Observed, of_pool
from rxdispatch.cli.until import Until
from rxdispatch.errors import ConfigError
from rxdispatch.hub import Hub, connect
from rxdispatch.node import NodeChange
from rxdispatch.nodes.feed.feed import Feed

__all__ = ["watch"]

_FRAME: Final = 0.25
"""The minimum seconds between two updates of the screen."""

_LINE_EVERY: Final = 2.0
"""The minimum seconds between two lines if stdout is not a terminal."""

_TICK: Final = 1.0
"""Seconds after which ages are updated when nothing changes."""

# Drawing a very large fleet takes at most this fraction of the time.
_SHARE: Final = 0.2


def watch(
    *,
    url: str | None,
    namespace: str,
    pool: str | None,
    once: bool,
    json: bool,
    sort: Sort,
) -> None:
    """
    Show a fleet until a signal comes, or once.

    Raises:
        ConfigError: If an argument breaks its rule, or there is no url.
        StoreUnavailableError: If the server does not answer at the start.
    """
    url = url or os.environ.get("RXDISPATCH_URL") or None
    if url is None:
        raise ConfigError(
            "watch must have a server: give --url or set RXDISPATCH_URL"
            " ('rxdispatch nodes simulate' starts one and prints its url)"
        )
    if pool is not None:
        key_name("pool", pool)
    asyncio.run(_run(url, namespace, _FleetPrinter(pool, sort), once=once, json=json))


async def _run(url: str, namespace: str, watcher: _FleetPrinter, *, once: bool, json: bool) -> None:
    with Until() as until:
        async with (
            until.stopped(),
            connect(url, namespace=namespace) as hub,
            _listening(hub) as feed,
        ):
            if once:
                watcher.once(feed, json=json)
            elif json:
                await watcher.lines(feed)
            else:
                await watcher.live(feed)


def _listening(hub: Hub) -> Feed:
    """Return a feed that records the time of each node's last heartbeat."""
    feed = hub.feed()
    feed.keep_heartbeats()
    return feed


class _FleetPrinter:
    """Shows a feed: once, as JSON lines or live."""

    def __init__(self, pool: str | None, sort: Sort) -> None:
        self._pool = pool
        self._sort: Sort = sort
        # Output to a file or a pipe is not cut to the width of a screen.
        self._console = Console(width=None if sys.stdout.isatty() else 1000)

    def once(self, feed: Feed, *, json: bool) -> None:
        """Print the current fleet."""
        now = asyncio.get_running_loop().time()
        view = self._look(feed, Observed(now), None)
        if json:
            print(as_json(view.document(), indent=2))
        else:
            self._console.print(show_fleet(view, self._console))

    async def lines(self, feed: Feed) -> None:
        """
        Print a line for each node, a line that marks their end, and a line for each change.

        A slow reader gets only the newest change of each node.
        """
        out = JsonLines(sys.stdout.fileno())
        waiting: dict[str | None, NodeChange] = {}
        woken = asyncio.Event()

        def came(whole: NodeChange) -> None:
            change = of_pool(whole, self._pool)
            if change is not None:
                name = None if change.node is None else change.node.id
                # Moved to the end: a change after "synced" must not be printed before it.
                waiting.pop(name, None)
                waiting[name] = change
                woken.set()

        subscription = feed.changes.subscribe(came)
        try:
            nodes = feed.nodes(self._pool)
            await out.write(
                {"kind": "added", "epoch": None, "seq": node.seq, "node": node_document(node)}
                for node in nodes
            )
            upto = max((node.seq for node in nodes), default=0)
            await out.write([{"kind": "synced", "epoch": None, "seq": upto, "node": None}])
            while True:
                await woken.wait()
                woken.clear()
                changes = [*waiting.values()]
                waiting.clear()
                await out.write(map(change_document, changes))
        finally:
            subscription.dispose()

    async def live(self, feed: Feed) -> None:
        """Show the fleet if stdout is a terminal, else print a line after changes."""
        if not self._console.is_terminal:

            def say(view: FleetView) -> None:
                self._console.print(headline(view), soft_wrap=True)
                sys.stdout.flush()

            await self._follow(feed, say, _LINE_EVERY, rows=False)
            return
        with Live(console=self._console, screen=True, auto_refresh=False) as screen:

            def draw(view: FleetView) -> None:
                screen.update(show_fleet(view, self._console), refresh=True)

            await self._follow(feed, draw, _FRAME, rows=True)

    async def _follow(
        self, feed: Feed, show: Callable[[FleetView], None], pause: float, *, rows: bool
    ) -> None:
        """Show each view that differs from the last one shown, with a pause in between."""
        clock = asyncio.get_running_loop().time
        observed = Observed(clock())
        changed = asyncio.Event()

        def came(whole: NodeChange) -> None:
            change = of_pool(whole, self._pool)
            if change is not None:
                observed.record(change, clock())
                changed.set()

        subscriptions = (
            feed.changes.subscribe(came),
            feed.modes.subscribe(lambda _: changed.set()),
        )
        shown: FleetView | None = None
        try:
            while True:
                began = clock()
                changed.clear()
                most = max(1, self._console.size.height - MARGIN) if rows else 0
                view = self._look(feed, observed, most)
                if view != shown:
                    show(view)
                    shown = view
                await asyncio.sleep(max(pause, (clock() - began) / _SHARE))
                try:
                    async with asyncio.timeout(_TICK):
                        await changed.wait()
                except TimeoutError:
                    pass
        finally:
            for subscription in subscriptions:
                subscription.dispose()

    def _look(self, feed: Feed, observed: Observed, most: int | None) -> FleetView:
        now = asyncio.get_running_loop().time()
        return FleetView.of(feed, observed, now, pool=self._pool, sort=self._sort, most=most)
