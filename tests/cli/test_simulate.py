"""``rxdispatch nodes simulate`` against real servers."""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

import rxdispatch as rxd
from rxdispatch.store.url import parse_url
from tests.cli.nodes_command import NodesCommand, run_nodes
from tests.proxy import Proxy
from tests.servers import alive, system_redis, valkey_server

QUICK = ("--nodes", 60, "--ttl", 2, "--interval", 0.5)


async def until(feed: rxd.Feed, count: int, seconds: float = 30.0) -> None:
    """Wait until the feed knows *count* nodes that are ready."""
    async with asyncio.timeout(seconds):
        while sum(node.status is rxd.NodeStatus.READY for node in feed.nodes()) != count:
            await asyncio.sleep(0.01)


async def until_seen(lives: dict[str, set[str]], counts: list[int]) -> None:
    """Wait until *count* nodes were seen in each life of the data."""
    async with asyncio.timeout(30):
        while counts != [len(ids) for ids in lives.values()]:
            await asyncio.sleep(0.01)


async def test_a_server_of_its_own() -> None:
    """Without a URL the command starts a server, prints its URL, and ends it at a signal."""
    with NodesCommand("simulate", *QUICK, "--pools", "a,b", "--capacity", 3) as command:
        url = await asyncio.to_thread(command.line)
        assert url.startswith("unix:///")
        # The URL is printed when there are nodes to see.
        async with rxd.connect(url) as hub, hub.feed() as feed:
            nodes = feed.nodes()
            assert len(nodes) >= 50
            assert {"a", "b"} == {node.pool for node in nodes}
            assert {3} == {node.capacity for node in nodes}
        family = command.family()
        command.process.send_signal(signal.SIGINT)
        out, err = await asyncio.to_thread(command.end)
    assert 0 == command.process.returncode, err
    assert "" == out
    assert f"rxdispatch nodes watch --url {url}" in err
    assert "Traceback" not in err
    assert not any(alive(pid) for pid in family)
    assert not Path(parse_url(url).path).exists()


async def test_nodes_come_and_go() -> None:
    """Nodes join, change, drain and leave; SIGTERM removes the remaining ones."""
    async with valkey_server() as server:
        url = server.target.safe
        kinds: Counter[str] = Counter()

        def record(change: rxd.NodeChange) -> None:
            kinds[change.kind] += 1
            if change.node is not None and change.node.status is rxd.NodeStatus.DRAINING:
                kinds["draining"] += 1

        async with rxd.connect(url, namespace="sim") as hub, hub.feed() as feed:
            feed.changes.subscribe(record)
            options = ("--url", url, "--namespace", "sim", "--churn", 0.05, "--seed", 1)
            with NodesCommand("simulate", *QUICK, *options) as command:
                async with asyncio.timeout(30):
                    while min(kinds[k] for k in ("updated", "removed", "draining")) < 5:
                        await asyncio.sleep(0.01)
                assert len(feed.nodes()) >= 50
                command.process.send_signal(signal.SIGTERM)
                out, err = await asyncio.to_thread(command.end)
            assert 0 == command.process.returncode, err
            assert "" == out
            assert "Removing the nodes" in err
            await until(feed, 0, 5)
            assert [] == feed.nodes()


async def test_it_ends_by_itself() -> None:
    """After its duration, the simulation removes its own nodes and no others."""
    with system_redis() as url:
        async with rxd.connect(url) as hub, hub.feed() as feed:
            await hub.nodes.register(rxd.Node("mine"), ttl=600)
            done = await asyncio.to_thread(
                run_nodes, "simulate", *QUICK, "--duration", 2.5, RXDISPATCH_URL=url
            )
            assert 0 == done.returncode, done.stderr
            assert "" == done.stdout
            assert re.search(r"60 ready +\d draining +\d+ heartbeats/s", done.stderr), done.stderr
            await until(feed, 1, 5)
            assert ["mine"] == [node.id for node in feed.nodes()]


async def test_an_outage_and_lost_data() -> None:
    """The command survives an outage, and registers its nodes again after a loss of data."""
    async with (
        valkey_server() as server,
        Proxy(server.target) as proxy,
        rxd.connect(server.target.safe) as hub,
        hub.feed() as feed,
    ):
        options = ("--url", proxy.target.safe, "--churn", 0.0, "--ttl", 1, "--interval", 0.3)
        with NodesCommand("simulate", "--nodes", 30, *options) as command:
            await until(feed, 30)
            proxy.blackhole()
            await asyncio.to_thread(command.read_until, "retrying until it answers")
            proxy.heal()
            await asyncio.to_thread(command.read_until, "The server is back")
            await until(feed, 30)
            lives: dict[str, set[str]] = {}

            def record(change: rxd.NodeChange) -> None:
                if change.node is not None and change.kind != "removed":
                    lives.setdefault(change.epoch, set()).add(change.node.id)

            feed.changes.subscribe(record)
            await until_seen(lives, [30])
            await hub.client.call("flush", b"FLUSHALL")
            await until_seen(lives, [30, 30])
            await until(feed, 30)
            command.process.send_signal(signal.SIGINT)
            _, err = await asyncio.to_thread(command.end)
        assert 0 == command.process.returncode, err
        assert "Traceback" not in err
        await until(feed, 0, 5)


async def test_the_server_is_gone_in_the_end() -> None:
    """The command soon reports what it could not remove; a second signal ends it at once."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        for second in (False, True):
            with NodesCommand("simulate", *QUICK, "--url", proxy.target.safe) as command:
                await asyncio.to_thread(command.read_until, "Keeping 60 nodes alive")
                proxy.blackhole()
                command.process.send_signal(signal.SIGINT)
                await asyncio.to_thread(command.read_until, "again to abort")
                if second:
                    command.process.send_signal(signal.SIGINT)
                _, err = await asyncio.to_thread(command.end)
            proxy.heal()
            assert ("could not be removed" in err) is not second
            assert (130 if second else 0) == command.process.returncode, err
            assert "Traceback" not in err


@pytest.mark.parametrize(
    ("code", "text", "arguments"),
    [
        (2, "nodes must be an int from 1", ("--nodes", 0)),
        (2, "interval must be > 0 and less than ttl", ("--interval", 10)),
        (2, "ttl must be", ("--ttl", 0)),
        (2, "duration must be", ("--duration", -1)),
        (2, "pools must be different", ("--pools", "a,a")),
        (2, "nodes must have a server", ("--url", "memory://")),
        (1, "there is no such socket", ("--url", "unix:///nowhere/server.sock")),
    ],
)
def test_bad_arguments(code: int, text: str, arguments: tuple[object, ...]) -> None:
    """One sentence and the exit code come before anything is started."""
    done = run_nodes("simulate", *arguments)
    assert code == done.returncode
    assert text in done.stderr
    assert "" == done.stdout
    assert "Traceback" not in done.stderr
