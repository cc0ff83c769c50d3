"""``rxdispatch nodes watch`` against real servers."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
from typing import Any

import pytest

import rxdispatch as rxd
from tests.cli.nodes_command import NodesCommand, read_screen, run_nodes
from tests.servers import valkey_server


def node(name: str, pool: str = "cpu", **other: Any) -> rxd.Node:
    """Return a node with room for four jobs."""
    return rxd.Node(name, pool=pool, capacity=4, **other)


async def test_once() -> None:
    """The command prints a table or a JSON document, of all pools or of one."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        url = server.target.safe
        long = "x" * 190
        await hub.nodes.register([node(f"n{i:03}") for i in range(100)], ttl=600)
        await hub.nodes.register(
            node(long, "gpu", labels={"zone": "a"}, state={"load": 0.5, "raw": b"\xff"}), ttl=600
        )
        # For longer than the commands below take on a busy machine.
        await hub.nodes.reserve(long, lease=600)
        await hub.nodes.drain(long)

        text = await asyncio.to_thread(run_nodes, "watch", "--once", "--url", url)
        assert 0 == text.returncode, text.stderr
        lines = text.stdout.splitlines()
        assert lines[0].startswith(
            "NORMAL, current  101 nodes: 100 ready, 1 draining, 0 suspect  0.0 changes/s  0 gaps"
        )
        # Without a screen, nothing is cut.
        assert 3 + 101 == len(lines)
        assert [long, "gpu", "draining"] == lines[-1].split()[:3]
        assert ["1/4", "zone=a", "load=0.5", "raw=1", "bytes", "3"] == lines[-1].split()[4:-1]
        assert lines[2].endswith("version  heartbeat")
        assert re.fullmatch(r"\d+[sm]", lines[-1].split()[-1])
        assert "\x1b" not in text.stdout

        first = await asyncio.to_thread(
            run_nodes, "watch", "--once", "--sort", "jobs", RXDISPATCH_URL=url
        )
        assert first.stdout.splitlines()[3].startswith(long)

        options = ("--once", "--json", "--pool", "gpu", "--url", url)
        done = await asyncio.to_thread(run_nodes, "watch", *options)
        assert 0 == done.returncode, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        (found,) = document.pop("nodes")
        seq = found.pop("seq")
        assert seq > 100
        assert 0 <= found.pop("silence") < 600
        assert {
            "id": long,
            "pool": "gpu",
            "status": "draining",
            "capacity": 4,
            "current_jobs": 1,
            "labels": {"zone": "a"},
            "state": {"load": 0.5, "raw": "b'\\xff'"},
            "version": 3,
        } == found
        assert {
            "mode": "NORMAL",
            "stale": None,
            "pool": "gpu",
            "known": 101,
            "statuses": {"ready": 0, "draining": 1, "suspect": 0},
            "gaps": 0,
            "catch_ups": 0,
        } == document


async def test_lines() -> None:
    """The command prints the nodes of a pool, a line that ends the list, and then the changes."""
    async with valkey_server() as server, rxd.connect(server.target.safe, namespace="x") as hub:
        await hub.nodes.register([node("a", state={"load": 0.5}), node("b", "gpu")], ttl=600)
        options = ("--json", "--pool", "cpu", "--namespace", "x", "--url", server.target.safe)
        with NodesCommand("watch", *options) as command:

            async def told() -> tuple[str, str, str]:
                found = await asyncio.to_thread(command.document)
                return found["kind"], found["node"]["id"], found["node"]["status"]

            assert ("added", "a", "ready") == await told()
            synced = await asyncio.to_thread(command.document)
            assert ("synced", None) == (synced["kind"], synced["node"])
            # A heartbeat without news and a change in another pool print nothing.
            await hub.nodes.heartbeat("a")
            await hub.nodes.drain("b")
            await hub.nodes.drain("a")
            assert ("updated", "a", "draining") == await told()
            await hub.nodes.register(node("b", "cpu"), ttl=600)
            assert ("added", "b", "ready") == await told()
            await hub.nodes.register(node("b", "gpu"), ttl=600)
            assert ("removed", "b", "ready") == await told()
            await hub.nodes.remove("a")
            assert ("removed", "a", "draining") == await told()
            command.process.send_signal(signal.SIGINT)
            out, err = await asyncio.to_thread(command.end)
        assert (0, "", "") == (command.process.returncode, out, err)


async def test_a_reader_that_does_not_read() -> None:
    """The command can be stopped while its output pipe is full."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        state = {"text": "x" * 10_000}
        await hub.nodes.register([node(f"n{i}", state=state) for i in range(100)], ttl=600)
        with NodesCommand("watch", "--json", "--url", server.target.safe) as command:
            await asyncio.to_thread(command.line)
            command.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(command.process.wait, 20)
            assert 0 == command.process.returncode


async def test_live_on_a_terminal() -> None:
    """The picture fills the screen and follows the changes, and Ctrl-C restores the screen."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        await hub.nodes.register([node(f"n{i:02}") for i in range(20)], ttl=600)
        ours, theirs = pty.openpty()
        try:
            with NodesCommand(
                "watch", "--url", server.target.safe, "--sort", "status", stdout=theirs
            ) as command:
                first = await asyncio.to_thread(
                    read_screen, ours, "NORMAL", "n00", "n07", "and 12 more"
                )
                assert "20 ready" in first
                assert "n08" not in first
                await hub.nodes.drain("n19")
                later = await asyncio.to_thread(read_screen, ours, "n19", "1 draining")
                assert "19 ready" in later
                command.process.send_signal(signal.SIGINT)
                # The earlier contents of the screen are back, and so is the cursor.
                await asyncio.to_thread(read_screen, ours, "\x1b[?1049l", "\x1b[?25h")
                _, err = await asyncio.to_thread(command.end)
            assert (0, "") == (command.process.returncode, err)
        finally:
            os.close(ours)
            os.close(theirs)


async def test_live_without_a_terminal() -> None:
    """The command prints a summary line, and another one after a change."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        with NodesCommand("watch", "--url", server.target.safe) as command:
            line = await asyncio.to_thread(command.line)
            assert line.startswith("NORMAL, current  0 nodes: 0 ready, 0 draining")
            await hub.nodes.register(node("a"), ttl=600)
            while "1 node: 1 ready" not in line:
                line = await asyncio.to_thread(command.line)
            command.process.send_signal(signal.SIGTERM)
            _, err = await asyncio.to_thread(command.end)
        assert (0, "") == (command.process.returncode, err)


async def test_the_server_goes() -> None:
    """The command goes on and shows the age of its values; Ctrl-C still ends it normally."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        await hub.nodes.register(node("a"), ttl=600)
        command = NodesCommand("watch", "--url", server.target.safe)
        with command:
            assert "NORMAL, current  1 node" in await asyncio.to_thread(command.line)
            await server.stop()
            line = ""
            while "LOCAL_ONLY, stale for" not in line:
                line = await asyncio.to_thread(command.line)
            assert "1 node" in line
            command.process.send_signal(signal.SIGINT)
            _, err = await asyncio.to_thread(command.end)
        assert 0 == command.process.returncode, err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("code", "text", "arguments"),
    [
        (2, "give --url or set RXDISPATCH_URL", ()),
        (2, "rxdispatch nodes simulate", ()),
        (2, "nodes must have a server", ("--url", "memory://")),
        (2, "pool must be", ("--url", "unix:///nowhere", "--pool", "")),
        (2, "namespace must", ("--url", "unix:///nowhere", "--namespace", "{}")),
        (2, "--sort", ("--url", "unix:///nowhere", "--sort", "colour")),
        (1, "there is no such socket", ("--url", "unix:///nowhere")),
    ],
)
def test_bad_arguments(code: int, text: str, arguments: tuple[object, ...]) -> None:
    """One sentence says what to do; the exit code is 2 or 1."""
    done = run_nodes("watch", *arguments)
    assert code == done.returncode
    assert text in done.stderr
    assert "" == done.stdout
    assert "Traceback" not in done.stderr
