"""``rxdispatch top``: shows the boards and nodes of a server, live."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from rxdispatch.checks import board_name, integer
from rxdispatch.cli.exits import exit_codes
from rxdispatch.cli.json_lines import JsonLines, as_json
from rxdispatch.cli.top.table import show_top, top_line
from rxdispatch.cli.top.view import BoardRow, TopView, pools_of
from rxdispatch.cli.top.watched_board import WatchedBoard
from rxdispatch.cli.until import Until
from rxdispatch.cli.url_option import url_option
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.hub import connect
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.seconds import seconds

__all__ = ["top"]

_AGAIN: Final = 0.3
"""Seconds after which ``--once`` reads a second time, to compute rates."""


@click.command()
@click.argument("boards", nargs=-1)
@url_option("Server with the boards: redis://, rediss:// or unix://")
@click.option(
    "--namespace", default="rxd", show_default=True, metavar="NAME", help="Prefix of the keys."
)
@click.option("--once", is_flag=True, help="Print the current state and exit.")
@click.option("--json", "as_lines", is_flag=True, help="Print a JSON line for each reading.")
@click.option(
    "--interval",
    type=float,
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two readings.",
)
@click.option(
    "--kinds",
    type=int,
    default=10,
    show_default=True,
    metavar="N",
    help="Show the N kinds of tasks of each board with the most unfinished tasks; 0 for none.",
)
def top(
    boards: tuple[str, ...],
    url: str | None,
    namespace: str,
    once: bool,
    as_lines: bool,
    interval: float,
    kinds: int,
) -> None:
    """
    Show BOARDS, and the nodes of the fleet if there is one, until Ctrl-C.

    Name the boards: a server keeps no list of them, and a search through all keys would block it.
    If the output is a file or a pipe, it gets a line after each change.
    """
    with exit_codes():
        url = url or os.environ.get("RXDISPATCH_URL") or None
        if url is None:
            raise ConfigError("top must have a server: give --url or set RXDISPATCH_URL")
        for board in boards:
            board_name("board", board)
        pause = seconds("interval", interval, zero=False)
        integer("kinds", kinds, 0)
        names = tuple(dict.fromkeys(boards))
        asyncio.run(_run(url, namespace, names, pause, kinds, once=once, as_lines=as_lines))


async def _run(
    url: str,
    namespace: str,
    names: Sequence[str],
    pause: float,
    kinds: int,
    *,
    once: bool,
    as_lines: bool,
) -> None:
    with Until() as until:
        async with (
            until.stopped(),
            connect(url, namespace=namespace) as hub,
            hub.feed() as feed,
        ):
            readings = _Readings([WatchedBoard(hub.board(name), kinds) for name in names], feed)
            # Output to a file or a pipe is not cut to the width of a screen.
            console = Console(width=None if sys.stdout.isatty() else 1000)
            if once:
                await _once(readings, console, as_lines=as_lines)
            elif as_lines:
                out = JsonLines(sys.stdout.fileno())
                while True:
                    await out.write([(await readings.read()).document()])
                    await asyncio.sleep(pause)
            elif console.is_terminal:
                with Live(console=console, screen=True, auto_refresh=False) as screen:
                    while True:
                        screen.update(show_top(await readings.read()), refresh=True)
                        await asyncio.sleep(pause)
            else:
                await _say(readings, console, pause)


async def _once(readings: _Readings, console: Console, *, as_lines: bool) -> None:
    view = await readings.read()
    if view.away is None and view.boards:
        await asyncio.sleep(_AGAIN)
        view = await readings.read()
    if view.away is not None:
        raise StoreUnavailableError("read the boards")
    if as_lines:
        print(as_json(view.document()))
    else:
        console.print(show_top(view))


async def _say(readings: _Readings, console: Console, pause: float) -> None:
    shown = ""
    while True:
        line = top_line(await readings.read())
        if line.plain != shown:
            shown = line.plain
            console.print(line, soft_wrap=True)
            sys.stdout.flush()
        await asyncio.sleep(pause)


class _Readings:
    """Reads boards and a feed, and keeps the last values while the server is unreachable."""

    def __init__(self, boards: Sequence[WatchedBoard], feed: Feed) -> None:
        self._boards = boards
        self._feed = feed
        self._rows: tuple[BoardRow, ...] = ()
        self._answered = asyncio.get_running_loop().time()

    async def read(self) -> TopView:
        """Ask all boards, and read the feed."""
        clock = asyncio.get_running_loop().time
        away: int | None = None
        # Waits for all boards: after the failure of one, no other read may still be running.
        rows = await asyncio.gather(
            *(board.read(clock()) for board in self._boards), return_exceptions=True
        )
        found = [row for row in rows if isinstance(row, BoardRow)]
        for row in rows:
            if isinstance(row, BaseException) and not isinstance(row, StoreUnavailableError):
                raise row
        gone = len(found) < len(rows) if rows else not self._feed.current
        if gone:
            away = int(clock() - self._answered)
        else:
            self._rows = tuple(found)
            self._answered = clock()
        return TopView(away, self._feed.mode, self._rows, pools_of(self._feed))
