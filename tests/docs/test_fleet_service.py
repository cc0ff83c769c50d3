"""The example service of the documentation does what its page says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

import rxdispatch as rxd
from docs.examples.fleet_service.service import app
from tests.servers import valkey_server


@asynccontextmanager
async def _running(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[rxd.Hub]:
    """Run the service on a server, and yield a hub on the same one."""
    async with valkey_server() as server:
        monkeypatch.setenv("RXDISPATCH_URL", server.target.safe)
        async with app.router.lifespan_context(app), rxd.connect() as hub:
            yield hub


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


async def _registered(hub: rxd.Hub, *nodes: rxd.Node) -> None:
    """Register a node, and wait until the service knows it."""
    feed: rxd.Feed = app.state.feed
    await hub.nodes.register(nodes)
    async with asyncio.timeout(5):
        while any(feed.get(node.id) is None for node in nodes):
            await asyncio.sleep(0.01)


async def test_work_holds_a_slot_on_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request without a free node is refused."""
    async with _running(monkeypatch) as hub, _client() as client:
        await _registered(hub, rxd.Node("gpu-1", pool="gpu"))
        done = await client.post("/work/gpu", json={"frame": 7})
        assert {"node": "gpu-1", "did": {"frame": 7}} == done.json()
        (shown,) = (await client.get("/nodes")).json()
        assert ("gpu-1", "ready", 0, 1) == (
            *(shown["id"], shown["status"], shown["jobs"], shown["capacity"]),
        )
        refused = await client.post("/work/cpu", json={})
        assert (503, "1") == (refused.status_code, refused.headers["retry-after"])
        assert {"error": "a node with room must match pool='cpu'"} == refused.json()


async def test_health_is_that_of_the_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is healthy while the mode is NORMAL."""
    async with _running(monkeypatch) as hub, _client() as client:
        await _registered(hub, rxd.Node("gpu-1"))
        health = await client.get("/healthz")
        assert 200 == health.status_code
        assert ("NORMAL", True, 1) == tuple(health.json()[k] for k in ("mode", "current", "nodes"))


class _Listener:
    """A client that reads an endless response until it hangs up; httpx would wait for its end."""

    def __init__(self) -> None:
        self.text = ""
        self.gone = asyncio.Event()
        self.came = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        self.text += message.get("body", b"").decode()
        self.came.set()

    async def until(self, text: str) -> None:
        async with asyncio.timeout(5):
            while text not in self.text:
                self.came.clear()
                await self.came.wait()

    async def listen(self, path: str) -> None:
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        await app(scope, self.receive, self.send)


async def test_events_are_the_fleet_and_what_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The events contain the fleet and its changes; hanging up ends the subscription."""
    async with _running(monkeypatch) as hub:
        await _registered(hub, rxd.Node("gpu-1", pool="gpu"))
        listener = _Listener()
        listening = asyncio.create_task(listener.listen("/nodes/events"))
        await listener.until('event: added\ndata: {"id": "gpu-1"')
        await hub.nodes.heartbeat("gpu-1", {"load": 0.5})
        await listener.until('"state": {"load": 0.5}}')
        await hub.nodes.remove("gpu-1")
        await listener.until('event: removed\ndata: {"id": "gpu-1"')
        listener.gone.set()
        await listening
