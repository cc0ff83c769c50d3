"""
A web service that places work on a fleet, and shows the fleet as it changes.

Run it with any ASGI server, such as ``uvicorn service:app``, and with ``RXDISPATCH_URL`` set to the
server of the fleet.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import reactivex
from reactivex import Observable
from reactivex import operators as rx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import rxdispatch as rxd
from rxdispatch import operators as ops


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    """Keep one hub and one feed open while the service runs."""
    async with rxd.connect() as hub, hub.feed() as feed:
        app.state.feed = feed
        yield


def feed_of(request: Request) -> rxd.Feed:
    """Return the feed of the service."""
    return cast("rxd.Feed", request.app.state.feed)


# -- placing work ----------------------------------------------------------------------------


async def work_on(node: rxd.Node, payload: Any) -> Any:
    """Send the work to the node; put your client here."""
    return {"node": node.id, "did": payload}


async def work(request: Request) -> Response:
    """Hold a slot on a node of the pool while the work runs."""
    payload = await request.json()
    try:
        async with feed_of(request).reserve(pool=request.path_params["pool"]) as slot:
            return JSONResponse(await work_on(slot.node, payload))
    except rxd.NoCapacityError as error:
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})
    except rxd.StoreUnavailableError as error:
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": "5"})


# -- showing the fleet -----------------------------------------------------------------------


def about(node: rxd.Node) -> dict[str, Any]:
    """Return a node as a JSON object."""
    return {
        "id": node.id,
        "pool": node.pool,
        "status": node.status,
        "jobs": node.current_jobs,
        "capacity": node.capacity,
        "state": dict(node.state),
    }


async def nodes(request: Request) -> Response:
    """Return the fleet from memory, without a call to the server."""
    return JSONResponse([about(node) for node in feed_of(request).nodes()])


def news(feed: rxd.Feed) -> Observable[rxd.NodeChange]:
    """Return a stream of all present nodes, then of each change, with no gap between the two."""

    def subscribe(_: Any) -> Observable[rxd.NodeChange]:
        present = [rxd.NodeChange("added", node, None, "", node.seq) for node in feed.nodes()]
        return feed.changes.pipe(rx.start_with(*present))

    return reactivex.defer(subscribe)


def of_node(change: rxd.NodeChange) -> str | None:
    """Return the id of the node that has changed."""
    return None if change.node is None else change.node.id


def event(change: rxd.NodeChange) -> str:
    """Return a change as a server-sent event."""
    node = None if change.node is None else about(change.node)
    return f"event: {change.kind}\ndata: {json.dumps(node)}\n\n"


async def events(request: Request) -> Response:
    """Stream changes; a slow reader gets only the newest change of each node."""
    changes = news(feed_of(request)).pipe(ops.conflate(key=of_node))

    async def body() -> AsyncGenerator[str]:
        async with rxd.to_async_iterable(changes, size=16) as reader:
            async for change in reader:
                yield event(change)

    return StreamingResponse(body(), media_type="text/event-stream")


# -- health ----------------------------------------------------------------------------------


async def healthz(request: Request) -> Response:
    """Report where the feed gets its data from, and how old it is."""
    feed = feed_of(request)
    stats = feed.stats
    return JSONResponse(
        {
            "mode": feed.mode,
            "current": feed.current,
            "nodes": stats.nodes,
            "staleness": round(stats.staleness, 3),
            "gaps": stats.gaps,
            "redis_p99": stats.redis.p99,
        },
        200 if feed.mode is rxd.Mode.NORMAL else 503,
    )


app = Starlette(
    routes=[
        Route("/work/{pool}", work, methods=["POST"]),
        Route("/nodes", nodes),
        Route("/nodes/events", events),
        Route("/healthz", healthz),
    ],
    lifespan=lifespan,
)
