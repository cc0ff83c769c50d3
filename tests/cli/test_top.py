"""``rxdispatch top`` against real servers."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from typing import Any

import pytest

import rxdispatch as rxd
from tests.cli.command import LIMIT, ROOT
from tests.cli.nodes_command import NodesCommand, read_screen
from tests.servers import valkey_server


def environment() -> dict[str, str]:
    """Return an environment in which nothing is cut off."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    found = {**os.environ, "PYTHONPATH": path, "COLUMNS": "140", "LINES": "20"}
    found.pop("RXDISPATCH_URL", None)
    return found


def line_of(*arguments: object) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "rxdispatch.cli", "top", *map(str, arguments)]


def run_top(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        line_of(*arguments),
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


class TopCommand(NodesCommand):
    """A running command."""

    def __init__(self, *arguments: object, stdout: int = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            line_of(*arguments),
            env={**environment(), "TERM": "xterm-256color"},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._family: set[int] = set()


async def prepare(hub: rxd.Hub) -> rxd.Board[Any]:
    """Put tasks with each mark on a board, and nodes into two pools."""
    board = hub.board("jobs")
    await board.submit(rxd.Task(n) for n in range(6))
    await board.submit(rxd.Task(0, delay=900.0))
    done, dead, _ = await board.claim(3, lease=900.0)
    await board.settle([done.done(), dead.dead("no")])
    nodes = [rxd.Node(f"n{n}", pool="gpu" if n else "cpu", capacity=4) for n in range(3)]
    await hub.nodes.register(nodes, ttl=600)
    await hub.nodes.drain("n2")
    return board


async def test_once() -> None:
    """The command prints a table or one line of JSON; an unused board is empty."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        await prepare(hub)
        url = server.target.safe
        done = await asyncio.to_thread(run_top, "jobs", "empty", "jobs", "--once", "--url", url)
        assert (0, "") == (done.returncode, done.stderr)
        lines = [line.split() for line in done.stdout.splitlines()]
        assert ["server", "answers"] == lines[0]
        assert ["jobs", "1", "3", "1", "1", "1"] == lines[3][:6]
        assert ["empty", "0", "0", "0", "0", "0", "0.0", "0.0", "0.0s"] == lines[4]
        assert ["gpu", "1", "1", "0", "0", "4"] in lines
        options = ("jobs", "--once", "--json", "--url", url)
        done = await asyncio.to_thread(run_top, *options)
        document = json.loads(done.stdout)
        (board,) = document.pop("boards")
        assert 0 <= board.pop("lag")
        assert {
            "name": "jobs",
            "scheduled": 1,
            "ready": 3,
            "claimed": 1,
            "done": 1,
            "dead": 1,
            "rate_in": 0.0,
            "rate_out": 0.0,
            "kinds": [{"name": "default", "unfinished": 5, "change": 0.0, "paused": False}],
            "more_kinds": 0,
            "more_unfinished": 0,
        } == board
        gpu = {"ready": 1, "draining": 1, "suspect": 0}
        assert (None, "NORMAL") == (document["away"], document["mode"])
        assert {"name": "gpu", "statuses": gpu, "jobs": 0, "capacity": 8, "room": 4} in document[
            "pools"
        ]


async def test_lines_tell_rates() -> None:
    """Lines have the added and the done tasks per second; a signal ends the command normally."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board = hub.board("jobs")
        options = ("jobs", "--json", "--interval", "0.05", "--url", server.target.safe)
        with TopCommand(*options) as command:
            first = await asyncio.to_thread(command.document)
            assert first["boards"][0]["rate_in"] is None
            assert [] == first["pools"]
            await board.submit(rxd.Task(n) for n in range(30))
            await board.settle([claim.done() for claim in await board.claim(10)])
            found = first["boards"][0]
            while not found["rate_out"]:
                found = (await asyncio.to_thread(command.document))["boards"][0]
            assert 10 == found["done"]
            assert found["rate_in"] > found["rate_out"] > 0
            command.process.send_signal(signal.SIGINT)
            _, err = await asyncio.to_thread(command.end)
        assert (0, "") == (command.process.returncode, err)


async def test_kinds() -> None:
    """The kinds with the most unfinished tasks are shown, and how many others there are."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board = hub.board("jobs")
        await board.submit(rxd.Task(n, kind="print") for n in range(1200))
        await board.submit(rxd.Task(n, kind=("b\x1b[2J", "a")[n % 2]) for n in range(6))
        await board.submit(rxd.Task(n, kind=f"{n}") for n in range(20))
        await board.submit([rxd.Task(0), rxd.Task(0)])
        await board.pause(kind="print")
        await hub.board("plain").submit(rxd.Task(0))
        options = ("jobs", "plain", "--once", "--url", server.target.safe)
        done = await asyncio.to_thread(run_top, *options, "--kinds", 4)
        assert (0, "") == (done.returncode, done.stderr)
        lines = [line.split() for line in done.stdout.splitlines()]
        at = lines.index(["board", "kind", "unfinished", "change/s"])
        assert [
            ["jobs", "print", "1,200", "0.0", "paused"],
            ["jobs", "a", "3", "0.0"],
            ["jobs", "b\\x1b[2J", "3", "0.0"],
            ["jobs", "default", "2", "0.0"],
            ["jobs", "(20", "more", "kinds)", "20"],
        ] == lines[at + 1 :]
        done = await asyncio.to_thread(run_top, *options, "--json", "--kinds", 1)
        found, _ = json.loads(done.stdout)["boards"]
        one = {"name": "print", "unfinished": 1200, "change": 0.0, "paused": True}
        assert ([one], 23, 28) == tuple(
            found[name] for name in ("kinds", "more_kinds", "more_unfinished")
        )
        done = await asyncio.to_thread(run_top, *options, "--kinds", 0)
        assert "print" not in done.stdout


async def test_lines_tell_kinds() -> None:
    """A line has the kinds of a board that has several, and how fast their numbers change."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board = hub.board("jobs")
        await board.submit(rxd.Task(n, kind="ab"[n % 2]) for n in range(20))
        options = ("jobs", "--interval", "0.05", "--kinds", "1", "--url", server.target.safe)
        with TopCommand(*options) as command:
            line = await asyncio.to_thread(command.line)
            assert line.endswith(", unfinished: a 10, 1 more kind 10")
            await board.pause(kind="a")
            while not line.endswith(", unfinished: a 10 paused, 1 more kind 10"):
                line = await asyncio.to_thread(command.line)
        with TopCommand(*options[:3], "--json", *options[3:]) as command:
            first = (await asyncio.to_thread(command.document))["boards"][0]["kinds"]
            assert [{"name": "a", "unfinished": 10, "change": None, "paused": True}] == first
            await board.submit(rxd.Task(n, kind="a") for n in range(30))
            found = (await asyncio.to_thread(command.document))["boards"][0]
            while not found["kinds"][0]["change"]:
                found = (await asyncio.to_thread(command.document))["boards"][0]
            assert found["kinds"][0]["change"] > 0
            await board.cancel([c.task.id for c in await board.claim(10, kinds=["b"])])
            while found["more_kinds"]:
                found = (await asyncio.to_thread(command.document))["boards"][0]
            assert 40 == found["kinds"][0]["unfinished"]


async def test_live_on_a_terminal() -> None:
    """The screen follows the changes, and Ctrl-C restores it."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board = await prepare(hub)
        ours, theirs = pty.openpty()
        try:
            options = ("jobs", "--interval", "0.1", "--url", server.target.safe)
            with TopCommand(*options, stdout=theirs) as command:
                await asyncio.to_thread(read_screen, ours, "server answers", "jobs", "gpu")
                await board.submit(rxd.Task(n) for n in range(1231))
                await asyncio.to_thread(read_screen, ours, "1,234")
                command.process.send_signal(signal.SIGINT)
                await asyncio.to_thread(read_screen, ours, "\x1b[?1049l", "\x1b[?25h")
                _, err = await asyncio.to_thread(command.end)
            assert (0, "") == (command.process.returncode, err)
        finally:
            os.close(ours)
            os.close(theirs)


async def test_the_server_goes_and_comes_back() -> None:
    """The command reports the unreachable server, shows the last values, and continues later."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        await prepare(hub)
        stop, go = signal.SIGSTOP, signal.SIGCONT
        pid = int(
            (await hub.client.call("ask", "INFO", "server")).split(b"process_id:")[1].split()[0]
        )
        with TopCommand("jobs", "--interval", "0.1", "--url", server.target.safe) as command:
            line = await asyncio.to_thread(command.line)
            assert line.startswith("server answers  jobs: 3 ready, 1 claimed, 1 done, 1 dead")
            os.kill(pid, stop)
            try:
                while not line.startswith("server unreachable"):
                    line = await asyncio.to_thread(command.line)
                assert "jobs: 3 ready" in line
            finally:
                os.kill(pid, go)
            while not line.startswith("server answers"):
                line = await asyncio.to_thread(command.line)
            command.process.send_signal(signal.SIGTERM)
            _, err = await asyncio.to_thread(command.end)
        assert 0 == command.process.returncode, err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("code", "text", "arguments"),
    [
        (2, "give --url or set RXDISPATCH_URL", ("jobs",)),
        (2, "must have a server", ("jobs", "--url", "memory://")),
        (2, "board must be", ("", "--url", "unix:///nowhere")),
        (2, "kinds must be", ("jobs", "--url", "unix:///nowhere", "--kinds", "-1")),
        (2, "interval must be", ("jobs", "--url", "unix:///nowhere", "--interval", "0")),
        (1, "there is no such socket", ("jobs", "--url", "unix:///nowhere")),
    ],
)
def test_bad_arguments(code: int, text: str, arguments: tuple[object, ...]) -> None:
    """One sentence says what to do; the exit code is 2 or 1."""
    done = run_top(*arguments)
    assert (code, "") == (done.returncode, done.stdout)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
